"""How good labels would be that a learner makes of patches, told while it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from wsiseg.labels import IGNORE
from wsiseg.metrics.confusion import ConfusionMatrix, count_confusion
from wsiseg.training.log import CLASS_ATTENTION
from wsiseg.training.patch_batches import in_order, masked_patches
from wsiseg.white import white_pixels

if TYPE_CHECKING:
    import torch

    from wsiseg.methods.base import Clock, PredictorSpec
    from wsiseg.methods.stages import Probed
    from wsiseg.training.sources import Source

# Mean IoU of the labels.
LABEL_MIOU: Final = "label_miou"
_TRUTH: Final = "truth"
_BATCH: Final = 8


class Judge(Protocol):
    """Judges a learner beside its validation."""

    def measure(self, clock: Clock, device: torch.device) -> dict[str, float]:
        """Return metrics by name, always the same ones."""
        ...


class Probe:
    """Shows a learner held-out patches with the classes that their masks hold, and judges the labels it gives them.

    Parameters
    ----------
    learner
        What is judged; the patches have the numbers by which it knows them.
    source
        The patches. Those whose mask holds no class are left out.
    spec
        What the learner's predictor gives: its classes, and what of a patch is white and has no label.
    """

    def __init__(self, learner: Probed, source: Source, spec: PredictorSpec) -> None:
        self._learner = learner
        self._known = replace(masked_patches(source, len(spec.labels)), layers={_TRUTH: source.layer})
        self._classes = len(spec.labels)
        self._white = spec.white

    def measure(self, clock: Clock, device: torch.device) -> dict[str, float]:
        """Return the metrics by name, once at the end of each epoch: what an audit of the labels would tell of them.

        Beside it, the mean attention of each class that labels are made of.
        """
        counts = np.zeros((self._classes, self._classes + 1))
        for crops in in_order(self._known, _BATCH):
            labels = self._learner.probe(crops.dressed(device), clock)
            if self._white is not None:
                images = crops.images.permute(0, 2, 3, 1).numpy()
                labels[np.stack([white_pixels(image, self._white) for image in images])] = IGNORE
            counts += count_confusion(labels, crops.targets[_TRUTH].numpy(), classes=self._classes).counts
        miou = float(np.nan_to_num(ConfusionMatrix(counts=counts).scores()["miou"]))
        return {LABEL_MIOU: miou} | {
            f"{CLASS_ATTENTION}{name}": mean for name, mean in self._learner.mean_attention().items()
        }
