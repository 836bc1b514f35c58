"""The classical method finds stained disks at any resolution and nothing where there is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from wsiseg.classical import classical_nuclei
from wsiseg.metrics import InstanceTally, count_overlaps, tally_instances
from wsiseg.rasters import read_labels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HAEMATOXYLIN, EOSIN = np.array([90, 70, 150]), np.array([230, 170, 200])


def disks(mpp: float, *, radius_um: float = 4.0) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return 80 µm of pink tissue with purple disks, two of which touch, and their labels."""
    size = round(80 / mpp)
    ys, xs = (np.indices((size, size)) + 0.5) * mpp
    labels = np.zeros((size, size), dtype=np.int32)
    centres = [(20, 20), (20, 27), (50, 15), (55, 55), (30, 60)]
    nearest = np.stack([np.hypot(ys - y, xs - x) for y, x in centres])
    labels[nearest.min(axis=0) <= radius_um] = 1
    labels *= nearest.argmin(axis=0).astype(np.int32) + 1
    noise = np.random.default_rng(0).normal(0, 4, (size, size, 3))
    return np.clip(np.where(labels[..., None] > 0, HAEMATOXYLIN, EOSIN) + noise, 0, 255).astype(np.uint8), labels


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_disks_are_found_one_by_one_even_where_they_touch(mpp: float) -> None:
    rgb, truth = disks(mpp)

    found = classical_nuclei(rgb, mpp)

    assert found.dtype == np.int32
    scores = tally_instances(count_overlaps(found, truth)).scores()
    assert scores["f1"] == 1
    assert scores["aji"] > 0.85


def test_labels_run_from_one_without_gaps() -> None:
    rgb, _ = disks(0.5)
    rgb[:3, :3] = HAEMATOXYLIN

    found = classical_nuclei(rgb, 0.5)

    np.testing.assert_array_equal(np.unique(found), np.arange(found.max() + 1))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_where_nothing_differs_nothing_is_found(value: int) -> None:
    assert not classical_nuclei(np.full((40, 50, 3), value, dtype=np.uint8), 0.5).any()


def test_images_smaller_than_a_nucleus_are_no_error() -> None:
    assert not classical_nuclei(np.random.default_rng(0).integers(0, 255, (3, 2, 3)).astype(np.uint8), 0.5).any()
    assert classical_nuclei(np.empty((0, 4, 3), dtype=np.uint8), 0.5).shape == (0, 4)


@pytest.mark.slow
def test_it_is_a_baseline_worth_beating(data_dir: Path) -> None:
    """On H&E of many organs at 0.25 µm/px."""
    folder = data_dir / "nuclei_monuseg" / "labelled"
    tallies = []
    for path in sorted((folder / "images").glob("*.png")):
        rgb = np.asarray(Image.open(path).convert("RGB"))
        tallies.append(
            tally_instances(count_overlaps(classical_nuclei(rgb, 0.25), read_labels(folder / "labels" / path.name)))
        )

    assert InstanceTally.stack(tallies).scores()["aji"].mean() > 0.48
