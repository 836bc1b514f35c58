"""Losses of PG-FANet: cross-entropy and Dice on labels, and agreement of student and teacher without them.

Shapes: B images, C classes, … places in one, two or three dimensions.

References
----------
.. [1] Jin et al., "Inter- and intra-uncertainty based feature aggregation model for semi-supervised
   histopathology image segmentation", Expert Systems with Applications 238, 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import torch

from wsiseg.labels import IGNORE
from wsiseg.losses.semantic import cross_entropy, soft_dice

if TYPE_CHECKING:
    from torch import Tensor

Dice = Literal["pooled", "per_class"]
Variant = Literal[
    "shape_mask",
    "shape_entropy",
    "inter_intra",
    "inter",
    "intra",
    "shape",
    "stage1",
    "mt",
    "shape_mask_kl",
    "shape_entropy_kl",
    "inter_intra_kl",
    "intra_kl",
]

_LOG_FLOOR: Final = 1e-12
_ENTROPY_FLOOR: Final = 1e-6
# The published map of disagreement divides by 0 where it is constant.
_RANGE_FLOOR: Final = 1e-8


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a variant is made of.

    Parameters
    ----------
    target
        What the student is drawn to: the teacher ``as_is``, or moved towards the student where it is unsure,
        with an uncertainty for each class (``by_class``) or one for all (``summed``).
    attends
        Weigh the disagreement with the target by shape attention.
    intra
        Ask the student's two outputs to agree.
    entropy
        Add the entropy of their disagreement.
    """

    target: Literal["as_is", "by_class", "summed"]
    attends: bool = False
    intra: bool = False
    entropy: bool = False


_TERMS: Final = {
    "shape_mask": _Terms("by_class", attends=True, intra=True),
    "shape_entropy": _Terms("by_class", intra=True, entropy=True),
    "inter_intra": _Terms("by_class", intra=True),
    "inter": _Terms("summed"),
    "intra": _Terms("as_is", intra=True),
    "shape": _Terms("as_is", attends=True),
    "stage1": _Terms("by_class", attends=True),
    "mt": _Terms("as_is"),
}
_KL: Final = "_kl"


def segmentation(logits: Tensor, labels: Tensor, *, dice: Dice = "pooled") -> dict[str, Tensor]:
    """Return cross-entropy, Dice loss and their sum.

    Parameters
    ----------
    logits
        float (B, C, H, W).
    labels
        int64 (B, H, W): class indices, 255 ignored.
    dice
        ``pooled`` as published, see `pooled_dice`; ``per_class`` weighs all classes alike, see `soft_dice`.

    Returns
    -------
    dict[str, Tensor]
        ``loss``, ``cross_entropy`` and ``dice``.
    """
    entropy = cross_entropy(logits, labels)
    overlap = pooled_dice(logits, labels) if dice == "pooled" else soft_dice(logits, labels)
    return {"loss": entropy + overlap, "cross_entropy": entropy.detach(), "dice": overlap.detach()}


def pooled_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - the soft Dice coefficient over all images, classes and places at once.

    Probabilities and labels both add up to the number N of places, so it is 1 - (2 N p + 1) / (2 N + 1) with
    the mean probability p of the true class: classes that are rare weigh little.

    Parameters
    ----------
    logits
        float (B, C, …).
    labels
        int64 (B, …): class indices, 255 ignored.

    Returns
    -------
    Tensor
        Scalar, 0 … 1; 0 where every place is ignored.
    """
    known = labels != IGNORE
    truth = torch.where(known, labels, 0).unsqueeze(1)
    hit = (logits.float().softmax(dim=1).gather(1, truth).squeeze(1) * known).sum()
    total = 2 * known.sum()
    return 1 - (2 * hit + 1) / (total + 1)


def consistency(
    student: Tensor,
    aux: Tensor,
    teacher: Tensor,
    *,
    variant: Variant = "shape_mask",
    detach_target: bool = False,
) -> dict[str, Tensor]:
    """Return how much the student disagrees with the teacher and with itself.

    With the teacher's uncertainty U of a class, -p log p, the target of the student is (1 - U) teacher + U student.
    Shape attention weighs places from 1 to 2; it is highest where the disagreement is moderate, which is along
    outlines. All is computed in float32 or better.

    Parameters
    ----------
    student, aux
        float (B, C, …): probabilities of the student's second and first stage.
    teacher
        float (B, C, …): probabilities of the teacher's second stage. Gets no gradient if it has none.
    variant
        ``shape_mask`` is the published loss, and ``shape_entropy`` what the authors' code computes unless told
        otherwise: entropy instead of attention. The others leave terms out: ``inter_intra`` has neither; ``inter``
        asks for agreement with the teacher alone, its uncertainty summed over classes; ``intra`` does without
        uncertainty; ``shape`` is attention alone; ``stage1`` is the full loss of a network with one stage; ``mt``
        is that of a mean teacher. ``_kl`` measures the agreement of both stages by the Kullback-Leibler divergence.
    detach_target
        Take no gradient through the target, so that U weakens the gradient once and not twice.

    Returns
    -------
    dict[str, Tensor]
        ``loss``, and without gradient its parts ``inter``, ``intra`` and ``disagreement``, those that the variant has.
    """
    terms = _TERMS[variant.removesuffix(_KL)]
    with torch.autocast(student.device.type, enabled=False):
        student, aux, teacher = (
            one.to(torch.promote_types(one.dtype, torch.float32)) for one in (student, aux, teacher)
        )
        target = _target(student, teacher, terms)
        distance = (student - (target.detach() if detach_target else target)).square()
        if terms.attends:
            distance = (1 + shape_attention(student, teacher)) * distance
        parts = {"inter": distance.mean()}
        if terms.intra:
            parts["intra"] = _divergence(student, aux) if variant.endswith(_KL) else (student - aux).square().mean()
        if terms.entropy:
            parts["disagreement"] = _disagreement_entropy(student, aux)
    return {"loss": sum(parts.values(), start=student.new_zeros(()))} | {
        name: part.detach() for name, part in parts.items()
    }


def shape_attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Return where two outputs disagree moderately, stretched to 0 … 1 in each image.

    It is the entropy of the absolute differences of probabilities, which is 0 both where all agree and where
    they contradict each other outright. Where it is the same everywhere it is 0.

    Parameters
    ----------
    student, teacher
        float (B, C, …): probabilities.

    Returns
    -------
    Tensor
        float (B, 1, …), with a gradient.
    """
    entropy = _entropy_of_difference(student, teacher)
    places = tuple(range(1, entropy.ndim))
    least, most = entropy.amin(dim=places, keepdim=True), entropy.amax(dim=places, keepdim=True)
    return (entropy - least) / (most - least + _RANGE_FLOOR)


def _entropy_of_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the entropy of absolute differences, in bits, (B, 1, …)."""
    difference = (student - teacher).abs()
    return -(difference * torch.log2(difference + _LOG_FLOOR)).sum(dim=1, keepdim=True)


def _target(student: Tensor, teacher: Tensor, terms: _Terms) -> Tensor:
    if terms.target == "as_is":
        return teacher
    uncertainty = -teacher * torch.log(teacher + _LOG_FLOOR)
    if terms.target == "summed":
        uncertainty = uncertainty.sum(dim=1, keepdim=True)
    return (1 - uncertainty) * teacher + uncertainty * student


def _divergence(student: Tensor, aux: Tensor) -> Tensor:
    # Not `functional.kl_div`: it has no gradient to what is its target.
    return (student * (torch.log(student + _LOG_FLOOR) - torch.log(aux + _LOG_FLOOR))).mean()


def _disagreement_entropy(student: Tensor, aux: Tensor) -> Tensor:
    difference = (student - aux).abs()
    return -(difference * torch.log(difference + _ENTROPY_FLOOR)).sum(dim=1).mean() / math.log(2)
