"""How good a predictor is on whole patches that it has not seen."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch

from wsiseg.geometry import Size
from wsiseg.grid import Grid
from wsiseg.labels import IGNORE
from wsiseg.metrics.confusion import ConfusionMatrix, count_confusion
from wsiseg.metrics.instances import InstanceTally, tally_instances
from wsiseg.metrics.overlaps import count_overlaps
from wsiseg.training.log import CLASS_IOU

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.methods.base import Predictor, PredictorSpec
    from wsiseg.training.ranks import Ranks
    from wsiseg.training.sources import Patch, Source

logger = logging.getLogger(__name__)

# Validations in a row in which a class may go unfound before it is spoken of.
_PATIENCE: Final = 3
# Windows that a network sees at once.
_AT_ONCE: Final = 8
# The first of each is what models are chosen by.
INSTANCE_SCORES: Final = ("aji", "f1", "pq", "dice")
CLASS_SCORES: Final = ("miou", "fw_iou", "pixel_accuracy", "mean_dice")


class Validator(Protocol):
    """Measures predictors on what was held out."""

    @property
    def metric(self) -> str:
        """Return the name of the value by which models are chosen; higher is better."""
        ...

    def measure(self, predictor: Predictor, ranks: Ranks) -> dict[str, float]:
        """Return the metrics by name, the same on all ranks."""
        ...


class Validation:
    """Measures predictors on held-out patches, all pooled.

    Parameters
    ----------
    sources
        The held-out patches.
    spec
        What the predictors give: instance models are scored by AJI, F1 at an IoU of 0.5, PQ and
        Dice, semantic models by mean and frequency-weighted IoU, accuracy and Dice.

    Attributes
    ----------
    metric
        Name of the value by which models are chosen, ``aji`` or ``miou``; higher is better.
    """

    def __init__(self, sources: Sequence[Source], spec: PredictorSpec) -> None:
        self._items = [(source, int(index)) for source in sources for index in source.indices]
        self._tally = _tally_objects if spec.task == "instance" else _tally_classes
        self._names = INSTANCE_SCORES if spec.task == "instance" else CLASS_SCORES
        self.metric = self._names[0]
        self._classes = spec.labels.names
        self._unfound: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self._items)

    def measure(self, predictor: Predictor, ranks: Ranks) -> dict[str, float]:
        """Return the metrics by name; ranks share the patches and get the same values.

        Of classes also the IoU of each, NaN for one that is neither there nor found. Warns of classes that go
        unfound again and again.
        """
        mine = [
            self._tally(predictor, source, source.whole(index), ranks.device)
            for source, index in self._items[ranks.rank :: ranks.world]
        ]
        everyone = [tally for part in ranks.gather(mine) for tally in part]
        pooled = type(everyone[0]).stack(everyone).pool(np.ones(len(everyone), dtype=np.int64))
        scores = pooled.scores()
        # Where nothing counts there is nothing to be proud of.
        told = {name: float(np.nan_to_num(scores[name])) for name in self._names}
        if isinstance(pooled, ConfusionMatrix):
            if ranks.is_first:
                self._tell_unfound(pooled)
            each = pooled.class_scores()["iou"].tolist()
            told |= {f"{CLASS_IOU}{name}": iou for name, iou in zip(self._classes, each, strict=True)}
        return told

    def _tell_unfound(self, pooled: ConfusionMatrix) -> None:
        """Warn of the classes of which not a pixel was found in the last few validations."""
        is_unfound = (pooled.counts.sum(axis=1) > 0) & (np.diagonal(pooled.counts) == 0)
        self._unfound = Counter(
            {
                name: self._unfound[name] + 1
                for name, is_missing in zip(self._classes, is_unfound, strict=True)
                if is_missing
            }
        )
        if lost := [name for name, times in self._unfound.items() if times >= _PATIENCE]:
            logger.warning(
                "not a pixel of %s was found in the last %d validations; if that goes on, lower the learning rate, "
                "begin with other weights, or add patches that show it",
                " or of ".join(lost),
                min(self._unfound[name] for name in lost),
            )


def dense_maps(predictor: Predictor, image: NDArray[np.uint8], device: torch.device) -> NDArray[np.float32]:
    """Return what a predictor says of one image, (channels, H, W); see `dense_maps_of_each`."""
    (maps,) = dense_maps_of_each(predictor, [image], device)
    return maps


def dense_maps_of_each(
    predictor: Predictor, images: Sequence[NDArray[np.uint8]], device: torch.device
) -> list[NDArray[np.float32]]:
    """Return what a predictor says of whole images.

    It sees windows of the size of its tiles, as in prediction: some networks behave differently where they see more
    than they ever did in training.

    Parameters
    ----------
    predictor
        On `device`.
    images
        uint8 RGB (H, W, 3) of any sizes; mirrored beyond their edges.
    device
        Where the predictor computes.

    Returns
    -------
    list[NDArray[np.float32]]
        (channels, H, W) for each image.
    """
    side = predictor.spec.tile_px
    padded, found, places = [], [], []
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        halo = predictor.spec.halo_px if max(height, width) > side else 0
        core = side - 2 * halo
        grid = Grid(canvas=Size(width, height), core=Size(core, core), halo=halo)
        margins = (halo, grid.rows * core + halo - height), (halo, grid.columns * core + halo - width)
        padded.append(torch.from_numpy(np.pad(image, (*margins, (0, 0)), mode="reflect")).permute(2, 0, 1))
        found.append(np.empty((predictor.spec.channels, height, width), dtype=np.float32))
        places += [(number, tile, tile.read.y + halo, tile.read.x + halo) for tile in grid[:]]
    with torch.inference_mode():
        for first in range(0, len(places), _AT_ONCE):
            part = places[first : first + _AT_ONCE]
            windows = torch.stack([padded[number][:, y : y + side, x : x + side] for number, _, y, x in part])
            outputs = predictor.forward(windows.to(device)).float().cpu().numpy()
            for (number, tile, _, _), output in zip(part, outputs, strict=True):
                found[number][:, *tile.core.slices] = output[:, *tile.core.within(tile.read).slices]
    return found


def _tally_objects(predictor: Predictor, source: Source, patch: Patch, device: torch.device) -> InstanceTally:  # noqa: ARG001 - as for classes
    found = predictor.decode(dense_maps(predictor, patch.image, device)).labels
    return tally_instances(count_overlaps(np.where(patch.valid, found, 0), np.where(patch.valid, patch.labels, 0)))


def _tally_classes(predictor: Predictor, source: Source, patch: Patch, device: torch.device) -> ConfusionMatrix:
    found = dense_maps(predictor, patch.image, device).argmax(axis=0)
    truth = (patch.labels > 0).astype(np.int32) if source.kind == "instances" else patch.labels
    truth = np.where(patch.valid, truth, IGNORE)
    return count_confusion(found, truth, classes=predictor.spec.channels, ignore_index=IGNORE)
