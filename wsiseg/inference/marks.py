"""Marks on pictures: tags, frames, hatching, scale bars, and the colours of ink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib import patheffects
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from wsiseg.geometry import Canvas

HATCH: Final = "#4a5160"
INK: Final = "#1f2430"
FAINT: Final = "#68707f"


def writable(text: str) -> str:
    """Return `text` with a question mark for each character that the font lacks, of which matplotlib would warn."""
    known = get_font(findfont(FontProperties())).get_charmap()
    # A dollar sign would begin a formula.
    return "".join(sign if ord(sign) in known else "?" for sign in text).replace("$", r"\$")


def letter(number: int) -> str:
    """Return the name of a close-up."""
    return "AB"[number]


def draw_tag(axes: Axes, at: tuple[float, float], text: str, *, size: int, offset: tuple[int, int]) -> None:
    """Write `text` on a dark ground, above or below a point by the sign of the offset, in points."""
    axes.annotate(
        text,
        at,
        xytext=offset,
        textcoords="offset points",
        fontsize=size,
        weight="bold",
        color="white",
        va="bottom" if offset[1] > 0 else "top",
        bbox={"boxstyle": "square,pad=0.3", "facecolor": INK, "edgecolor": "none"},
        zorder=6,
        annotation_clip=True,
    )


def frame(axes: Axes, colour: str, width: float) -> None:
    """Draw a line around a picture, without ticks."""
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(width)


def hatch(axes: Axes, mask: NDArray[np.bool_], extent: tuple[float, float, float, float]) -> None:
    """Hatch where `mask` (H, W) is set; `extent` is left, right, bottom and top, as for pictures."""
    padded = np.pad(mask, 1)
    if not padded.any():
        return
    left, right, bottom, top = extent
    width, height = (right - left) / mask.shape[1], (bottom - top) / mask.shape[0]
    x = left + (np.arange(padded.shape[1]) - 0.5) * width
    y = top + (np.arange(padded.shape[0]) - 0.5) * height
    contours = axes.contourf(x, y, padded.astype(np.float64), levels=[0.5, 1.5], colors="none", hatches=["//"])
    contours.set_edgecolor(HATCH)
    contours.set_linewidth(0)


def draw_scale_bar(
    axes: Axes, canvas: Canvas, width: float, height: float, *, shown_px: float, origin: tuple[float, float] = (0, 0)
) -> None:
    """Draw a bar of a round length in the lower left corner, where the pixel size is known.

    Parameters
    ----------
    axes
        In pixels of the canvas.
    canvas
        Whose pixels they are.
    width, height, origin
        The part of the canvas that is shown.
    shown_px
        Pixels of the picture that `width` takes.
    """
    if canvas.mpp is None:
        return
    wanted = 0.22 * width * canvas.mpp
    power = 10.0 ** np.floor(np.log10(wanted))
    length_um = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"  # noqa: PLR2004
    unit = width / shown_px  # of the axes, per pixel on the screen
    x, y = origin[0] + 24 * unit, origin[1] + height - 30 * unit
    length = length_um / canvas.mpp
    halo = [patheffects.withStroke(linewidth=4, foreground="white")]
    axes.add_patch(Rectangle((x, y), length, 7 * unit, facecolor=INK, edgecolor="white", linewidth=1.5, zorder=5))
    axes.text(
        x + length / 2,
        y - 8 * unit,
        text,
        fontsize=13,
        weight="bold",
        color=INK,
        ha="center",
        va="bottom",
        path_effects=halo,
        zorder=5,
    )
