"""OME-Zarr 0.5 metadata of label canvases.

References
----------
.. [1] https://ngff.openmicroscopy.org/0.5/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wsiseg.labels import IGNORE, NO_CLASS, NOT_ANALYSED

if TYPE_CHECKING:
    from wsiseg.geometry import Canvas
    from wsiseg.labels import LabelMap

VERSION: Final = "0.5"
_NO_CLASS_NAME: Final = "No class"
_NOT_ANALYSED_RGBA: Final = [128, 128, 128, 255]

# JSON as the specification lays it down.
Json = dict[str, Any]


def multiscales(name: str, canvas: Canvas, levels: int, *, has_channels: bool = False) -> Json:
    """Return the description of a pyramid ``s0``, ``s1``, … whose levels halve in y and x, after channels if any.

    Lengths are in micrometres where the canvas has a physical scale, else in canvas pixels.
    """
    # A pixel of a coarser level is the one at twice its index, so its centre lies there
    # exactly and no level needs a translation.
    unit = {"unit": "micrometer"} if canvas.mpp is not None else {}
    pixel = canvas.mpp if canvas.mpp is not None else 1.0
    channels = [{"name": "c", "type": "channel"}] if has_channels else []
    return {
        "name": name,
        "axes": [*channels, *({"name": axis, "type": "space", **unit} for axis in ("y", "x"))],
        "datasets": [
            {
                "path": f"s{level}",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*(1.0 for _ in channels), pixel * 2**level, pixel * 2**level]}
                ],
            }
            for level in range(levels)
        ],
    }


def class_label(labels: LabelMap) -> Json:
    """Return the ``image-label`` of a class layer: colours and names of its classes and of what is none of them."""
    # Zero stands for it where there is a background.
    has_none = labels.no_class == NO_CLASS
    return {
        "version": VERSION,
        "colors": [
            *(
                {"label-value": label.index, "rgba": [*label.colour, 0 if label.index == labels.no_class else 255]}
                for label in labels.labels
            ),
            *([{"label-value": NO_CLASS, "rgba": [255, 255, 255, 0]}] if has_none else []),
            {"label-value": IGNORE, "rgba": _NOT_ANALYSED_RGBA},
        ],
        "properties": [
            *({"label-value": label.index, "class": label.name} for label in labels.labels),
            *([{"label-value": NO_CLASS, "class": _NO_CLASS_NAME}] if has_none else []),
            {"label-value": IGNORE, "class": NOT_ANALYSED},
        ],
        "source": {"image": "../../"},
    }


def instance_label() -> Json:
    """Return the ``image-label`` of an instance layer; viewers give objects colours of their own."""
    return {
        "version": VERSION,
        "colors": [{"label-value": 0, "rgba": [0, 0, 0, 0]}],
        "source": {"image": "../../"},
    }


def channels(labels: LabelMap) -> Json:
    """Return the ``omero`` block of an image with values 0 … 255 for each class; a background begins hidden."""
    return {
        "channels": [
            {
                "label": label.name,
                "color": bytes(label.colour).hex().upper(),
                "active": label.index != labels.no_class,
                "window": {"min": 0, "max": 255, "start": 0, "end": 255},
            }
            for label in labels.labels
        ]
    }
