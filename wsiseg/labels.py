"""Classes: their indices, names and colours.

Two kinds of integers fill arrays of labels. A *class* array holds class
indices; 255 means ignored in training data and not analysed in predictions, and 254 in
predictions what belongs to no class, such as glass. An *instance* array holds object ids,
0 being background.
"""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Annotated, Final, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:
    from collections.abc import Mapping

# Red, green, blue, 0 … 255 each.
Colour: TypeAlias = tuple[int, int, int]

IGNORE: Final = 255
# In predictions, where none of the classes is a background.
NO_CLASS: Final = 254
# What 255 is called in predictions.
NOT_ANALYSED: Final = "Not analysed"
_WHITE: Final[Colour] = (255, 255, 255)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"class names must be distinct, got {', '.join(map(repr, names))}")
    return names


# Names of classes in settings, in the order of their indices.
ClassNames: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_distinct)]


class Label(BaseModel):
    """One class.

    Parameters
    ----------
    index
        Value in class arrays, 0 … 253.
    name
        Name shown to people.
    colour
        What it is drawn in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    name: str
    colour: Colour


class LabelMap(BaseModel):
    """The classes of a data set or model; travels in stores and checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[Label, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        indices = [label.index for label in self.labels]
        if len(set(indices)) != len(indices) or any(not 0 <= index < NO_CLASS for index in indices):
            raise ValueError(f"class indices must be distinct and within 0 … {NO_CLASS - 1}, got {indices}")
        if len({label.name for label in self.labels}) != len(indices):
            raise ValueError("class names must be distinct")
        return self

    @classmethod
    def from_names(
        cls, names: tuple[str, ...], *, background: bool = True, colours: Mapping[str, Colour] | None = None
    ) -> LabelMap:
        """Return classes 0, 1, … with colours that are easy to tell apart, but for those in `colours`.

        With `background` the first name is drawn in white.
        """
        given = {**dict.fromkeys(names[:1] if background else (), _WHITE), **(colours or {})}
        labels = []
        for index, name in enumerate(names):
            # The golden angle keeps neighbours in the list far apart in hue.
            red, green, blue = colorsys.hsv_to_rgb((index * 0.381966) % 1, 0.75, 0.9)
            colour = (round(red * 255), round(green * 255), round(blue * 255))
            labels.append(Label(index=index, name=name, colour=given.get(name, colour)))
        return cls(labels=tuple(labels))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names in order of declaration."""
        return tuple(label.name for label in self.labels)

    @property
    def classes(self) -> dict[int, str]:
        """Return the name of each index: all that tells two maps apart but colours."""
        return {label.index: label.name for label in self.labels}

    @property
    def no_class(self) -> int:
        """Return what predictions hold where nothing is: 0 if class 0 is the background, else 254."""
        has_background = any(label.index == 0 and label.name.casefold() == "background" for label in self.labels)
        return 0 if has_background else NO_CLASS

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Label:
        for label in self.labels:
            if label.index == index:
                return label
        raise KeyError(index)
