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


@pytest.mark.parametrize("indices", [(0, 0), (0, 255), (-1, 0)])
def test_indices_are_distinct_and_leave_255_alone(indices: tuple[int, int]) -> None:
    with pytest.raises(ValidationError, match="distinct"):
        LabelMap(labels=tuple(Label(index=i, name=f"{n}", colour=(0, 0, 0)) for n, i in enumerate(indices)))


def test_an_unknown_index_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        LabelMap.from_names(("a",))[3]
