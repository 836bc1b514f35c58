"""Objects that a head loses are counted before a network learns of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.nuclei_makers import ellipses
from wsiseg.heads.registry import HEADS, make_head
from wsiseg.training.head_check import check_head
from wsiseg.training.sources import Source

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import MakePatchStore


def source(path: Path, make: MakePatchStore, labels: NDArray[np.int32], mpp: float | None = None) -> Source:
    store = make(path, np.zeros((*labels.shape, 3), np.uint8), labels, kind="instances", mpp=0.25)
    return Source(patches=store, layer="truth", indices=np.arange(len(labels)), mpp=mpp)


def squares(side: int, count: int = 2) -> NDArray[np.int32]:
    """Return patches of four squares each, and of a fifth that is cut to a line."""
    labels = np.zeros((count, 60, 60), np.int32)
    for number, (row, column) in enumerate([(5, 5), (5, 35), (35, 5), (35, 35)], start=1):
        labels[:, row : row + side, column : column + side] = number
    labels[:, 30, 59] = 5
    return labels


@pytest.mark.parametrize("kind", HEADS)
def test_what_suits_a_head_comes_back(
    kind: str, tmp_path: Path, make_patch_store: MakePatchStore, caplog: pytest.LogCaptureFixture
) -> None:
    labels = np.stack([ellipses(12, 96, seed=seed, radii=(7, 10)) for seed in range(2)])

    told = check_head(make_head(kind), [source(tmp_path / "s.zarr", make_patch_store, labels)])

    assert told.startswith("100% of ")
    assert f"objects can come back from the head {kind}, AJI " in told
    assert float(told.split("AJI ")[1].split()[0]) > 0.85
    assert not caplog.records


def test_small_objects_are_lost_and_warned_of(
    tmp_path: Path, make_patch_store: MakePatchStore, caplog: pytest.LogCaptureFixture
) -> None:
    small = source(tmp_path / "s.zarr", make_patch_store, squares(7))

    assert check_head(make_head("ternary"), [small]).startswith("0% of 8 objects")
    assert "of 8 labelled objects that were looked at, the head ternary loses 100 %" in caplog.text
    caplog.clear()
    assert check_head(make_head("ternary", min_area_px=5), [small]).startswith("100% of 8 objects")
    assert not caplog.records


def test_it_is_the_resolution_of_training_that_counts(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    coarse = source(tmp_path / "s.zarr", make_patch_store, squares(16), mpp=0.5)
    fine = source(tmp_path / "t.zarr", make_patch_store, squares(16), mpp=0.25)

    assert check_head(make_head("ternary"), [coarse]).startswith("0% of 8")
    assert check_head(make_head("ternary"), [fine]).startswith("100% of 8")


def test_where_there_is_no_whole_object_nothing_is_told(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    none = source(tmp_path / "s.zarr", make_patch_store, np.ones((1, 20, 20), np.int32))

    assert not check_head(make_head("ternary"), [none])
