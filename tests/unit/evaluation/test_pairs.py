"""Predictions meet their truth by name, and whatever does not is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import DataError, NothingMatchedError
from wsiseg.evaluation.pairs import LabelPair, find_pairs
from wsiseg.rasters import write_labels

if TYPE_CHECKING:
    from pathlib import Path


def put(*paths: Path, shape: tuple[int, int] = (2, 3)) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, np.zeros(shape, dtype=np.uint8))


def names(pairs: tuple[LabelPair, ...]) -> list[str]:
    return [pair.name for pair in pairs]


def test_folders_are_matched_by_stem_whatever_the_suffix(tmp_path: Path) -> None:
    put(tmp_path / "p" / "b.png", tmp_path / "p" / "a.tif", tmp_path / "t" / "a.png", tmp_path / "t" / "b.tiff")
    (tmp_path / "p" / "summary.json").write_text("{}")
    (tmp_path / "t" / ".hidden.png").write_text("")

    assert names(find_pairs(tmp_path / "p", tmp_path / "t")) == ["a", "b"]


def test_the_folders_of_predicted_slides_are_matched_by_their_names(tmp_path: Path) -> None:
    put(tmp_path / "p" / "slide 1" / "labels.png", tmp_path / "t" / "slide 1.png")
    (tmp_path / "p" / "slide 2").mkdir()

    (pair,) = find_pairs(tmp_path / "p", tmp_path / "t")

    assert pair.pred == tmp_path / "p" / "slide 1" / "labels.png"


def test_two_files_belong_together_whatever_their_names(tmp_path: Path) -> None:
    put(tmp_path / "x.png", tmp_path / "y.png")

    assert names(find_pairs(tmp_path / "x.png", tmp_path / "y.png")) == ["y"]


def test_a_file_finds_its_partner_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "p" / "a" / "labels.png", tmp_path / "t" / "a.png", tmp_path / "t" / "b.png")

    assert names(find_pairs(tmp_path / "p" / "a" / "labels.png", tmp_path / "t")) == ["a"]
    assert names(find_pairs(tmp_path / "p", tmp_path / "t" / "a.png")) == ["a"]
    assert names(find_pairs(tmp_path / "p" / "a", tmp_path / "t" / "b.png")) == ["b"]


def test_images_without_a_partner_are_named(tmp_path: Path) -> None:
    put(tmp_path / "p" / "a.png", tmp_path / "p" / "b.png", tmp_path / "t" / "a.png")

    with pytest.raises(DataError, match="no truth for b"):
        find_pairs(tmp_path / "p", tmp_path / "t")
    with pytest.raises(DataError, match="no prediction for b"):
        find_pairs(tmp_path / "t", tmp_path / "p")


def test_only_the_first_of_many_names_are_listed(tmp_path: Path) -> None:
    put(tmp_path / "t" / "a.png", *(tmp_path / "p" / f"{name}.png" for name in "abcdefghijklmn"))

    with pytest.raises(DataError, match="no truth for b, c, d, e, f, g, h, i, j, k and 3 more"):
        find_pairs(tmp_path / "p", tmp_path / "t")


def test_where_nothing_matches_both_sides_are_named(tmp_path: Path) -> None:
    put(tmp_path / "p" / "a.png", tmp_path / "t" / "b.png")
    (tmp_path / "empty").mkdir()

    with pytest.raises(NothingMatchedError, match="a against b"):
        find_pairs(tmp_path / "p", tmp_path / "t")
    with pytest.raises(NothingMatchedError, match="none against b"):
        find_pairs(tmp_path / "empty", tmp_path / "t")


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "p" / "a.png", tmp_path / "p" / "a.tif", tmp_path / "t" / "a.png")

    with pytest.raises(DataError, match="two label images are called a"):
        find_pairs(tmp_path / "p", tmp_path / "t")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: there is no such"):
        find_pairs(tmp_path / "gone", tmp_path)


def test_images_of_two_sizes_are_refused_with_both_sizes(tmp_path: Path) -> None:
    put(tmp_path / "a.png", shape=(4, 6))
    put(tmp_path / "b.png", shape=(8, 12))

    with pytest.raises(DataError, match=r"6 x 4 pixels.*12 x 8.*--mpp"):
        LabelPair(name="a", pred=tmp_path / "a.png", truth=tmp_path / "b.png").read()
