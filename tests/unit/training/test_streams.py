"""Batches of two streams have the labelled images first, and read no label of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from wsiseg.training.augmentation import Augmentation
from wsiseg.training.batches import Batches
from wsiseg.training.sources import Source, UnlabelledSource
from wsiseg.training.streams import TwoStreams, unlabelled_batches

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import MakePatchStore
    from wsiseg.stores.patch_store import PatchStore

COUNT, LABELLED = 10, 4


def encode(labels: NDArray[np.int32], valid: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    return {"classes": np.where(valid, labels, 255).astype(np.uint8)}


@pytest.fixture
def store(tmp_path: Path, make_patch_store: MakePatchStore) -> PatchStore:
    """Return patches whose colour tells their number, and whose labels are their number, too."""
    numbers = np.arange(COUNT, dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None, None], (COUNT, 8, 8, 3)).copy()
    return make_patch_store(tmp_path / "s.zarr", images, np.broadcast_to(numbers[:, None, None], (COUNT, 8, 8)).copy())


def streams(
    store: PatchStore, *, rank: int = 0, world: int = 1, augmentation: Augmentation | None = None
) -> TwoStreams:
    labelled = Source(patches=store, layer="truth", indices=np.arange(LABELLED))
    others = UnlabelledSource(patches=store, layer="", indices=np.arange(LABELLED, COUNT))
    given: dict[str, Any] = {
        "crop_px": 8, "augmentation": augmentation or Augmentation.none(), "seed": 0, "rank": rank, "world": world
    }  # fmt: skip
    return TwoStreams(
        Batches([labelled], encode, batch_size=2, **given), unlabelled_batches([others], batch_size=3, **given)
    )


def numbers(images: torch.Tensor) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


def test_labelled_images_come_first_and_nothing_is_drawn_from_the_wrong_pool(store: PatchStore) -> None:
    both, seen = streams(store), set()

    for crops in both.stream(0, 12, workers=1):
        batch = crops.dressed(torch.device("cpu"))
        first, rest = numbers(batch.images[:2]), numbers(batch.images[2:])
        assert batch.labelled == 2
        assert [int(value[0, 0]) for value in batch.targets["classes"]] == first
        assert set(first) <= set(range(LABELLED))
        assert set(rest) <= set(range(LABELLED, COUNT))
        seen |= {*first, *rest}

    assert seen == set(range(COUNT))
    assert (both.images_per_batch, both.images_per_epoch) == (5, COUNT)


def test_each_stream_goes_through_all_before_any_comes_twice(store: PatchStore) -> None:
    batches = [crops.images for crops in streams(store).stream(0, 6, workers=0)]

    for pair in range(3):
        first = [number for images in batches[2 * pair : 2 * pair + 2] for number in numbers(images[:2])]
        rest = [number for images in batches[2 * pair : 2 * pair + 2] for number in numbers(images[2:])]
        assert sorted(first) == list(range(LABELLED))
        assert sorted(rest) == list(range(LABELLED, COUNT))


def test_labels_of_the_other_images_are_never_read(store: PatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read, original = [], type(store).read_labels

    def noted(self: PatchStore, layer: str, indices: Any) -> NDArray[Any]:  # noqa: ANN401 - as in the store
        read.extend(np.asarray(indices).tolist())
        return original(self, layer, indices)

    monkeypatch.setattr(type(store), "read_labels", noted)
    for _ in streams(store).stream(0, 10, workers=0):
        pass

    assert set(read) == set(range(LABELLED))


def test_looks_belong_to_their_images_and_batches_to_their_numbers(store: PatchStore) -> None:
    both = streams(store, augmentation=Augmentation())

    crops = both.make(3)
    again = next(iter(both.stream(3, 4, workers=1)))

    assert all(len(value) == 5 for value in crops.look.values())
    assert torch.equal(crops.dressed(torch.device("cpu")).images, again.dressed(torch.device("cpu")).images)


def test_ranks_cut_up_what_one_process_would_see(store: PatchStore) -> None:
    parts = [streams(store, rank=rank, world=2).make(0).images for rank in range(2)]

    labelled = [number for part in parts for number in numbers(part[:2])]
    rest = [number for part in parts for number in numbers(part[2:])]
    assert sorted(labelled) == list(range(LABELLED))
    assert len(set(rest)) == len(rest) == 6
