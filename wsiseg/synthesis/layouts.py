"""New masks: the nuclei of an annotated patch, laid out anew at random."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
from pydantic import Field
from skimage import measure

from wsiseg.config import Config
from wsiseg.synthesis.nucleus_bank import WIDEST_GAP_PX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from wsiseg.synthesis.nucleus_bank import NucleusBank, Stamp

logger = logging.getLogger(__name__)

Density: TypeAlias = Literal["normal", "dense"]
# New nuclei for each nucleus of the patch, on the area of the patch.
RATES: Final[dict[Density, tuple[float, float]]] = {"normal": (1.03, 1.20), "dense": (1.20, 1.37)}
# Nuclei are laid out beyond the border, which then cuts some of them.
MARGIN_PX: Final = 22
SMALLEST_PIECE_PX: Final = 20
# Share of a nucleus that later ones may cover.
MOST_COVERED: Final = 0.3
# The released code counts nuclei on the larger canvas, and so shows fewer than the patch has.
_FAITHFUL: Final = 0.73
_NARROWEST_GAP_PX: Final = 2
_TRIALS: Final = 200


class LayoutSettings(Config):
    """How nuclei are laid out.

    Parameters
    ----------
    mode
        ``density-matched`` shows as many nuclei on an area as the patch does, times 1.03 to 1.37; ``faithful`` the
        sparser masks that the released code makes.
    spacing
        Part of a nucleus's radius, 0 to 1, by which its middle keeps away from earlier nuclei, beside 2 to 5 px. With
        1 no two touch; with 0.5, as published, some touch and some overlap.
    density
        ``normal``, ``dense``, or ``auto``: dense where nuclei cover more of the patch than of the median of the
        patches that are fitted together. (Published: chosen by eye.)

    Notes
    -----
    Rates are those of [1], said of the nuclei of the patch: its code takes a seventh of a bank that has each of them
    six times, and 0.2 to 0.4 of that more, or 0.4 to 0.6 where they are dense. How far a nucleus keeps away is measured
    from the outlines of the others; there these are dilated by an ellipse, for which half of the 2 to 5 px count, too.
    Nuclei keep their size, as there. The seed is the one of the GAN or of the samples, 0 unless told; there 21.

    References
    ----------
    .. [1] Lou et al., "Which Pixel to Annotate: a Label-Efficient Nuclei Segmentation Framework", IEEE TMI 42(4),
       2023. The procedure is that of its code; that nuclei are turned and mirrored at random where the code has six
       stored variants, how density is chosen and how much may be covered are choices made here.
    """

    mode: Literal["density-matched", "faithful"] = "density-matched"
    spacing: float = Field(default=0.5, ge=0, le=1)
    density: Literal["auto", "normal", "dense"] = "auto"


def arrange(
    bank: NucleusBank, settings: LayoutSettings, density: Density, rng: np.random.Generator, *, where: str = ""
) -> NDArray[np.int32]:
    """Return a new mask of the size of the patch, int32 (S, S), nuclei 1, 2, …, each in one piece.

    A nucleus is drawn, turned and put where it fits, as often as the density asks for. Where none fits any more, the
    mask has fewer, which is logged. Of a few nuclei all may come to lie beyond the border: such a mask is drawn again.

    Parameters
    ----------
    bank
        The nuclei to draw from.
    settings, density
        How.
    rng
        Draws.
    where
        The mask, for the log.
    """
    for _ in range(_TRIALS):
        labels = _laid_out(bank, settings, density, rng, where)
        if labels.any():
            break
    return labels


def layouts(
    bank: NucleusBank,
    settings: LayoutSettings,
    density: Density,
    indices: Iterable[int],
    *,
    patch: str,
    seed: int,
) -> list[NDArray[np.int32]]:
    """Return the masks number `indices` of a patch: the same whichever others are asked for; see `arrange`."""
    name = int.from_bytes(hashlib.blake2b(patch.encode(), digest_size=8).digest(), "little")
    return [
        arrange(bank, settings, density, np.random.default_rng((seed, name, index)), where=f"{patch}, mask {index}")
        for index in indices
    ]


def tidied(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the largest piece of each nucleus, numbered from 1, without those below `SMALLEST_PIECE_PX` pixels."""
    pieces = measure.label(labels, connectivity=1)  # type: ignore[no-untyped-call]  # scikit-image carries no types
    areas = np.bincount(pieces.ravel())
    owner = np.zeros(len(areas), dtype=np.int64)
    owner[pieces.ravel()] = labels.ravel()
    largest_first = np.argsort(-areas[1:], kind="stable") + 1
    _, first = np.unique(owner[largest_first], return_index=True)
    kept = np.sort(largest_first[first])
    kept = kept[areas[kept] >= SMALLEST_PIECE_PX]
    numbers = np.zeros(len(areas), dtype=np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    tidy: NDArray[np.int32] = numbers[pieces]
    return tidy


def _laid_out(
    bank: NucleusBank, settings: LayoutSettings, density: Density, rng: np.random.Generator, where: str
) -> NDArray[np.int32]:
    side = bank.side_px + 2 * MARGIN_PX
    rate = rng.uniform(*RATES[density]) * (_FAITHFUL if settings.mode == "faithful" else 1.0)
    wanted = round(bank.nuclei * rate * (side / bank.side_px) ** 2)
    canvas = _Canvas(side, wanted)
    failures = 0
    while canvas.count < wanted and failures < _TRIALS:
        stamp = bank.stamps[rng.integers(len(bank.stamps))]
        gap = rng.integers(_NARROWEST_GAP_PX, WIDEST_GAP_PX + 1)
        is_placed = canvas.place(stamp, settings.spacing * stamp.radius_px + gap, rng)
        failures = 0 if is_placed else failures + 1
    if canvas.count < wanted:
        logger.info("%s: %d of %d nuclei found room", where or "a mask", canvas.count, wanted)
    return tidied(canvas.labels[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX])


class _Canvas:
    """Nuclei placed so far, and how far each pixel is from the nearest of them."""

    def __init__(self, side: int, most: int) -> None:
        self.labels = np.zeros((side, side), dtype=np.int32)
        self.count = 0
        # Only distances up to the longest that is asked for count, and stamps know those.
        self._distance = np.full((side, side), np.inf, dtype=np.float32)
        self._areas = np.zeros(most + 1, dtype=np.int64)
        self._covered = np.zeros(most + 1, dtype=np.int64)

    def place(self, stamp: Stamp, distance_px: float, rng: np.random.Generator) -> bool:
        """Put a nucleus with its middle farther than `distance_px` from the others; tell whether there was room."""
        free = np.flatnonzero(self._distance > distance_px)
        if not free.size:
            return False
        side = len(self.labels)
        corners = [int(at) - len(stamp.distance_px) // 2 for at in divmod(free[rng.integers(free.size)], side)]
        ends = [min(side, corner + len(stamp.distance_px)) for corner in corners]
        rows, columns = (slice(max(0, corner), end) for corner, end in zip(corners, ends, strict=True))
        around = stamp.distance_px[
            rows.start - corners[0] : rows.stop - corners[0], columns.start - corners[1] : columns.stop - corners[1]
        ]
        nucleus = around == 0
        covered = self._covered + np.bincount(self.labels[rows, columns][nucleus], minlength=len(self._covered))
        if np.any(covered[1:] > MOST_COVERED * self._areas[1:]):
            return False
        self.count += 1
        self._covered = covered
        self._areas[self.count] = nucleus.sum()
        self.labels[rows, columns][nucleus] = self.count
        np.minimum(self._distance[rows, columns], around, out=self._distance[rows, columns])
        return True
