"""A training may be given labels patch by patch, and learns from the other patches of an image without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.stores.patch_set import PatchSet
from wsiseg.tasks.train_data import training_data
from wsiseg.tasks.train_job import TrainConfig
from wsiseg.tasks.train_labelled import patch_units
from wsiseg.tasks.train_pool import kinds_of
from wsiseg.training.sources import UnlabelledSource

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore
    from wsiseg.tasks.train_data import TrainingData

SIDE = 8
PLACES = [(0, 0), (SIDE, 0), (0, SIDE), (4, 4), (0, 0)]
HEADER = "patch,slide,x,y,rank"


@pytest.fixture
def stores(tmp_path: Path, make_patch_store: MakePatchStore) -> list[PatchSet]:
    """Return a store of four patches of image s and one of a, and one of two synthetic patches of each of three."""
    images, labels = np.zeros((6, SIDE, SIDE, 3), np.uint8), np.ones((6, SIDE, SIDE), np.uint8)
    real = make_patch_store(
        tmp_path / "real.zarr", images[:5], labels[:5], parents=["slides/s"] * 4 + ["a"], positions=PLACES
    )
    made = make_patch_store(
        tmp_path / "made.zarr", images, labels, parents=["slides/s"] * 4 + ["a"] * 2, origin="synthetic",
        positions=[(SIDE, 0)] * 2 + [(0, 0)] * 4,
    )  # fmt: skip
    return [PatchSet([real]), PatchSet([made])]


def data_of(stores: list[PatchSet], wanted: object, **settings: object) -> TrainingData:
    config = TrainConfig.model_validate({"labelled": str(wanted), "val_fraction": 0, **settings})
    return training_data(stores, 0.5, config, takes_unlabelled=True)


def used(data: TrainingData) -> list[list[int]]:
    return [source.indices.tolist() for source in data.labelled]


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_labels_of_a_selection_are_used_and_no_others(tmp_path: Path, stores: list[PatchSet]) -> None:
    table = written(tmp_path / "selection.csv", HEADER, "s-8-0,slides/s,8,0,1", "s-0-0,slides/s,0,0,2")

    data = data_of(stores, table)

    assert data.chosen == ["s-8-0"]
    # Synthetic patches of others tell of masks that may not be read.
    assert used(data) == [[1], [0, 1]]
    ((free),) = data.unlabelled
    assert free.indices.tolist() == [0, 2, 3, 4]
    assert isinstance(free, UnlabelledSource)
    kinds = kinds_of(stores, data)
    # The fourth patch shares pixels with the chosen one.
    assert [source.indices.tolist() for _, source in kinds.pool] == [[0, 2, 4]]
    assert str(kinds) == "1 annotated and 2 synthetic patches, 3 without labels"


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        # By place, as names depend on what else was chosen from.
        ([HEADER, "elsewhere,a,0,0,1"], ["a"]),
        (["patch", "a", "s-0-8"], ["a", "s-0-8"]),
        (["x,patch,y", ",s-0-0,"], ["s-0-0"]),
    ],
)
def test_tables_tell_patches_by_place_or_by_name(
    tmp_path: Path, stores: list[PatchSet], lines: list[str], chosen: list[str]
) -> None:
    assert data_of(stores, written(tmp_path / "t.csv", *lines), labelled_by="image").chosen == chosen


def test_a_table_of_a_spreadsheet_is_read_or_told_why_not(tmp_path: Path, stores: list[PatchSet]) -> None:
    table = written(tmp_path / "t.csv", HEADER.replace(",", ";"), "s-8-0;slides/s;8;0;1")

    assert data_of(stores, table).chosen == ["s-8-0"]
    table.write_bytes(f"{HEADER}\nMüller,Müller,0,0,1\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"t\.csv: the file is not in UTF-8\. Save it as UTF-8"):
        data_of(stores, table)


def test_a_row_means_one_patch_however_many_are_called_so(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images, labels = np.zeros((3, SIDE, SIDE, 3), np.uint8), np.ones((3, SIDE, SIDE), np.uint8)
    one = make_patch_store(tmp_path / "one.zarr", images, labels, parents=["train/s", "more/s", "b"])
    table = written(tmp_path / "t.csv", HEADER, "s-0-0,more/s,0,0,1")

    data = data_of([PatchSet([one])], table)

    assert data.chosen == ["more/s"]
    assert used(data) == [[1]]
    same = make_patch_store(tmp_path / "same.zarr", images, labels, parents=["more/s", "c", "d"])
    with pytest.raises(DataError, match="2 annotated patches are named 'more/s'"):
        data_of([PatchSet([one]), PatchSet([same])], table)


def test_patches_are_drawn_one_by_one_if_asked_for(tmp_path: Path, stores: list[PatchSet]) -> None:
    units = patch_units(stores, "truth")
    assert units[1].tolist() == ["s-8-0"] * 2 + ["s-0-0"] * 2 + ["a"] * 2

    draws = [data_of(stores, 2, labelled_by="patch", split_seed=seed) for seed in range(6)]

    assert all(len(data.chosen or []) == 2 for data in draws)
    assert len({tuple(data.chosen or []) for data in draws}) > 1
    for data in draws:
        for own, indices in zip(units, used(data), strict=True):
            assert indices == np.flatnonzero(np.isin(own.astype(str), data.chosen or [])).tolist()
    assert data_of(stores, written(tmp_path / "names.txt", "s-4-4"), labelled_by="patch").chosen == ["s-4-4"]


def test_what_may_not_be_trained_on_is_refused(
    tmp_path: Path, stores: list[PatchSet], make_patch_store: MakePatchStore
) -> None:
    table = written(tmp_path / "selection.csv", HEADER, "a,a,0,0,1", "s-0-0,slides/s,0,0,1")

    with pytest.raises(DataError, match=r"1 of 2 names are none of the . labelled patches .*--val-fraction 0 holds"):
        data_of(stores, table, val_fraction=0.5)
    with pytest.raises(DataError, match=r"1 of 1 names .* such as s-1-1\. Name patches as the store does, such as a;"):
        data_of(stores, written(tmp_path / "t.csv", "patch", "s-1-1"))
    with pytest.raises(DataError, match="names nothing"):
        data_of(stores, written(tmp_path / "t.csv", HEADER, "a,a,0,0,2"))
    marked = make_patch_store(
        tmp_path / "marked.zarr", np.zeros((2, SIDE, SIDE, 3), np.uint8), np.ones((2, SIDE, SIDE), np.uint8),
        parents=["a", "b"], splits=["val", "train"],
    )  # fmt: skip
    with pytest.raises(DataError, match="1 of 1 names are none of the 1 labelled patches"):
        data_of([PatchSet([marked])], written(tmp_path / "t.csv", "patch", "a"))
