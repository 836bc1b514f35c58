"""From the final output at one place to labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.inference.instances import Context, Found, find_objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.geometry import Window
    from wsiseg.methods.base import Predictor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """What has become final at one place of the walk.

    Parameters
    ----------
    row, column
        Place in the grid.
    window
        The block, in canvas pixels.
    maps
        float32 (channels, H, W) over the block, or None where no tile has been.
    is_labelled, is_unreadable
        bool (H, W) over the block: pixels that were read and are not bare glass, and those that could
        not be read; None where the block touches no cell that is to be analysed.
    context
        Where objects are to be found, or None.
    """

    row: int
    column: int
    window: Window
    maps: NDArray[np.float32] | None
    is_labelled: NDArray[np.bool_] | None
    is_unreadable: NDArray[np.bool_] | None
    context: Context | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepLabels:
    """The labels of one step.

    Parameters
    ----------
    step
        Where they belong.
    classes
        uint8 (H, W) over the block for semantic models, or None.
    uncertainty
        uint8 (H, W) over the block, or None where no tile has been.
    probs
        uint8 (classes, H, W) over the block, the probability of each class, 0 … 255, or (1, H, W), that of any
        object; None where they are not asked for or no tile has been.
    found
        Objects of the unit for instance models, or None.
    """

    step: Step
    classes: NDArray[np.uint8] | None
    uncertainty: NDArray[np.uint8] | None
    probs: NDArray[np.uint8] | None
    found: Found | None


def label_step(step: Step, predictor: Predictor, *, with_probs: bool) -> StepLabels:
    """Return the labels of one step, `with_probs` with probabilities; safe from several threads at once."""
    found = find_objects(predictor, step.context) if step.context is not None else None
    if step.maps is None:
        return StepLabels(step=step, classes=None, uncertainty=None, probs=None, found=found)
    classes = None
    if predictor.spec.task == "instance":
        probs = predictor.foreground(step.maps)[None]
        uncertainty = entropy(np.concatenate((probs, 1 - probs)))
    else:
        probs, uncertainty = step.maps, entropy(step.maps)
        index_of = np.array([label.index for label in predictor.spec.labels.labels], dtype=np.uint8)
        classes = index_of[probs.argmax(axis=0)]
    kept = in_bytes(probs) if with_probs else None
    return StepLabels(step=step, classes=classes, uncertainty=uncertainty, probs=kept, found=found)


def entropy(probs: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the entropy of class probabilities, 0 (certain) … 255 (all classes equally likely).

    Parameters
    ----------
    probs
        float32 (classes, H, W), summing to 1.
    """
    if len(probs) == 1:
        return np.zeros(probs.shape[1:], dtype=np.uint8)
    # float16 rounding and averaging may leave values a hair outside 0 … 1.
    clipped = np.clip(probs, 1e-7, 1)
    bits = -np.einsum("chw,chw->hw", clipped, np.log(clipped))
    scaled: NDArray[np.uint8] = np.rint(np.clip(bits * (255 / np.log(len(probs))), 0, 255)).astype(np.uint8)
    return scaled


def in_bytes(probs: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return probabilities, float32 (classes, H, W), as 0 … 255."""
    scaled = np.empty(probs.shape, dtype=np.uint8)
    # Class by class: intermediate results of all at once are many times as large as what comes out.
    for plane, prob in zip(scaled, probs, strict=True):
        plane[:] = np.rint(np.clip(prob, 0, 1) * 255)
    return scaled
