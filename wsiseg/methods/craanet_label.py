"""Labels of pixels made of what the classifier of CRAANet has looked at."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from wsiseg import checkpoint
from wsiseg.errors import MethodError
from wsiseg.labels import IGNORE
from wsiseg.methods.accumulation import AttentionAccumulator
from wsiseg.methods.attention_labels import attention_labels
from wsiseg.methods.craanet_classify import ATTENTION
from wsiseg.methods.pair_options import CLASSIFY, PSEUDO_LABEL
from wsiseg.methods.predictor import load_network
from wsiseg.methods.stages import Labelled
from wsiseg.nets.attending import AttentionMaps
from wsiseg.nets.residual_attention import attention_maps

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.methods.base import TrainingFacts
    from wsiseg.methods.craanet_options import CraanetOptions

logger = logging.getLogger(__name__)

_MADE_BY: Final = {"reliability", "maps", "accumulate", "accumulation"}


class AttentionLabeller:
    """Labels patches by accumulated attention, and by that of the trained classifier where there is none.

    Parameters
    ----------
    net
        The trained classifier, on its device; its attention also decides where accumulated maps tie.
    accumulated
        Of the patches that are labelled, by their number; None where nothing is accumulated of them.
    options
        Of the method.
    """

    def __init__(self, net: AttentionMaps, accumulated: AttentionAccumulator | None, options: CraanetOptions) -> None:
        self._classifier = net.classifier.eval()
        self._accumulated = accumulated
        self._options = options
        self._has_told = False

    @property
    def layers(self) -> tuple[str, str]:
        """Return the names of all labels and of the reliable ones; labels made in other ways have other names."""
        options = self._options
        # None of these changes the weights of the classifier, by which labels are told apart otherwise.
        made_by = options.model_dump_json(include=_MADE_BY)
        mark = hashlib.blake2b(made_by.encode(), digest_size=2).hexdigest()
        return f"complete-{mark}", f"reliable-{mark}"

    def label(
        self, images: Tensor, present: Tensor, white: Tensor | None, *, indices: NDArray[np.int64]
    ) -> dict[str, Labelled]:
        """Return all labels, and the reliable ones; see `Labeller`."""
        with torch.inference_mode():
            found = self._classifier.attended(images.float() / 255)
            last = attention_maps(found.scores if self._options.maps == "score" else found.parts).cpu().numpy()
        maps = last if self._accumulated is None else self._accumulated.maps_or(indices, last)
        self._tell_unknown(indices)
        size = (images.shape[2], images.shape[3])
        made = [
            attention_labels(
                maps[row],
                present[row].cpu().numpy(),
                size,
                last=last[row],
                white=None if white is None else white[row].cpu().numpy(),
                settings=self._options.reliability,
            )
            for row in range(len(maps))
        ]
        complete, reliable = self.layers
        labels, targets, confidence = (
            torch.from_numpy(np.stack(one))
            for one in zip(*((each.labels, each.targets, each.confidence) for each in made), strict=True)
        )
        return {
            complete: Labelled(labels=labels, confidence=confidence),
            reliable: Labelled(labels=targets, confidence=confidence.masked_fill(targets == IGNORE, IGNORE)),
        }

    def _tell_unknown(self, indices: NDArray[np.int64]) -> None:
        """Warn once of patches that are labelled in another way than the rest."""
        if self._accumulated is None or self._has_told or self._accumulated.counts[indices].any(axis=1).all():
            return
        self._has_told = True
        logger.warning(
            "the training accumulated no attention of some patches: their labels follow what the trained classifier "
            "sees, and how good they are says little about the others"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabelStage:
    """Labels the training patches."""

    options: CraanetOptions
    name: str = PSEUDO_LABEL

    @property
    def depends_on(self) -> dict[str, Any]:
        """Return the options by which labels are made of attention; see `LabelStage`."""
        return self.options.model_dump(mode="json", include=_MADE_BY)

    def labeller(self, facts: TrainingFacts, done: Mapping[str, Path], device: torch.device) -> AttentionLabeller:
        """Return what labels; see `LabelStage`."""
        folder = done[CLASSIFY]
        net = load_network(folder)
        if not isinstance(net, AttentionMaps):
            raise MethodError("this model is no classifier of the method", where=folder)
        accumulated = None
        if self.options.accumulate:
            # Attention is accumulated by the number of a patch in the stores.
            if list(checkpoint.read_card(folder).training_data.items()) == list(facts.training_data.items()):
                accumulated = AttentionAccumulator.open(folder / ATTENTION)
            else:
                logger.warning(
                    "the classifier was trained on other patches: only what it has learnt is used; for those of its "
                    "training, name the same stores in the same order"
                )
        return AttentionLabeller(net.to(device), accumulated, self.options)
