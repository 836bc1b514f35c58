"""How good a predictor is on whole patches that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from wsiseg.geometry import Size
from wsiseg.grid import Grid
from wsiseg.metrics.instances import InstanceTally, tally_instances
from wsiseg.metrics.overlaps import count_overlaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.methods.base import Predictor
    from wsiseg.training.ranks import Ranks
    from wsiseg.training.sources import Patch, Source

# Networks take windows larger than the tiles they were trained on; larger windows waste less on halos.
WINDOW_PX = 512


class Validation:
    """Measures predictors on held-out patches.

    Classes are scored by their mean intersection over union (``mIoU``) and pixel accuracy,
    instances by ``AJI``, ``F1`` at an IoU of 0.5 and ``PQ``; all patches are pooled.

    Parameters
    ----------
    sources
        The held-out patches.
    kind
        What their layers hold.
    num_classes
        Classes of the layer.

    Attributes
    ----------
    metric
        Name of the value by which models are chosen; higher is better.
    """

    def __init__(self, sources: Sequence[Source], *, kind: Literal["instances", "classes"], num_classes: int) -> None:
        self._items = [(source, int(index)) for source in sources for index in source.indices]
        self._kind = kind
        self._num_classes = num_classes
        self.metric = "AJI" if kind == "instances" else "mIoU"

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self._items)

    def measure(self, predictor: Predictor, ranks: Ranks) -> dict[str, float]:
        """Return the metrics by name; ranks share the patches and get the same values."""
        patches = (source.whole(index) for source, index in self._items[ranks.rank :: ranks.world])
        if self._kind == "instances":
            tallies = [_tally(predictor, patch, ranks.device) for patch in patches]
            everyone = [tally for part in ranks.gather(tallies) for tally in part]
            scores = InstanceTally.stack(everyone).pool().scores()
            return {"AJI": float(scores["aji"]), "F1": float(scores["f1"]), "PQ": float(scores["pq"])}
        counts = np.zeros((self._num_classes, self._num_classes), dtype=np.int64)
        for patch in patches:
            counts += _confusion(predictor, patch, ranks.device, self._num_classes)
        return _class_scores(np.sum(ranks.gather(counts), axis=0))


def dense_maps(predictor: Predictor, image: NDArray[np.uint8], device: torch.device) -> NDArray[np.float32]:
    """Return what a predictor says of a whole image.

    Parameters
    ----------
    predictor
        On `device`.
    image
        uint8 RGB (H, W, 3) of any size; mirrored beyond its edges.
    device
        Where the predictor computes.

    Returns
    -------
    NDArray[np.float32]
        (channels, H, W).
    """
    spec = predictor.spec
    height, width = image.shape[:2]
    sides = range(spec.tile_px, max(spec.tile_px, WINDOW_PX) + 1, spec.tile_px)
    fitting = [side for side in sides if side >= max(height, width)]
    side, halo = (fitting[0], 0) if fitting else (sides[-1], spec.halo_px)
    core = side - 2 * halo
    grid = Grid(canvas=Size(width, height), core=Size(core, core), halo=halo)
    margins = (halo, grid.rows * core + halo - height), (halo, grid.columns * core + halo - width)
    padded = torch.from_numpy(np.pad(image, (*margins, (0, 0)), mode="reflect")).permute(2, 0, 1)
    maps = np.empty((spec.channels, height, width), dtype=np.float32)
    with torch.inference_mode():
        for tile in grid:
            rows, columns = tile.read.y + halo, tile.read.x + halo
            window = padded[None, :, rows : rows + side, columns : columns + side]
            output = predictor.forward(window.to(device))[0].float().cpu().numpy()
            maps[:, *tile.core.slices] = output[:, *tile.core.within(tile.read).slices]
    return maps


def _tally(predictor: Predictor, patch: Patch, device: torch.device) -> InstanceTally:
    found = predictor.decode(dense_maps(predictor, patch.image, device)).labels
    return tally_instances(count_overlaps(np.where(patch.valid, found, 0), np.where(patch.valid, patch.labels, 0)))


def _confusion(predictor: Predictor, patch: Patch, device: torch.device, num_classes: int) -> NDArray[np.int64]:
    """Return counts (truth, prediction) over the pixels that are not ignored."""
    found = dense_maps(predictor, patch.image, device).argmax(axis=0)
    truth = patch.labels[patch.valid].astype(np.int64)
    pairs = truth * num_classes + found[patch.valid]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _class_scores(counts: NDArray[np.int64]) -> dict[str, float]:
    hits = np.diag(counts)
    unions = counts.sum(axis=0) + counts.sum(axis=1) - hits
    present = unions > 0
    mean_iou = float((hits[present] / unions[present]).mean()) if present.any() else 0.0
    return {"mIoU": mean_iou, "accuracy": float(hits.sum() / max(1, counts.sum()))}
