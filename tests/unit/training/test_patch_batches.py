"""Tests of batches of whole patches."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wsiseg.errors import DataError
from wsiseg.heads.symmetry import turned_back
from wsiseg.labels import LabelMap
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.training.patch_batches import Known, PatchBatches, known_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 8
LAYERS = ("red", "green", "blue")


def patches(count: int = 10) -> Any:  # noqa: ANN401 - stands in for a store
    """Return a stand-in for a store whose layers of labels equal the red, green and blue of its images."""
    images = np.random.default_rng(0).integers(0, 255, (count, SIDE, SIDE, 3), dtype=np.uint8)
    labels: NDArray[np.uint8] = np.random.default_rng(1).integers(0, 2, (count, 2), dtype=np.uint8)
    labels[:, 0] |= ~labels.any(axis=1)
    return SimpleNamespace(
        splits=np.resize(np.array(["train", ""], dtype=np.object_), count),
        read_images=lambda indices: images[np.asarray(indices)],
        read_labels=lambda layer, indices: images[np.asarray(indices), ..., LAYERS.index(layer)],
        read_image_labels=lambda _, indices: labels[np.asarray(indices)],
        image_layers={"classes": ImageLayerInfo(labels=LabelMap.from_names(("tumour", "stroma"), background=False))},
        images=images,
        labels=labels,
    )


class Store(SimpleNamespace):
    """A stand-in with a length."""

    def __len__(self) -> int:
        return len(self.images)


def batches(count: int = 10, **changes: Any) -> tuple[Any, PatchBatches]:  # noqa: ANN401
    store = Store(**vars(patches(count)))
    known = replace(known_patches(store, "classes", ("train", "")), layers={name: name for name in LAYERS})
    chosen: dict[str, Any] = {"batch_size": 4, "last_batch": "keep", "flips": "square", "blur_px": 0.0, "seed": 0}
    chosen |= changes
    return store, PatchBatches(known, **chosen)


@pytest.mark.parametrize(
    ("count", "last_batch", "sizes"), [(10, "keep", [4, 4, 2]), (21, "keep", [4] * 5), (21, "drop", [4] * 5)]
)
def test_an_epoch_holds_each_patch_at_most_once(count: int, last_batch: str, sizes: list[int]) -> None:
    _, row = batches(count, last_batch=last_batch)
    made = [row.make(number).dressed(torch.device("cpu")).targets["index"] for number in range(len(sizes))]
    assert [len(index) for index in made] == sizes
    indices = torch.cat(made).tolist()
    assert len(set(indices)) == len(indices)
    again = torch.cat([row.make(len(sizes) + number).targets["index"] for number in range(len(sizes))]).tolist()
    assert again != indices
    assert row.images_per_epoch == 4 * len(sizes)
    assert row.left_out == count - len(indices)


@pytest.mark.parametrize("world", [1, 2])
@settings(max_examples=50)
@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 12),
    last_batch=st.sampled_from(["keep", "drop"]),
)
def test_no_epoch_goes_without_more_than_a_tenth_of_the_patches(
    world: int, count: int, batch_size: int, last_batch: str
) -> None:
    assume(count >= batch_size * world)
    rows = [
        batches(count, batch_size=batch_size, last_batch=last_batch, rank=rank, world=world)[1] for rank in range(world)
    ]

    made = [
        np.concatenate([row.make(number).targets["index"].numpy() for row in rows])
        for number in range(rows[0].batches_per_epoch)
    ]

    assert all(len(set(batch.tolist())) == len(batch) for batch in made)
    assert len(np.unique(np.concatenate(made))) == count - rows[0].left_out
    assert rows[0].left_out <= 0.1 * count


def test_a_single_last_image_is_dropped() -> None:
    _, row = batches(count=10, batch_size=3)
    assert row.images_per_epoch == 9


def test_images_and_labels_are_turned_alike_and_the_symmetry_undoes_it() -> None:
    store, row = batches()
    seen = set()
    for number in range(12):
        batch = row.make(number)
        masks = torch.stack([batch.targets[name] for name in LAYERS], dim=1)
        for image, layers, index, symmetry in zip(
            batch.images, masks, batch.targets["index"], batch.targets["symmetry"], strict=True
        ):
            assert torch.equal(image.long(), layers)
            back = turned_back(image, int(symmetry)).permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(back, store.images[int(index)])
            seen.add(int(symmetry))
    assert seen == set(range(8))


def test_batches_depend_on_their_number_alone() -> None:
    _, row = batches()
    streamed = list(row.stream(2, 7, workers=2))
    for number, batch in zip(range(2, 7), streamed, strict=True):
        again = row.make(number)
        assert torch.equal(batch.images, again.images)
        assert all(torch.equal(batch.targets[name], again.targets[name]) for name in again.targets)


def test_ranks_cut_batches_into_parts() -> None:
    _, whole = batches(batch_size=4, last_batch="drop")
    parts = [batches(batch_size=2, last_batch="drop", rank=rank, world=2)[1] for rank in range(2)]
    for number in range(4):
        joined = torch.cat([part.make(number).images for part in parts])
        assert torch.equal(joined, whole.make(number).images)


def test_blur_spares_labels() -> None:
    _, plain = batches(flips="none")
    _, blurred = batches(flips="none", blur_px=3.0)
    differs = False
    for number in range(6):
        one, two = (row.make(number).dressed(torch.device("cpu")) for row in (plain, blurred))
        assert all(torch.equal(one.targets[name], two.targets[name]) for name in LAYERS)
        differs |= not torch.equal(one.images, two.images)
    assert differs


def test_unknown_and_empty_labels_are_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(**vars(patches(10)))
    known_patches(store, "classes", ("train",))
    assert caplog.text == ""
    store.labels[2] = (255, 1)
    store.labels[4] = 0
    # Of another split, and unlabelled on purpose.
    store.labels[3] = (255, 1)
    store.labels[6] = 255

    known = known_patches(store, "classes", ("train",))

    assert known.indices.tolist() == [0, 8]
    assert "image labels classes: 1 patches are left out, as nobody knows whether they show tumour" in caplog.text
    assert "1 patches are left out, as they show no class" in caplog.text


@pytest.mark.parametrize(
    ("labels", "mend"), [((255, 255), "Label some with wsiseg label"), ((1, 255), "Say of each patch .* shows stroma")]
)
def test_stores_of_unknown_patches_are_refused(labels: tuple[int, int], mend: str) -> None:
    store = Store(**vars(patches(10)))
    store.labels[:] = labels

    with pytest.raises(DataError, match=f"no patch has image labels to train on. {mend}"):
        known_patches(store, "classes", ("train",))


def test_too_few_patches_are_refused() -> None:
    store = Store(**vars(patches(4)))
    known = Known(patches=store, indices=np.arange(1), present=store.labels[:1])
    with pytest.raises(DataError, match="do not fill a batch"):
        PatchBatches(known, batch_size=4, last_batch="keep", flips="none", blur_px=0, seed=0)
