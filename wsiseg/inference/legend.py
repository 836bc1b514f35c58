"""The legend of a picture: classes, their colours and areas, and the key of a density map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.patches import Rectangle

from wsiseg.inference.marks import FAINT, HATCH, INK, writable
from wsiseg.inference.measurements import WHOLE
from wsiseg.inference.polygons import GREY
from wsiseg.labels import NOT_ANALYSED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas
    from wsiseg.inference.measurements import ClassRow
    from wsiseg.labels import LabelMap

_LINE_PX: Final = 34
_KEY_PX: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Legend:
    """What a legend says.

    Parameters
    ----------
    canvas, labels
        What is shown.
    rows
        What was measured, from `summarise`.
    highest
        Objects on a canvas pixel where the colours of the density map end, or None where there is no such map.
    """

    canvas: Canvas
    labels: LabelMap
    rows: list[ClassRow]
    highest: float | None = None

    @property
    def height_px(self) -> int:
        """Return the pixels of the picture that it takes."""
        return _LINE_PX * (len(self._entries()) + 1) + (0 if self.highest is None else _KEY_PX)

    def draw(self, axes: Axes, width: float) -> None:
        """Draw it on empty axes as wide as `width` pixels and as high as `height_px`."""
        axes.set_xlim(0, width)
        axes.set_ylim(self.height_px, 0)
        y = _LINE_PX / 2
        for name, colour, numbers in self._entries():
            shade = np.asarray(colour) / 255
            axes.add_patch(Rectangle((0, y - 9), 26, 18, facecolor=(*shade, 0.55), edgecolor=shade * 0.8))
            if name == NOT_ANALYSED:
                axes.add_patch(Rectangle((0, y - 9), 26, 18, fill=False, hatch="//", edgecolor=HATCH, linewidth=0))
            axes.text(40, y, writable(name), fontsize=14, color=INK, va="center")
            axes.text(width, y, numbers, fontsize=14, color=FAINT, va="center", ha="right")
            y += _LINE_PX
        if self.highest is not None:
            self._draw_key(axes, width, y, self.highest)

    def _draw_key(self, axes: Axes, width: float, y: float, highest: float) -> None:
        """Draw what the colours of the density map mean."""
        ramp = density_colours(np.linspace(0, 1, 256))[None]
        axes.imshow(ramp, extent=(0, width, y + 18, y), aspect="auto", interpolation="bilinear")
        most = density_text(highest, self.canvas.mpp)
        axes.text(0, y + 38, "0", fontsize=13, color=FAINT, va="center")
        axes.text(width / 2, y + 38, "density", fontsize=13, color=FAINT, va="center", ha="center")
        axes.text(width, y + 38, most, fontsize=13, color=FAINT, va="center", ha="right")
        axes.set_xlim(0, width)

    def _entries(self) -> list[tuple[str, tuple[int, int, int], str]]:
        """Return name, colour and a number for each class in the legend."""
        colours = {label.name: label.colour for label in self.labels.labels}
        entries = []
        for row in self.rows:
            if row.name == WHOLE or (row.name == NOT_ANALYSED and not row.area_px):
                continue
            share = "" if row.share is None else f"    {100 * row.share:.1f} %"
            count = "" if row.objects is None else f"{row.objects:,}    "
            entries.append(
                (row.name, colours.get(row.name, GREY), f"{count}{area_text(row.area_px, self.canvas.mpp)}{share}")
            )
        return entries


def density_colours(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return RGBA 0 … 1 of densities, 0 … 1 of the highest."""
    return np.asarray(colormaps["turbo"](0.12 + 0.86 * strength))


def density_text(per_px: float, mpp: float | None) -> str:
    """Return so many objects for each pixel for people, for each mm² where the pixel size is known."""
    if mpp is None:
        return f"{per_px:.3g} per pixel"
    # Three digits, and never as a power of ten.
    return f"{float(f'{per_px / mpp**2 * 1e6:.3g}'):,.10g} per mm²"


def area_text(pixels: float, mpp: float | None) -> str:
    """Return the area of so many pixels for people, in a physical unit where the pixel size is known."""
    if mpp is None:
        return f"{pixels / 1e6:,.2f} megapixels"
    area_um2 = pixels * mpp**2
    return f"{area_um2 / 1e6:,.2f} mm²" if area_um2 >= 1e5 else f"{area_um2:,.0f} µm²"  # noqa: PLR2004
