"""Layers that labels of pixels are written to: what they hold, by what was drawn or asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.errors import ConfigError, DataError
from wsiseg.labels import IGNORE, NO_CLASS, LabelMap
from wsiseg.rasters import read_labels
from wsiseg.stores.patches import LayerInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wsiseg.annotations import Drawing
    from wsiseg.tasks.label_settings import LabelConfig

_BACKGROUND: Final = "background"
_OBJECT: Final = "object"


def layer_info(config: LabelConfig, drawings: Mapping[Path, Drawing], files: set[Path]) -> LayerInfo:
    """Return what the layer holds."""
    found = sorted({names[0] for drawing in drawings.values() for names in drawing.names if names})
    colours = {name: colour for drawing in drawings.values() for name, colour in drawing.colours.items()}
    if config.labels_as == "instances":
        kinds = kinds_of(config)
        # Instances have no classes of their own. What is drawn on one slide must not set its store apart from others.
        kind = kinds[0] if len(kinds) == 1 else _OBJECT
        shades = {colours[name] for name in found if name in colours and not _is_background(name)}
        if len(shades) == 1:
            colours = {**colours, kind: shades.pop()}
        return LayerInfo(kind="instances", labels=LabelMap.from_names((_BACKGROUND, kind), colours=colours))
    names = config.classes or (_drawn_names(found) if drawings else _numbered_names(files))
    labels = LabelMap.from_names(names, background=_is_background(names[0]), colours=colours)
    if config.undrawn == "background" and labels.no_class != 0:
        raise ConfigError(
            "no class is the background that is not drawn", where="--undrawn", mend="Name it first in --classes"
        )
    return LayerInfo(kind="classes", labels=labels)


def kinds_of(config: LabelConfig) -> list[str]:
    """Return the classes that are named but for the background."""
    return [name for name in config.classes if not _is_background(name)]


def _is_background(name: str) -> bool:
    return name.casefold() == _BACKGROUND


def _drawn_names(found: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that were drawn after the background, which may have been drawn, too."""
    background = next((name for name in found if _is_background(name)), _BACKGROUND)
    return background, *(name for name in found if name != background)


def _numbered_names(files: set[Path]) -> tuple[str, ...]:
    """Return names for the classes in label images."""
    values = {int(value) for file in files for value in np.unique(read_labels(file))} - {IGNORE}
    highest = max(values, default=0)
    if highest >= NO_CLASS:
        raise DataError(f"label images of classes hold 0 to {NO_CLASS - 1}, and 255 for ignored", where=min(files))
    return _BACKGROUND, *(f"class {index}" for index in range(1, highest + 1))
