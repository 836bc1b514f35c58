"""Notices while there is time that a classifier learns nothing, or never sees one of its classes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

from wsiseg.methods.processes import gathered, is_first

if TYPE_CHECKING:
    from torch import Tensor

    from wsiseg.labels import LabelMap
    from wsiseg.methods.base import Clock
    from wsiseg.methods.sgd import SgdSettings

logger = logging.getLogger(__name__)

_PROBABLE: Final = 0.5
# Epochs, and part of the training, that a classifier is given to learn something.
_FIRST_EPOCH: Final = 3
_PATIENCE: Final = 0.25
# What has learnt anything has a loss that is lower than that of a guess by more than this part of it.
_NOTHING: Final = 0.01
# Where a guess is nearly always right, there is little to be learnt.
_EASY: Final = 0.05
# Patches that show a class, and that lack it, from which something should have been learnt.
_ENOUGH: Final = 10


class ClassifierWatch:
    """Compares what a classifier says of the training patches with what they show, once in an epoch.

    A dead classifier, whose features have all become 0, gives every class a probability of 1/2
    and has a loss of ln 2; one that has learnt only how frequent classes are does little better.
    Neither ends the training, and both make labels that are worth nothing.

    Parameters
    ----------
    labels
        The classes.
    settings
        Of the training.
    """

    def __init__(self, labels: LabelMap, settings: SgdSettings) -> None:
        self._labels = labels
        self._settings = settings
        # Patches, their loss, and how many are said to show each class, and do. They are not kept with the
        # state of the training: after an interruption an epoch is judged by what is left of it.
        self._sums: Tensor | None = None

    @torch.no_grad()
    def note(self, logits: Tensor, present: Tensor, loss: Tensor) -> Tensor:
        """Take in a batch, and return the part of its patches that are said to show exactly what they show.

        Parameters
        ----------
        logits
            float (B, C).
        present
            float (B, C), 0 or 1: what the patches show.
        loss
            Mean over the batch.
        """
        is_seen, is_shown = logits > 0, present > _PROBABLE
        patches = torch.full((1,), len(logits), device=logits.device)
        sums = torch.cat((patches, loss.reshape(1).float() * patches, is_seen.sum(dim=0), is_shown.sum(dim=0)))
        self._sums = sums if self._sums is None else self._sums + sums
        return (is_seen == is_shown).all(dim=1).float().mean()

    def tell(self, clock: Clock) -> None:
        """Warn at the end of an epoch, from a quarter of the training on, of what has gone wrong.

        Parameters
        ----------
        clock
            Of the update that was made.
        """
        epochs = self._settings.epochs
        if self._sums is None or not clock.ends_epoch(epochs):
            return
        sums, self._sums = gathered(self._sums[None]).sum(dim=0), None
        epoch = clock.epoch(epochs)
        if epoch >= max(_FIRST_EPOCH, _PATIENCE * epochs) and is_first():
            patches, loss, *counts = sums.tolist()
            classes = len(self._labels)
            if found := self._finding(patches, loss / patches, counts[:classes], counts[classes:]):
                logger.warning("the classifier in epoch %d: %s", epoch, found)

    def _finding(self, patches: float, loss: float, seen: list[float], shown: list[float]) -> str:
        """Return what is wrong with an epoch and what to do; nothing if all is well."""
        slower = f"--set options.numbers.classify.lr={self._settings.lr / 3:.1g}"
        mend = f"lower its learning rate ({slower}), or begin with other weights (--init)"
        frequency = torch.tensor(shown, dtype=torch.float64) / patches
        guess = float(functional.binary_cross_entropy(frequency, frequency))
        if guess > _EASY and loss >= (1 - _NOTHING) * guess:
            what = f"its loss of {loss:.3f} is that of a guess by how frequent classes are ({guess:.3f}) or worse"
            return f"{what}, so it has learnt nothing from the images; {mend}"
        is_varied = [_ENOUGH <= count <= patches - _ENOUGH for count in shown]
        if any(is_varied) and all(count in (0, patches) for count in seen):
            return f"it says the same of all {patches:.0f} patches; {mend}"
        missed = [
            f"{label.name} (in {count / patches:.0%} of them)"
            for label, count, found in zip(self._labels.labels, shown, seen, strict=True)
            if count >= _ENOUGH and found == 0
        ]
        if missed:
            what = f"of {patches:.0f} patches it sees none that shows {', '.join(missed)}"
            return f"{what}, and labels of it will be poor; train for more epochs, or give it more such patches"
        return ""
