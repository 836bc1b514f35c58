"""How much a class map shows where its tiles met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.labels import NO_CLASS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from wsiseg.geometry import Window
    from wsiseg.inference.blending import Blend
    from wsiseg.inference.walk import Walk

# Labels that change more often across seams than this, compared with elsewhere, are worth a word,
_VISIBLE: Final = 1.5
# if they change so often that it is hardly by chance.
_TELLING: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """Pairs of pixels that touch along an edge, both analysed and of a class, and those of them whose classes differ.

    Parameters
    ----------
    across, across_changes
        Pairs that straddle a line where the cores of tiles meet.
    inside, inside_changes
        All others.
    """

    across: int
    across_changes: int
    inside: int
    inside_changes: int

    @property
    def across_rate(self) -> float | None:
        """Return the share of pairs across seams whose classes differ, None where there are no pairs."""
        return self.across_changes / self.across if self.across else None

    @property
    def inside_rate(self) -> float | None:
        """Return the share of all other pairs whose classes differ, None where there are no pairs."""
        return self.inside_changes / self.inside if self.inside else None

    @property
    def ratio(self) -> float | None:
        """Return the one rate by the other: 1 where seams cannot be seen, None where labels never change inside."""
        across, inside = self.across_rate, self.inside_rate
        return None if across is None or not inside else across / inside

    @property
    def are_visible(self) -> bool:
        """Tell whether labels change clearly more often across seams than elsewhere."""
        across, inside = self.across_rate, self.inside_rate
        return (
            across is not None and inside is not None and self.across_changes >= _TELLING and across > _VISIBLE * inside
        )

    def told(self) -> dict[str, float | None]:
        """Return the ratio and both rates for a summary."""
        rates = {"ratio": self.ratio, "across": self.across_rate, "inside": self.inside_rate}
        return {name: None if rate is None else round(rate, 6) for name, rate in rates.items()}


def advice(seams: Seams, walk: Walk, blend: Blend) -> str:
    """Return one line on seams that can be seen: how clearly, and how to mend it.

    Parameters
    ----------
    seams
        That can be seen.
    walk, blend
        How the tiles overlapped and were joined.
    """
    across = "across the borders of tiles"
    often = f"{across} alone" if seams.ratio is None else f"{seams.ratio:.1f} times as often {across} as inside"
    if blend == "none":
        mend = "pass --blend gaussian"
    elif walk.core_px > 2 * walk.grid.halo:
        mend = "raise --overlap, up to 0.5"
    else:
        mend = "the tiles overlap by half already, so train on larger patches"
    return f"labels change {often}; {mend}"


class SeamCounter:
    """Counts the changes of labels in a class map that is given strip by strip.

    Parameters
    ----------
    core_px
        Side of the cores of tiles.
    is_analysed
        Tells which pixels of a window were to be analysed, bool (H, W).
    """

    def __init__(self, core_px: int, is_analysed: Callable[[Window], NDArray[np.bool_]]) -> None:
        self._core = core_px
        self._is_analysed = is_analysed
        # Of pairs and of changes: all, and those across seams.
        self._pairs, self._changes = [0, 0], [0, 0]
        self._last: tuple[NDArray[np.unsignedinteger], NDArray[np.bool_]] | None = None

    def add(self, window: Window, values: NDArray[np.unsignedinteger]) -> None:
        """Count the pairs of a strip, and those of its first row with the last one of the strip before.

        Parameters
        ----------
        window
            As wide as the canvas; begins where the last one ended.
        values
            Class indices, uint8 (H, W), 254 = no class, 255 = not analysed.
        """
        # Classes end at 253.
        has_class = (values < NO_CLASS) & self._is_analysed(window)
        self._count(values.T, has_class.T, second=1)
        second = window.y + 1
        if self._last is not None:
            values = np.concatenate([self._last[0], values])
            has_class = np.concatenate([self._last[1], has_class])
            second = window.y
        self._count(values, has_class, second=second)
        self._last = values[-1:].copy(), has_class[-1:].copy()

    @property
    def found(self) -> Seams:
        """Return what was counted."""
        (pairs, across), (changes, across_changes) = self._pairs, self._changes
        return Seams(
            across=across,
            across_changes=across_changes,
            inside=pairs - across,
            inside_changes=changes - across_changes,
        )

    def _count(self, values: NDArray[np.unsignedinteger], has_class: NDArray[np.bool_], *, second: int) -> None:
        """Count pairs of neighbours in following rows, of which the second lies in row `second` of the canvas."""
        is_pair = has_class[1:] & has_class[:-1]
        is_change = is_pair & (values[1:] != values[:-1])
        across = slice(-second % self._core, None, self._core)
        for counts, mask in ((self._pairs, is_pair), (self._changes, is_change)):
            counts[0] += int(np.count_nonzero(mask))
            counts[1] += int(np.count_nonzero(mask[across]))
