"""A segmentation network and the classifier before it, as methods with a gate begin, judge and keep them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg import checkpoint
from wsiseg.errors import DataError, MethodError
from wsiseg.initial_weights import initialise, read_weights
from wsiseg.methods.pair_options import DOWNLOADED, RANDOM
from wsiseg.methods.predictor import NetPredictor, normalised
from wsiseg.nets.gated import GatedDeepLab, build_gated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from wsiseg.nets.encoders import Weights
    from wsiseg.nets.gated import GatedSpec
    from wsiseg.nets.taps import TapClassifier

logger = logging.getLogger(__name__)


class UngatedPredictor(NetPredictor):
    """The pair without its gate, by which models are chosen; it is kept with its gate."""

    def forward(self, batch: Tensor) -> Tensor:
        """Return the segmentation network's own probabilities."""
        segmenter = self._net.get_submodule("segmenter")
        maps: Tensor = segmenter(normalised(batch, self.card)).float()
        return maps.softmax(dim=1)


def downloaded(init: str) -> Weights | None:
    """Return the weights that a network to begin with `init` is built with; see `PairOptions.init`."""
    return DOWNLOADED if init == DOWNLOADED else None


def begin(trunk: TapClassifier, *, init: str) -> None:
    """Give the trunk of a classifier its first weights; early layers that were trained before stay as they are.

    Parameters
    ----------
    trunk
        Built with `downloaded`.
    init
        See `PairOptions.init`.

    Raises
    ------
    DataError
        If the file cannot be read or does not fit, be it that it lacks what is to stay as it is.
    """
    if init == RANDOM:
        logger.warning(
            "the classifier begins with random weights: nothing of it is frozen, and it learns slowly; "
            "pass --init FILE, or --backbone resnet18 --init imagenet (downloaded)"
        )
        return
    trunk.freeze()
    if init == DOWNLOADED:
        return
    report = initialise(trunk, read_weights(Path(init)), where=Path(init))
    held = {name for name, value in trunk.named_parameters() if not value.requires_grad}
    # Averages of batch normalisation stay as they are, too.
    held |= {name for name, _ in trunk.named_buffers()}
    lost = sorted(held.intersection(report.missing + report.misshapen))
    if lost:
        raise DataError(
            f"{len(lost)} arrays that would not be learnt have no value in it, such as {lost[0]}",
            where=init,
            mend="Check that the file was made for the same backbone, or pass --init none",
        )


def begun(spec: GatedSpec, classes: int, *, init: str, done: Mapping[str, Path], stage: str) -> GatedDeepLab:
    """Return a segmentation network to be trained, behind a classifier that has been.

    Parameters
    ----------
    spec
        Of both.
    classes
        Number of classes.
    init
        Weights that the segmentation network begins with; see `PairOptions.segmenter_init`.
    done
        Folders of the models of earlier stages, by name.
    stage
        Name of the one that trains the classifier.

    Raises
    ------
    MethodError, DataError
        If weights cannot be had, or the classifier is another one.
    """
    net = build_gated(spec, classes, weights=downloaded(init))
    if init == RANDOM:
        logger.warning(
            "the segmentation network begins with random weights and learns slowly; "
            "pass --set options.init_segmenter=imagenet (downloaded), or a file"
        )
    elif init != DOWNLOADED:
        initialise(net.segmenter, read_weights(Path(init)), where=Path(init))
    if net.classifier is not None and spec.classifier is not None:
        trained = checkpoint.read(done[stage])
        if trained.card.net != spec.classifier.model_dump(mode="json"):
            raise MethodError(
                "the classifier was trained with another backbone or head",
                where=done[stage],
                mend=f"Run the stage {stage} again, or choose the same",
            )
        weights = {name.removeprefix("classifier."): value for name, value in trained.weights.items()}
        net.classifier.load_state_dict(weights)
        net.classifier.requires_grad_(requires_grad=False)
    return net
