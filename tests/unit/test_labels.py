"""Classes have distinct indices and names."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from wsiseg.labels import Label, LabelMap


def test_names_make_classes_in_order_with_a_white_background() -> None:
    labels = LabelMap.from_names(("background", "nucleus"))

    assert labels.names == ("background", "nucleus")
    assert labels[0].colour == (255, 255, 255)
    assert LabelMap.model_validate_json(labels.model_dump_json()) == labels


def test_colours_that_are_given_are_kept_and_the_others_made() -> None:
    made = LabelMap.from_names(("a", "b", "c"))
    given = LabelMap.from_names(("a", "b", "c"), colours={"b": (1, 2, 3), "a": (4, 5, 6), "d": (7, 8, 9)})

    assert [label.colour for label in given.labels] == [(4, 5, 6), (1, 2, 3), made[2].colour]
    assert given.classes == made.classes == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize("indices", [(0, 0), (0, 254), (0, 255), (-1, 0)])
def test_indices_are_distinct_and_leave_what_is_no_class_alone(indices: tuple[int, int]) -> None:
    with pytest.raises(ValidationError, match="distinct"):
        LabelMap(labels=tuple(Label(index=i, name=f"{n}", colour=(0, 0, 0)) for n, i in enumerate(indices)))


@pytest.mark.parametrize(
    ("names", "no_class"), [(("background", "tumour"), 0), (("tumour", "background"), 254), (("tumour", "stroma"), 254)]
)
def test_what_is_no_class_is_the_background_where_there_is_one(names: tuple[str, ...], no_class: int) -> None:
    assert LabelMap.from_names(names).no_class == no_class


def test_an_unknown_index_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        LabelMap.from_names(("a",))[3]
