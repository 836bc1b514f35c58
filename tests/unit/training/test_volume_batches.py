"""Windows of volumes come in the promised order, from anywhere in them, and unlabelled ones tell nothing but voxels."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.training.augmentation import Augmentation
from wsiseg.training.volume_batches import VolumeBatches, VolumeSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATCH = (4, 6, 5)


class FakeStore:
    """Volumes in memory whose voxels are their number; of some the labels must not be looked at."""

    def __init__(self, count: int, *, secret: int = 0, shape: tuple[int, int, int] = (6, 8, 7)) -> None:
        self.meta = SimpleNamespace(volumes=[SimpleNamespace(shape=shape, spacing_mm=None) for _ in range(count)])
        self._shape, self._open = shape, count - secret

    def read_voxels(self, index: int, box: tuple[slice, ...]) -> NDArray[np.float32]:
        return np.full(self._shape, index + 1, dtype=np.float32)[box]

    def lowest(self, index: int) -> float:  # noqa: ARG002 - of all alike
        return -1

    def read_labels(self, index: int, box: tuple[slice, ...]) -> NDArray[np.uint8]:
        assert index < self._open, "the labels of an unlabelled volume were read"
        labels = np.full(self._shape, 1, dtype=np.uint8)
        labels[0] = 255
        return labels[box]


class GradedStore(FakeStore):
    """Volumes of which no two voxels are the same."""

    def read_voxels(self, index: int, box: tuple[slice, ...]) -> NDArray[np.float32]:
        whole = super().read_voxels(index, (slice(None),) * 3)
        return np.arange(whole.size, dtype=np.float32).reshape(whole.shape)[box]


def source(store: FakeStore, *indices: int) -> VolumeSource:
    return VolumeSource(store=store, indices=np.array(indices))  # type: ignore[arg-type]


def encode(labels: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    return {"labels": labels, "valid": valid}


def batches(labelled: int, unlabelled: int = 0, size: int = 2, **settings: Any) -> VolumeBatches:  # noqa: ANN401
    store = FakeStore(labelled + unlabelled, secret=unlabelled)
    free = [source(store, *range(labelled, labelled + unlabelled))] if unlabelled else []
    given = {
        "patch": PATCH,
        "batch_size": size,
        "unlabelled_batch_size": size if unlabelled else 0,
        "augmentation": Augmentation.none(),
        "seed": 3,
    }
    return VolumeBatches([source(store, *range(labelled))], encode, unlabelled=free, **{**given, **settings})


def volumes_of(stream: VolumeBatches, number: int) -> list[int]:
    """Return the volumes that a batch shows, by their voxels."""
    return [int(image.max()) - 1 for image in stream.make(number).images]


def test_an_epoch_holds_all_labelled_volumes_but_those_that_fill_no_batch() -> None:
    stream = batches(25, 40)

    first, second = (
        [index for number in range(12 * epoch, 12 * epoch + 12) for index in volumes_of(stream, number)[:2]]
        for epoch in (0, 1)
    )

    assert stream.batches_per_epoch == 12
    assert (stream.images_per_batch, stream.images_per_epoch) == (4, 48)
    assert len(set(first)) == len(set(second)) == 24
    assert first != second
    assert set(first) | set(second) <= set(range(25))


def test_volumes_without_labels_come_last_and_all_of_them_in_time() -> None:
    stream = batches(5, 9)

    seen = [index for number in range(9) for index in volumes_of(stream, number)[2:]]

    assert set(seen[:9]) == set(seen[9:]) == set(range(5, 14))
    assert len(seen) == 18


def test_targets_belong_to_the_first_images_alone() -> None:
    crops = batches(5, 9).make(0)

    assert crops.images.shape == (4, 1, *PATCH)
    assert {name: value.shape for name, value in crops.targets.items()} == {
        "labels": (2, *PATCH),
        "valid": (2, *PATCH),
    }
    np.testing.assert_array_equal(crops.targets["valid"], crops.targets["labels"] != 255)


def test_a_batch_is_the_same_whoever_makes_it_and_another_with_another_seed() -> None:
    (streamed,) = batches(5, 9).stream(7, 8, workers=2)
    cuts = [batches(5, 9, seed=seed).make(7).targets["labels"] for seed in range(3, 9)]

    assert streamed.images.equal(batches(5, 9).make(7).images)
    assert streamed.targets["labels"].equal(cuts[0])
    assert not all(cut.equal(cuts[0]) for cut in cuts[1:])


def test_ranks_share_the_volumes_of_a_batch() -> None:
    parts = [batches(9, 8, rank=rank, world=2) for rank in (0, 1)]

    epoch = [index for number in range(2) for part in parts for index in part.chosen(number)[0]]
    free = [index for number in range(2) for part in parts for index in part.chosen(number)[1]]

    assert parts[0].batches_per_epoch == 2
    assert len(set(epoch)) == len(epoch) == 8
    assert sorted(free) == list(range(8))


def test_labels_alone_make_batches_too() -> None:
    crops = batches(4).make(1)

    assert len(crops.images) == len(crops.targets["labels"]) == 2


@pytest.mark.parametrize(("labelled", "unlabelled"), [(1, 1), (1, 9), (3, 1), (2, 3)])
def test_fewer_volumes_than_a_batch_holds_fill_it_with_several_windows_each(labelled: int, unlabelled: int) -> None:
    parts = [batches(labelled, unlabelled, size=2, rank=rank, world=2) for rank in (0, 1)]

    for number in range(4):
        drawn = [part.chosen(number) for part in parts]
        known = Counter(at for with_labels, _ in drawn for at in with_labels)
        assert set(known) == set(range(labelled))
        assert max(known.values()) - min(known.values()) <= 1
        assert all((len(with_labels), len(without)) == (2, 2) for with_labels, without in drawn)
    free = [at for number in range(unlabelled) for part in parts for at in part.chosen(number)[1]]
    assert Counter(free) == dict.fromkeys(range(unlabelled), 4)
    assert parts[0].batches_per_epoch == 1


def test_windows_of_one_volume_are_cut_in_places_of_their_own() -> None:
    stream = VolumeBatches(
        [source(GradedStore(1, shape=(16, 16, 16)), 0)],
        encode,
        patch=PATCH,
        batch_size=4,
        augmentation=Augmentation.none(),
        seed=0,
    )

    assert len({image.numpy().tobytes() for image in stream.make(0).images}) == 4


@pytest.mark.parametrize(("labelled", "free"), [(0, 0), (1, 2)])
def test_nothing_to_draw_from_is_refused(labelled: int, free: int) -> None:
    with pytest.raises(DataError, match="no volume to train on"):
        batches(labelled, unlabelled_batch_size=free)


def test_around_small_volumes_nothing_is_learnt_and_lies_their_least_intensity() -> None:
    stream = batches(4, patch=(8, 8, 8))

    for number in range(5):
        crops = stream.make(number)
        is_inside = crops.images[:, 0] > 0
        assert is_inside.sum(dim=(1, 2, 3)).tolist() == [6 * 8 * 7] * 2
        assert (crops.images[:, 0][~is_inside] == -1).all()
        # All but the first slice is known, and nothing around it.
        assert crops.targets["valid"].sum(dim=(1, 2, 3)).tolist() == [5 * 8 * 7] * 2
        assert not crops.targets["valid"][~is_inside].any()


def test_windows_come_as_they_are_too_and_only_so_where_they_are_not_to_be_turned() -> None:
    def seen(augmentation: Augmentation) -> set[bytes]:
        store = GradedStore(1, shape=(6, 8, 8))
        stream = VolumeBatches(
            [source(store, 0)], encode, patch=(6, 8, 8), batch_size=1, augmentation=augmentation, seed=0
        )
        return {stream.make(number).images.numpy().tobytes() for number in range(60)}

    as_it_is = np.arange(6 * 8 * 8, dtype=np.float32).tobytes()
    assert seen(Augmentation.none()) == {as_it_is}
    turned = seen(Augmentation.none().model_copy(update={"symmetries": True}))
    assert len(turned) == 8
    assert as_it_is in turned


def test_intensities_change_where_they_may() -> None:
    dull, lively = (batches(3, augmentation=how).make(0).images for how in (Augmentation.none(), Augmentation()))

    assert not dull.equal(lively)
