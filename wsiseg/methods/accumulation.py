"""Attention accumulation: what a classifier looked at in every epoch of its training, in one map per class.

Shapes: N patches of the stores, B of a batch, C classes, H × W positions of a map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
from pydantic import Field

from wsiseg.atomic import atomic_path
from wsiseg.config import Config
from wsiseg.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# A mean above this says that the maps of a class have grown together.
SATURATED: Final = 0.9
_FIRST_MIRRORED: Final = 4


class AccumulationSettings(Config):
    """Which maps count, and how they are laid over one another.

    Parameters
    ----------
    mode
        ``max`` keeps the highest value of each position, ``mean`` the mean, ``ema`` a running average.
    ema_decay
        How much of a running average stays.
    accept
        ``topk``: maps of a patch's classes that are among its K highest logits, K being the
        number of its classes. All that are equal at rank K pass, so that the order of classes decides
        nothing; a sort would pass K of them. ``prob``: those whose probability reaches `min_prob`.
    min_prob
        See `accept`.
    start_epoch
        First epoch, counted from 1, whose maps count; before, the network knows too little.

    References
    ----------
    .. [1] Jiang et al., "Integral Object Mining via Online Attention Accumulation", ICCV 2019.
    """

    mode: Literal["max", "mean", "ema"] = "max"
    ema_decay: float = Field(default=0.9, ge=0, lt=1)
    accept: Literal["topk", "prob"] = "topk"
    min_prob: float = Field(default=0.1, ge=0, le=1)
    start_epoch: int = Field(default=2, ge=1)


class AttentionAccumulator:
    """Maps of attention by patch and class, in the frame of the stored patch.

    A patch is known by its index, so neither the order of patches nor the size of batches
    matters. Maps are 16-bit floats in memory: 20,000 patches of 4 classes at 28 × 28 take 126 MB.

    Parameters
    ----------
    patches
        N.
    classes
        C.
    size
        (H, W) of the maps.
    settings
        What counts.
    """

    def __init__(
        self, patches: int, classes: int, size: tuple[int, int], settings: AccumulationSettings | None = None
    ) -> None:
        self.settings = settings or AccumulationSettings()
        record = np.dtype([("maps", "<f2", (classes, *size)), ("counts", "<i4", (classes,))])
        self._records = np.zeros(patches, dtype=record)

    @property
    def maps(self) -> NDArray[np.float16]:
        """Return the accumulated maps, (N, C, H, W), 0 … 1; 0 where none was taken in."""
        maps: NDArray[np.float16] = self._records["maps"]
        return maps

    @property
    def counts(self) -> NDArray[np.int32]:
        """Return how many maps were taken in, (N, C)."""
        counts: NDArray[np.int32] = self._records["counts"]
        return counts

    def update(
        self,
        indices: Sequence[int] | NDArray[np.integer[Any]],
        maps: NDArray[np.floating[Any]],
        logits: NDArray[np.floating[Any]],
        present: NDArray[np.bool_],
        *,
        symmetries: Sequence[int] | NDArray[np.integer[Any]],
        epoch: int,
        is_last: bool,
    ) -> None:
        """Take in the maps of a batch.

        Parameters
        ----------
        indices
            (B,): the patches.
        maps
            float (B, C, H, W), 0 … 1, of the patches as the network saw them.
        logits
            float (B, C).
        present
            bool (B, C): the classes of each patch; maps of others are never kept.
        symmetries
            (B,): under which symmetry of the square, 0 … 7, the network saw each patch. A mirror of
            left and right is 4, one of top and bottom 6; see `wsiseg.heads.symmetry`.
        epoch
            Number of the epoch, from 1.
        is_last
            Whether it is the last one, in which a class that has no map yet takes any.
        """
        accepted = self._accepted(logits, present) & (epoch >= self.settings.start_epoch)
        for place, index in enumerate(indices):
            known = self.counts[index] > 0
            wanted = present[place] & (accepted[place] | ~known) if is_last else accepted[place]
            for label in np.flatnonzero(wanted):
                self._take(int(index), int(label), _turned_back(maps[place, label], int(symmetries[place])))

    def attended(
        self,
        indices: Sequence[int] | NDArray[np.integer[Any]],
        *,
        symmetries: Sequence[int] | NDArray[np.integer[Any]],
        threshold: float = 0.6,
    ) -> NDArray[np.bool_]:
        """Return where any class of a patch has been seen, so that the network can be made to look elsewhere.

        Parameters
        ----------
        indices, symmetries
            As for `update`.
        threshold
            Value of a map that must be exceeded.

        Returns
        -------
        NDArray[np.bool_]
            (B, H, W), in the frame of the patches as the network sees them.
        """
        seen = (self.maps[np.asarray(indices)] > threshold).any(axis=1)
        return np.stack([_turned(mask, int(symmetry)) for mask, symmetry in zip(seen, symmetries, strict=True)])

    def maps_or(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], last: NDArray[np.float32]
    ) -> NDArray[np.floating[Any]]:
        """Return the maps of patches, and those of the last epoch, (B, C, H, W), of classes that have none."""
        rows = np.asarray(indices)
        is_known = self.counts[rows] > 0
        return np.where(is_known[:, :, None, None], self.maps[rows], last)

    def class_means(self, *, without: Sequence[int] = ()) -> NDArray[np.float64]:
        """Return the mean of the maps of each class, (C,), but for some patches; NaN without any. See `SATURATED`."""
        is_known = self.counts > 0
        is_known[list(without)] = False
        means = np.full(self.counts.shape[1], np.nan)
        for label, known in enumerate(is_known.T):
            if known.any():
                means[label] = self.maps[known, label].mean(dtype=np.float64)
        return means

    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of maps and counts, from which `load_state` goes on exactly."""
        return {"maps": self.maps.copy(), "counts": self.counts.copy()}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up what `state` returned.

        Raises
        ------
        DataError
            If it belongs to other patches, classes or maps.
        """
        if state["maps"].shape != self.maps.shape or state["counts"].shape != self.counts.shape:
            raise DataError(
                f"accumulated maps of shape {state['maps'].shape} do not fit {self.maps.shape}",
                mend="Train again from the start",
            )
        self._records["maps"], self._records["counts"] = state["maps"], state["counts"]

    def save(self, path: Path) -> None:
        """Write maps and counts to one ``.npy`` file, whole or not at all."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, self._records, allow_pickle=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return what `save` wrote, for reading; the maps stay on disk until they are asked for.

        Raises
        ------
        DataError
            If there is no such file or it holds something else.
        """
        try:
            records = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise DataError("there are no accumulated maps here", where=path, mend="Train the classifier") from error
        except (OSError, ValueError, EOFError) as error:
            raise DataError("the accumulated maps are damaged", where=path, mend="Train the classifier anew") from error
        if not isinstance(records, np.ndarray) or records.dtype.names != ("maps", "counts"):
            raise DataError("this file holds no accumulated maps", where=path)
        classes, *size = records.dtype["maps"].shape
        accumulator = cls(0, classes, (size[0], size[1]))
        accumulator._records = records
        return accumulator

    def _accepted(self, logits: NDArray[np.floating[Any]], present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell which maps pass the rule, (B, C)."""
        accepted: NDArray[np.bool_]
        if self.settings.accept == "prob":
            accepted = logits >= _logit(self.settings.min_prob)
        else:
            higher = (logits[:, None, :] > logits[:, :, None]).sum(axis=2)
            accepted = higher < present.sum(axis=1, keepdims=True)
        return present & accepted

    def _take(self, index: int, label: int, new: NDArray[np.floating[Any]]) -> None:
        kept, count = self.maps[index, label], int(self.counts[index, label])
        if count == 0:
            kept[...] = new
        elif self.settings.mode == "max":
            # Rounding keeps order: the maximum of rounded maps is the rounded maximum.
            np.maximum(kept, new.astype(np.float16), out=kept)
        else:
            share = 1 / (count + 1) if self.settings.mode == "mean" else 1 - self.settings.ema_decay
            before = kept.astype(np.float32)
            kept[...] = before + share * (new - before)
        self.counts[index, label] = count + 1


def _logit(prob: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(prob) - np.log1p(-prob))


def _turned(array: NDArray[Any], symmetry: int) -> NDArray[Any]:
    mirrored = array[:, ::-1] if symmetry >= _FIRST_MIRRORED else array
    return np.rot90(mirrored, symmetry % 4)


def _turned_back(array: NDArray[Any], symmetry: int) -> NDArray[Any]:
    back = np.rot90(array, -(symmetry % 4))
    return back[:, ::-1] if symmetry >= _FIRST_MIRRORED else back
