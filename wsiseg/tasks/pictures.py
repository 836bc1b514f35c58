"""Pictures of patches and their classes, and the pages that hold them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg import __version__
from wsiseg.labels import IGNORE
from wsiseg.rasters import png_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap

# How strongly colours of classes cover the tissue.
_COVER: Final = 0.55
_WHITE: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Pictures of one patch.

    Parameters
    ----------
    title
        What is known of it.
    pictures
        Caption and PNG in base64 of each.
    """

    title: str
    pictures: list[tuple[str, str]]


def render(template: str, **values: object) -> bytes:
    """Return a page made of a template beside this module; it needs no other file."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template(template).render(version=__version__, **values).encode()


def keys(labels: LabelMap) -> list[dict[str, str]]:
    """Return name and colour of each class, for a legend."""
    return [{"name": label.name, "colour": "#" + bytes(label.colour).hex()} for label in labels.labels]


def some(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return so many of the indices at most, evenly spread."""
    return indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).round().astype(np.int64)]


def covered(image: NDArray[np.uint8], mask: NDArray[np.integer], labels: LabelMap) -> NDArray[np.uint8]:
    """Return the image under the colours of its classes; what is ignored stays as it is."""
    is_labelled = mask != IGNORE
    colours = _colours(labels)[np.where(is_labelled, mask, 0)]
    cover = _COVER * is_labelled[..., None]
    covered: NDArray[np.uint8] = (image * (1 - cover) + colours * cover).round().astype(np.uint8)
    return covered


def shaded(image: NDArray[np.uint8], prob: NDArray[np.float32], labels: LabelMap) -> NDArray[np.uint8]:
    """Return the image under a mixture of the colours of its classes by their probabilities (C, H, W)."""
    colours = np.tensordot(prob, _colours(labels), axes=(0, 0))
    shaded: NDArray[np.uint8] = (image * (1 - _COVER) + colours * _COVER).clip(0, _WHITE).round().astype(np.uint8)
    return shaded


def png(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as a page holds it, from RGB (H, W, 3)."""
    return encoded(png_bytes(pixels))


def encoded(data: bytes) -> str:
    """Return the bytes of a PNG as a page holds them."""
    return base64.b64encode(data).decode()


def _colours(labels: LabelMap) -> NDArray[np.float32]:
    return np.array([label.colour for label in labels.labels], dtype=np.float32)
