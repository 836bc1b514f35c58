"""Which pixels of a patch are bare glass and belong to no tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

if TYPE_CHECKING:
    from numpy.typing import NDArray


class WhiteRule(BaseModel):
    """What counts as white; travels in stores beside the classes of patches.

    Parameters
    ----------
    gray_above
        Pixels brighter than this are white, 0 … 255.
    min_area_px
        White spots of fewer pixels are tissue all the same. Pixels touch along edges, not across corners.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gray_above: int = Field(default=200, ge=0, le=255)
    min_area_px: int = Field(default=50, ge=0)

    def at(self, factor: float) -> WhiteRule:
        """Return the rule for images in which everything is `factor` times as wide and high."""
        return self.model_copy(update={"min_area_px": round(self.min_area_px * factor**2)})


def _as_rule(value: object) -> object:
    return (WhiteRule() if value else None) if isinstance(value, bool) else value


# In settings true stands for the usual rule, and false for none.
WhiteSetting: TypeAlias = Annotated[WhiteRule | None, BeforeValidator(_as_rule)]


def white_pixels(rgb: NDArray[np.uint8], rule: WhiteRule) -> NDArray[np.bool_]:
    """Return which pixels are white.

    Parameters
    ----------
    rgb
        uint8, (H, W, 3).
    rule
        What counts as white.

    Returns
    -------
    NDArray[np.bool_]
        (H, W).

    References
    ----------
    .. [1] Han et al., "Multi-Layer Pseudo-Supervision for Histopathology Tissue Semantic Segmentation using
       Patch-level Classification Labels", Medical Image Analysis 80, 2022: air spaces must not be taught as tissue.
    """
    spots, areas = bright_spots(rgb, rule)
    is_large = areas >= rule.min_area_px
    is_large[0] = False
    white: NDArray[np.bool_] = is_large[spots]
    return white


def bright_spots(rgb: NDArray[np.uint8], rule: WhiteRule) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return the spots of pixels that are bright enough, whatever their size.

    Parameters
    ----------
    rgb, rule
        As for `white_pixels`.

    Returns
    -------
    tuple[NDArray[np.integer], NDArray[np.integer]]
        (H, W), the number of the spot that a pixel belongs to, 0 for none; and (spots + 1,), the pixels of each.
    """
    from scipy import ndimage

    # Luma of ITU-R BT.601 in whole numbers, rounded to 8 bit, so that every platform draws the same line.
    red, green, blue = (rgb[..., channel].astype(np.uint32) for channel in range(3))
    gray = (299 * red + 587 * green + 114 * blue + 500) // 1000
    spots, count = ndimage.label(gray > rule.gray_above)
    return spots, np.bincount(spots.ravel(), minlength=count + 1)
