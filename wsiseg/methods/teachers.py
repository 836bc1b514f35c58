"""A student and a teacher whose weights follow the student's."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from wsiseg.errors import MethodError
from wsiseg.methods.cards import make_encode
from wsiseg.methods.predictor import NetPredictor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsiseg.checkpoint import ModelCard
    from wsiseg.methods.base import Batch, Encode

_BATCH_NORMS: Final = (nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Pair(nn.Module):
    """Two networks of one kind: one learns, the other is its running average and has no gradient.

    Parameters
    ----------
    student
        The network that learns; the teacher begins as its copy.

    References
    ----------
    .. [1] Tarvainen and Valpola, "Mean teachers are better role models: Weight-averaged consistency targets improve
       semi-supervised deep learning results", NeurIPS 2017.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(requires_grad=False)
        for layer in self.teacher.modules():
            if isinstance(layer, _BATCH_NORMS):
                # In training mode it normalises by the batch, but its running statistics follow the student's alone.
                layer.momentum = 0.0

    @torch.no_grad()
    def follow(self, decay: float, *, buffers: bool) -> None:
        """Move the teacher towards the student.

        Parameters
        ----------
        decay
            Part of the teacher that stays, 0 … 1; 0 copies the student.
        buffers
            Statistics of normalisation are averaged, too; else they are the teacher's own. Whole numbers are copied.
        """
        kept: list[Tensor] = list(self.teacher.parameters())
        new: list[Tensor] = list(self.student.parameters())
        if buffers:
            pairs = list(zip(self.teacher.buffers(), self.student.buffers(), strict=True))
            kept += [mine for mine, _ in pairs if mine.is_floating_point()]
            new += [theirs for mine, theirs in pairs if mine.is_floating_point()]
            for mine, theirs in pairs:
                if not mine.is_floating_point():
                    mine.copy_(theirs)
        if kept:
            torch._foreach_lerp_(kept, new, 1 - decay)


class TaughtLearner:
    """What learners with a teacher have in common; they differ in their losses.

    Parameters
    ----------
    card
        The model to be.
    kind
        What the labels are.
    student
        The network that learns.
    """

    def __init__(self, card: ModelCard, *, kind: str, student: nn.Module) -> None:
        self.card = card
        self._pair = Pair(student)
        self._encode = make_encode(card, kind)

    @property
    def module(self) -> Pair:
        """Return student and teacher."""
        return self._pair

    @property
    def encode(self) -> Encode:
        """Return what makes targets out of labels."""
        return self._encode

    def rate_of(self, name: str) -> float:  # noqa: ARG002 - all learn alike
        """Return 1."""
        return 1.0

    def predictor(self, module: nn.Module) -> NetPredictor:
        """Return the predictor that the student makes."""
        return NetPredictor(self.card, _both(module).student)

    def teacher(self, module: nn.Module) -> NetPredictor:
        """Return the predictor that the teacher makes."""
        return NetPredictor(self.card, _both(module).teacher)


def require_labels(batch: Batch, method: str) -> None:
    """See that something of a batch has labels.

    Raises
    ------
    MethodError
        If nothing has.
    """
    if not batch.targets:
        raise MethodError(f"{method} needs some labelled images in each batch")


def by_kind(
    net: nn.Module, look: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor, labelled: int, *, mixed: bool
) -> tuple[Tensor, ...]:
    """Return what a network says of images, of which those with labels are looked at apart from those without.

    In training, batch normalisation scales each image by all that are looked at with it. So what is learnt from labels
    does not depend on which images without happen to stand beside them, and neither do the running statistics.

    Parameters
    ----------
    net
        The network.
    look
        Returns its maps (B, …) of images (B, …).
    images
        Those with labels first.
    labelled
        How many have labels.
    mixed
        All are looked at together instead.
    """
    if mixed or not 0 < labelled < len(images):
        return look(images)
    own = look(images[:labelled])
    with _statistics_kept(net):
        others = look(images[labelled:])
    return tuple(torch.cat(maps) for maps in zip(own, others, strict=True))


@contextmanager
def _statistics_kept(net: nn.Module) -> Iterator[None]:
    """Keep the running statistics of a network as they are, while it normalises by the batch."""
    layers = [layer for layer in net.modules() if isinstance(layer, _BATCH_NORMS)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def told_of(prob: Tensor, taught: Tensor, *, entropy: Tensor | None = None) -> dict[str, Tensor]:
    """Return what tells whether a teacher is of use.

    Parameters
    ----------
    prob, taught
        float (B, C, …): probabilities of the student and of the teacher.
    entropy
        Of what the teacher says, each pixel, 0 … ln C; that of `taught` where None.

    Returns
    -------
    dict[str, Tensor]
        ``agreement``, the part of the pixels that both call the same; ``entropy``, how unsure the teacher is, 0 … 1;
        and ``balance``, the part of the pixels that it takes for anything but the first class.
    """
    called = taught.argmax(dim=1)
    doubt = torch.special.entr(taught).sum(dim=1) if entropy is None else entropy
    return {
        "agreement": (prob.argmax(dim=1) == called).float().mean(),
        "entropy": doubt.mean() / math.log(taught.shape[1]),
        "balance": (called > 0).float().mean(),
    }


def with_noise(images: Tensor, *, std: float, clip: float) -> Tensor:
    """Return normalised images with Gaussian noise of a standard deviation, cut off at ± `clip`."""
    return images + (torch.randn_like(images) * std).clamp(-clip, clip)


def _both(module: nn.Module) -> Pair:
    if not isinstance(module, Pair):
        raise TypeError(f"not a student with a teacher: {type(module).__name__}")
    return module
