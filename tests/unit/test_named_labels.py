"""One parser reads the labels of all data sets that keep them in file names, and never guesses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.errors import DataError
from wsiseg.ingestion.named_labels import label_in_name, patient_in_name


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("1031280-2300-27920-[1 0 0 1].png", (1, 0, 0, 1)),
        ("TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+0[1101].png", (1, 1, 0, 1)),
        ("436219-7159-48057-[1, 0, 0].png", (1, 0, 0)),
        ("[1 1 1]-[0 0 1]-[0].png", (0,)),
    ],
)
def test_the_names_of_known_data_sets_are_read(name: str, label: tuple[int, ...]) -> None:
    assert label_in_name(Path("train") / name, len(label)) == label


@given(
    st.lists(st.integers(0, 1), min_size=1, max_size=9),
    st.sampled_from(["", " ", ",", ", ", ";"]),
    st.text("ab01_-+.[ ", max_size=8),
    st.text("ab01_-+.] ", max_size=8),
)
def test_any_label_comes_back(label: list[int], between: str, before: str, after: str) -> None:
    name = f"{before}[{between.join(map(str, label))}]{after}.png"

    assert label_in_name(Path(name), len(label)) == tuple(label)


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "a[101.png",
        "a[10].png",
        "a[1010].png",
        "a[].png",
        "a[1 0 2].png",
        "a[1 0 2 1].png",
        "a[1 0 -1].png",
        "]1 0 1[",
    ],
)
def test_anything_else_is_told_with_the_name(name: str) -> None:
    with pytest.raises(DataError, match=r"no label of 3 classes") as told:
        label_in_name(Path("train") / name, 3)

    assert name in str(told.value)


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("1031280-2300-27920-[1 0 0 1]", "1031280"),
        ("1031280-2300-27920", "1031280"),
        ("436219-7159-48057-[1, 0, 0]", "436219"),
        ("TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+0[1101]", "TCGA-A1-A0SK"),
        ("TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+0", "TCGA-A1-A0SK"),
        ("slide 7_224_448-[1 0 1]", "slide 7"),
        ("00", None),
        ("[1 0 1]", None),
    ],
)
def test_patches_of_a_patient_are_known_as_such(stem: str, patient: str | None) -> None:
    assert patient_in_name(stem) == patient
