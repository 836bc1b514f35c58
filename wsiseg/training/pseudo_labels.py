"""Objects that a trained network finds in patches without labels, as layers of the stores."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from wsiseg.executors import ordered_map
from wsiseg.methods.pseudo_objects import believed
from wsiseg.training.validation import dense_maps_of_each

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap
    from wsiseg.methods.predictor import NetPredictor
    from wsiseg.methods.pseudo_objects import PseudoObjects, PseudoRules
    from wsiseg.progress import Advance
    from wsiseg.stopping import Stop
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.stores.patch_store import PatchStore
    from wsiseg.training.label_health import Health
    from wsiseg.training.sources import UnlabelledSource

# Patches that a network sees at once, and that are written at once.
_AT_ONCE: Final = 8
_RUN: Final = 32


class PseudoLabeller:
    """Labels the objects of patches.

    Parameters
    ----------
    predictor
        The teacher, on `device`.
    rules, min_scores
        What of it is believed; see `believed`.
    device
        Where it computes.
    """

    def __init__(
        self, predictor: NetPredictor, rules: PseudoRules, *, min_scores: Sequence[float], device: torch.device
    ) -> None:
        self._predictor, self._rules = predictor, rules
        self._min_scores, self._device = tuple(min_scores), device

    def label(self, images: Iterable[NDArray[np.uint8]], *, workers: int) -> Generator[PseudoObjects]:
        """Yield the objects of each image, uint8 RGB (H, W, 3), at the resolution of the training.

        The network sees several at once, and what it says of them is decoded by `workers` threads; 0 takes none.
        """
        yield from ordered_map(self._found, self._maps(images), workers=workers, ahead=2 * workers)

    def _maps(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        rest = iter(images)
        while batch := list(islice(rest, _AT_ONCE)):
            yield from dense_maps_of_each(self._predictor, batch, self._device)

    def _found(self, maps: NDArray[np.float32]) -> PseudoObjects:
        found, foreground = self._predictor.decode(maps), self._predictor.foreground(maps)
        certain = replace(found, scores=self._predictor.certainty(maps, found))
        return believed(certain, foreground, self._rules, min_scores=self._min_scores)


def write_pseudo_labels(
    pool: Iterable[tuple[PatchSet, UnlabelledSource]],
    labeller: PseudoLabeller,
    name: str,
    labels: LabelMap,
    *,
    made_by: str,
    before: Health,
    workers: int,
    advance: Advance,
    keep: Callable[[Health], None],
    stop: Stop,
) -> Health:
    """Write a layer of instances into each store that has patches to label, or go on with one that was begun.

    Parameters
    ----------
    pool
        Patches to label, and the stores that they are in.
    labeller
        Labels them.
    name
        Of the layer. Patches that have labels in it keep them.
    labels
        The classes.
    made_by
        What the layers say of who has made them; see `LayerInfo`.
    before
        Of the patches that were labelled before.
    workers
        Threads that decode.
    advance
        Told of each patch.
    keep
        Given the health of all patches whenever some were written.
    stop
        Looked at after each run of patches.

    Returns
    -------
    Health
        Of all patches, as far as `before` tells of the others.

    Raises
    ------
    StoppedError
        If `stop` was requested; what is labelled stays.
    """
    health = before
    for store, source, first, own in _parts(pool):
        if name not in store.layers:
            store.add_layer(name, "instances", labels, made_by=made_by)
        rest = own[~store.is_labelled(name)[own]]
        advance(len(own) - len(rest))
        for run in (rest[at : at + _RUN] for at in range(0, len(rest), _RUN)):
            images = _read(source, (run + first).tolist())
            arrays = []
            for index, found in zip(run.tolist(), labeller.label(images, workers=workers), strict=True):
                arrays.append(_stored(found.labels, store, index))
                health = health.plus(found)
                advance(1)
            store.write_labels(name, run, arrays)
            keep(health)
            if stop.is_requested:
                raise stop.error()
    return health


def _parts(
    pool: Iterable[tuple[PatchSet, UnlabelledSource]],
) -> Iterator[tuple[PatchStore, UnlabelledSource, int, NDArray[np.int64]]]:
    """Yield each store with patches to label, their source, the number of its first patch there, and their indices."""
    for patches, source in pool:
        first = 0
        for store in patches.stores:
            own = source.indices[(source.indices >= first) & (source.indices < first + len(store))] - first
            if len(own):
                yield store, source, first, own
            first += len(store)


def _read(source: UnlabelledSource, indices: Sequence[int]) -> Generator[NDArray[np.uint8]]:
    """Yield images at the resolution of the training, read ahead."""
    return ordered_map(lambda index: source.whole(index).image, indices, workers=1, ahead=_AT_ONCE)


def _stored(labels: NDArray[np.int32], store: PatchStore, index: int) -> NDArray[np.int32]:
    """Return labels (H, W) at the resolution of a patch, padded."""
    width, height = (int(value) for value in store.extents[index])
    result = np.zeros(store.image_shape, dtype=np.int32)
    result[:height, :width] = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    return result
