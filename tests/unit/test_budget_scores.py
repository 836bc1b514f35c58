"""Models of a study are judged by what is marked ``test``, and by nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from wsiseg.labels import LabelMap
from wsiseg.stores.volume_store import VolumeEntry, VolumeItem, VolumeMeta, write_volume_store
from wsiseg.tasks import budget_scores
from wsiseg.tasks.budget_scores import judged
from wsiseg.volumes import IntensityRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (4, 5, 6)
META = VolumeMeta(
    labels=LabelMap.from_names(("background", "head")), intensities=IntensityRule(clip=None), fingerprint="abc"
)


def make_store(path: Path, splits: Sequence[str], masks: Sequence[NDArray[np.uint8]]) -> Path:
    """Write volumes whose intensity is their number."""

    def items() -> Iterator[VolumeItem]:
        for number, (split, labels) in enumerate(zip(splits, masks, strict=True)):
            entry = VolumeEntry(
                name=f"case{number}",
                group=f"case{number}",
                split=split,
                is_labelled=True,
                shape=SHAPE,
                start=(0, 0, 0),
                whole=SHAPE,
                spacing_mm=(1.0, 1.0, 1.0),
            )
            yield VolumeItem(entry=entry, voxels=np.full(SHAPE, number, np.float32), labels=labels)

    write_volume_store(path, META, items())
    return path


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[NDArray[np.uint8]]], None]:
    """Return a function that makes any model say these masks of the volumes of these numbers."""

    def make(answers: Sequence[NDArray[np.uint8]]) -> None:
        volume = SimpleNamespace(patch=SHAPE, stride=SHAPE)
        model = SimpleNamespace(spec=SimpleNamespace(volume=volume))

        def means(_: object, voxels: NDArray[np.float32], **__: object) -> NDArray[np.float32]:
            answer = answers[int(voxels.flat[0])]
            return np.stack([answer == 0, answer == 1]).astype(np.float32)

        monkeypatch.setattr(budget_scores, "load_predictor", lambda *_, **__: model)
        monkeypatch.setattr(budget_scores, "window_means", means)

    return make


def box(*slices: slice) -> NDArray[np.uint8]:
    mask = np.zeros(SHAPE, np.uint8)
    mask[slices] = 1
    return mask


NOTHING, LEFT, ALL = box(slice(0)), box(slice(None), slice(None), slice(3)), box(slice(None))


def test_volumes_that_are_marked_test_judge_and_no_others(
    tmp_path: Path, says: Callable[[Sequence[NDArray[np.uint8]]], None]
) -> None:
    store = make_store(tmp_path / "v.zarr", ["train", "test", "val", "test", ""], [ALL, ALL, ALL, LEFT, ALL])
    # Right of one that judges, half right of the other, and wrong of all others.
    says([NOTHING, ALL, NOTHING, ALL, NOTHING])

    scores = judged(tmp_path, [store], None, None, torch.device("cpu"))

    assert scores["dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["jaccard"] == pytest.approx((1 + 1 / 2) / 2)


def test_structures_without_distances_are_counted(
    tmp_path: Path, says: Callable[[Sequence[NDArray[np.uint8]]], None]
) -> None:
    store = make_store(tmp_path / "v.zarr", ["test"] * 4, [LEFT, LEFT, NOTHING, NOTHING])
    # Found, lost, found where there is none, and rightly not found.
    says([LEFT, NOTHING, LEFT, NOTHING])

    scores = judged(tmp_path, [store], None, None, torch.device("cpu"))

    assert scores["missing_structures"] == 2
    assert scores["hd95"] == 0
