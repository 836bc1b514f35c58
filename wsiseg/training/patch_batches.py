"""Batches of whole patches of which is known what they show, and what was found in them so far."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch

from wsiseg.errors import DataError
from wsiseg.executors import ordered_map
from wsiseg.labels import IGNORE
from wsiseg.training.augmentation import Augmentation, draw_look
from wsiseg.training.batches import Crops, stacked, turned

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.methods.sgd import Flips
    from wsiseg.stores.patches import Patches
    from wsiseg.training.sources import Source

logger = logging.getLogger(__name__)

# By their numbers: see `turned`.
SYMMETRIES: Final[dict[Flips, tuple[int, ...]]] = {
    "none": (0,),
    "horizontal": (0, 4),
    "both": (0, 2, 4, 6),
    "square": tuple(range(8)),
}
PRESENT: Final = "present"
INDEX: Final = "index"
SYMMETRY: Final = "symmetry"
# Normalisation over a batch has nothing to go by in a single image.
_SMALLEST: Final = 2
# An epoch never goes without a larger share of its patches.
_LEFT_OUT: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """Patches of a set and what is known about each.

    Parameters
    ----------
    patches
        The stores.
    indices
        Patches that are used, (n,).
    present
        Classes that each of them shows, uint8 (n, C) of 0 and 1.
    layers
        Layers of labels that go along: the target that each becomes, and its name in the stores.
    """

    patches: Patches
    indices: NDArray[np.int64]
    present: NDArray[np.uint8]
    layers: Mapping[str, str] = field(default_factory=dict)


class PatchBatches:
    """An endless row of batches of whole patches, each a function of its number and the seed alone.

    Every epoch holds each patch once, in an order of its own, but for its last batch. Targets are ``present``, float32
    (B, C); ``index``, the number of the patch in the set, and ``symmetry``, under which it is
    seen, both int64 (B,); and each layer by its name, int64 (B, H, W), turned like the image.

    Parameters
    ----------
    known
        Where patches come from.
    batch_size
        Images in a batch on each rank.
    last_batch
        What becomes of an epoch's incomplete last batch. A single image is dropped all the same. Where more than a
        tenth of all patches would be dropped, the first patches of the epoch fill the batch instead.
    flips
        Symmetries under which patches are seen: ``horizontal`` mirrors left and right, ``both``
        also up and down, ``square`` turns as well.
    blur_px
        Largest standard deviation of a Gaussian blur, applied to half of the images.
    seed
        Decides everything that is random.
    rank, world
        Which part of each large batch is wanted, of how many.

    Raises
    ------
    DataError
        If there are too few patches for a batch.
    """

    def __init__(
        self,
        known: Known,
        *,
        batch_size: int,
        last_batch: Literal["drop", "keep"],
        flips: Flips,
        blur_px: float,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._known = known
        self._batch_size = batch_size
        self._flips = SYMMETRIES[flips]
        self._look = Augmentation.none().model_copy(update={"blur_px": blur_px})
        self._seed = seed
        self._rank = rank
        self._world = world
        count, whole = len(known.indices), self.images_per_batch
        rest = count % whole
        # Ranks share each batch evenly, so an incomplete one cannot be kept where there are several.
        is_kept = last_batch == "keep" and world == 1 and rest >= _SMALLEST
        self._is_filled = not is_kept and count > whole and rest > _LEFT_OUT * count
        self._left_out = 0 if is_kept or self._is_filled else rest
        self._per_epoch = count // whole + (is_kept or self._is_filled)
        if self._per_epoch == 0:
            raise DataError(
                f"{count} patches do not fill a batch of {whole}", mend="Label more patches, or lower the batch size"
            )

    @property
    def images_per_batch(self) -> int:
        """Return the images of one full batch on all ranks."""
        return self._batch_size * self._world

    @property
    def batches_per_epoch(self) -> int:
        """Return the batches of one epoch."""
        return self._per_epoch

    @property
    def images_per_epoch(self) -> int:
        """Return the images of one epoch, as if all batches were full."""
        return self._per_epoch * self.images_per_batch

    @property
    def left_out(self) -> int:
        """Return how many patches each epoch goes without."""
        return self._left_out

    def make(self, number: int) -> Crops:
        """Return batch `number`, on the CPU."""
        epoch, place = divmod(number, self._per_epoch)
        order = np.random.default_rng((self._seed, 5, epoch)).permutation(len(self._known.indices))
        if self._is_filled:
            order = np.resize(order, self.images_per_epoch)
        first = place * self.images_per_batch + self._rank * self._batch_size
        rows = order[first : first + self._batch_size]
        rngs = [np.random.default_rng((self._seed, 6, epoch, int(row))) for row in rows]
        symmetries = [int(rng.choice(self._flips)) for rng in rngs]
        looks = [draw_look(self._look, rng) for rng in rngs]
        return _crops(
            self._known,
            rows,
            symmetries,
            look=stacked(looks) if self._look.changes_look else {},
            seed=zlib.crc32(np.array([self._seed, number, self._rank]).tobytes()),
        )

    def stream(self, start: int, stop: int, *, workers: int) -> Generator[Crops]:
        """Yield the batches from `start` up to `stop`, made ahead of time by `workers` threads."""
        return ordered_map(self.make, range(start, stop), workers=workers, ahead=2 * workers)


def in_order(known: Known, batch_size: int) -> Iterator[Crops]:
    """Yield batches that hold each patch once and as it is stored, with the targets of `PatchBatches`."""
    for first in range(0, len(known.indices), batch_size):
        rows = np.arange(first, min(first + batch_size, len(known.indices)))
        yield _crops(known, rows, [0] * len(rows), look={}, seed=0)


def masked_patches(source: Source, classes: int) -> Known:
    """Return the patches of a source whose masks hold one of so many classes, and which of them they hold."""
    wanted = np.arange(classes)
    present = np.array(
        [np.isin(wanted, source.patches.read_labels(source.layer, [index])) for index in source.indices.tolist()]
    )
    shown = present.any(axis=1)
    return Known(patches=source.patches, indices=source.indices[shown], present=present[shown].astype(np.uint8))


def known_patches(patches: Patches, layer: str, splits: Sequence[str]) -> Known:
    """Return the patches of some splits that show a class and of which is known for each class whether they do.

    Warns of patches that are left out although something is known of them.

    Parameters
    ----------
    patches
        The stores.
    layer
        Layer of image labels.
    splits
        Names of splits; an empty one stands for patches of no split.

    Raises
    ------
    DataError
        If there is no such patch.
    """
    values = patches.read_image_labels(layer, np.arange(len(patches)))
    names = patches.image_layers[layer].labels.names
    is_wanted = np.isin(patches.splits, list(splits))
    is_unknown = values == IGNORE
    is_partial = is_wanted & is_unknown.any(axis=1) & ~is_unknown.all(axis=1)
    is_empty = is_wanted & (values == 0).all(axis=1)
    indices = np.flatnonzero(is_wanted & ~is_unknown.any(axis=1) & ~is_empty)
    where, open_names = f"image labels {layer}", [names[k] for k in np.flatnonzero(is_unknown[is_partial].any(axis=0))]
    if is_partial.any():
        logger.warning(
            "%s: %d patches are left out, as nobody knows whether they show %s; fill in 1 or 0 to use them",
            where,
            is_partial.sum(),
            ", ".join(open_names),
        )
    if is_empty.any():
        logger.warning("%s: %d patches are left out, as they show no class", where, is_empty.sum())
    if len(indices) == 0:
        mend = "Label some with wsiseg label, or check their splits"
        if open_names:
            mend = f"Say of each patch whether it shows {', '.join(open_names)}"
        raise DataError("no patch has image labels to train on", where=where, mend=mend)
    return Known(patches=patches, indices=indices, present=values[indices])


def _crops(
    known: Known, rows: NDArray[np.int64], symmetries: Sequence[int], *, look: dict[str, Tensor], seed: int
) -> Crops:
    indices = known.indices[rows]
    images = _turned(known.patches.read_images(indices), symmetries)
    targets = {
        PRESENT: torch.from_numpy(known.present[rows].astype(np.float32)),
        INDEX: torch.from_numpy(indices),
        SYMMETRY: torch.tensor(symmetries),
    }
    for target, layer in known.layers.items():
        labels = known.patches.read_labels(layer, indices)
        targets[target] = torch.from_numpy(_turned(labels, symmetries).astype(np.int64))
    return Crops(images=torch.from_numpy(images).permute(0, 3, 1, 2), targets=targets, look=look, seed=seed)


def _turned(arrays: NDArray[Any], symmetries: Sequence[int]) -> NDArray[Any]:
    return np.stack([turned(array, symmetry) for array, symmetry in zip(arrays, symmetries, strict=True)])
