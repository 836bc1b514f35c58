"""Labelling the patches of stores by a trained network, going on where an earlier run ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from wsiseg.executors import ordered_map
from wsiseg.methods.stages import Labelled
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.patches import confidence_layer
from wsiseg.white import white_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap
    from wsiseg.methods.stages import Labeller
    from wsiseg.progress import Progress
    from wsiseg.stores.patches import LayerKind
    from wsiseg.training.patch_batches import Known
    from wsiseg.white import WhiteRule

# Runs of neighbours share shards on disk.
_RUN: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Read:
    rows: NDArray[np.int64]
    images: NDArray[np.uint8]
    white: NDArray[np.bool_] | None


def annotate(
    known: Known,
    labeller: Labeller,
    names: dict[str, str],
    labels: LabelMap,
    *,
    white: WhiteRule | None,
    made_by: str,
    batch_size: int,
    device: torch.device,
    with_confidence: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
    stop: Stop | None = None,
) -> int:
    """Write the layers of a labeller into the stores, and return how many patches were labelled.

    Parameters
    ----------
    known
        Patches to label, and what they show.
    labeller
        On `device`.
    names
        Name in the stores of each of the labeller's layers.
    labels
        The classes.
    white
        What of a patch is without tissue, beside its padding; None where the classes cover all of it.
    made_by
        What the layers say of who has made them; see `LayerInfo`.
    batch_size
        Images at once.
    device
        Where the labeller computes.
    with_confidence
        Write how sure each label is, too, into the layers that `confidence_layer` names. It takes several times the
        room of the labels.
    overwrite
        Label patches that have all of the layers, too; else they are left alone.
    progress
        Told about patches.
    stop
        Looked at after each run of patches.

    Raises
    ------
    StoppedError
        If `stop` was requested; what is labelled stays.
    """
    stop, patches = stop or Stop(), known.patches
    sure = {layer: confidence_layer(name) for layer, name in names.items()} if with_confidence else {}
    kinds: dict[str, LayerKind] = dict.fromkeys(names.values(), "classes")
    kinds.update(dict.fromkeys(sure.values(), "confidence"))
    for name, kind in kinds.items():
        if name not in patches.layers:
            patches.add_layer(name, kind, labels, made_by=made_by)
    is_done = np.all([patches.is_labelled(name) for name in kinds], axis=0)
    rows = np.arange(len(known.indices)) if overwrite else np.flatnonzero(~is_done[known.indices])

    def read(part: NDArray[np.int64]) -> _Read:
        images = patches.read_images(known.indices[part])
        return _Read(
            rows=part, images=images, white=_without_tissue(images, patches.extents[known.indices[part]], white)
        )

    runs = [rows[first : first + _RUN] for first in range(0, len(rows), _RUN)]
    with progress.task("pseudo-labels", total=len(known.indices), unit="patches") as advance:
        advance(len(known.indices) - len(rows))
        for run in ordered_map(read, runs, workers=1, ahead=1):
            found, indices = _labelled(run, known, labeller, batch_size, device), known.indices[run.rows]
            for layer, name in names.items():
                patches.write_labels(name, indices, [mask for part in found[layer] for mask in part.labels.numpy()])
            for layer, name in sure.items():
                patches.write_labels(name, indices, [one for part in found[layer] for one in part.confidence.numpy()])
            advance(len(run.rows))
            if stop.is_requested:
                raise stop.error()
    return len(rows)


def pixel_counts(known: Known, name: str, stop: Stop) -> NDArray[np.int64]:
    """Return how many pixels of the known patches have each label in a layer, (256,); the last are ignored.

    Raises
    ------
    StoppedError
        If `stop` was requested.
    """
    counts = np.zeros(256, dtype=np.int64)
    for first in range(0, len(known.indices), _RUN):
        counts += np.bincount(
            known.patches.read_labels(name, known.indices[first : first + _RUN]).ravel(), minlength=256
        )
        if stop.is_requested:
            raise stop.error()
    return counts


def _without_tissue(
    images: NDArray[np.uint8], extents: NDArray[np.int32], white: WhiteRule | None
) -> NDArray[np.bool_] | None:
    """Return where patches are white or padding, (n, H, W), or None where there is neither by definition."""
    height, width = images.shape[1:3]
    if white is None and (extents == (width, height)).all():
        return None
    found = np.zeros((len(images), height, width), dtype=np.bool_)
    for own, image, (right, bottom) in zip(found, images, extents.tolist(), strict=True):
        if white is not None:
            own[:] = white_pixels(image, white)
        own[bottom:] = True
        own[:, right:] = True
    return found


def _labelled(
    run: _Read, known: Known, labeller: Labeller, batch_size: int, device: torch.device
) -> dict[str, list[Labelled]]:
    """Return what a labeller says of a run, batch by batch, on the CPU."""
    parts: dict[str, list[Labelled]] = {layer: [] for layer in labeller.layers}
    for first in range(0, len(run.rows), batch_size):
        part = slice(first, first + batch_size)
        images = torch.from_numpy(run.images[part]).permute(0, 3, 1, 2).to(device)
        present = torch.from_numpy(known.present[run.rows[part]] == 1).to(device)
        white = None if run.white is None else torch.from_numpy(run.white[part]).to(device)
        indices = known.indices[run.rows[part]]
        for layer, found in labeller.label(images, present, white, indices=indices).items():
            parts[layer].append(Labelled(labels=found.labels.cpu(), confidence=found.confidence.cpu()))
    return parts
