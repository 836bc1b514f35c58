"""What is asked of a method that knows patches by their classes: stages that train, and stages that label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.config import Config
    from wsiseg.methods.base import Batch, Clock, Learner, TrainingFacts
    from wsiseg.methods.sgd import Flips, SgdSettings


class PatchStage(Protocol):
    """One step of a method that knows which classes whole patches show: trains one learner."""

    @property
    def name(self) -> str:
        """Return a short name, used for the stage's folder."""
        ...

    @property
    def depends_on(self) -> dict[str, Any]:
        """Return the options that what it learns depends on, as JSON and nested as they are set.

        What earlier stages depend on is left out, and what others are made of is said as it comes out.
        """
        ...

    @property
    def settings(self) -> SgdSettings:
        """Return the numbers of the training."""
        ...

    @property
    def flips(self) -> Flips:
        """Return the symmetries under which patches are seen."""
        ...

    @property
    def blur_px(self) -> float:
        """Return the largest standard deviation of the blur of half of the images."""
        ...

    @property
    def is_best_kept(self) -> bool:
        """Tell whether the model with the best validation is used, or the last one."""
        ...

    def build(self, facts: TrainingFacts, done: Mapping[str, Path], layers: tuple[str, ...]) -> Learner:
        """Return a learner.

        Parameters
        ----------
        facts
            What is known of the data.
        done
            Folders of the models of earlier stages, by name.
        layers
            Layers that earlier stages have labelled, in the order of their labeller.

        Raises
        ------
        MethodError, DataError
            If a network is unknown, weights cannot be had, or the data do not suit the stage.
        """
        ...


@runtime_checkable
class Probed(Protocol):
    """A learner that tells, while it learns, how it would label patches that it does not learn from."""

    def probe(self, batch: Batch, clock: Clock) -> NDArray[np.uint8]:
        """Return labels (B, H, W) that the pixels of patches would get now; each patch is shown once in an epoch.

        Parameters
        ----------
        batch
            Patches as they are stored, and what is known of them; on the learner's device.
        clock
            Of the last update of the epoch.
        """
        ...

    def mean_attention(self) -> dict[str, float]:
        """Return the mean, 0 … 1, of the accumulated maps of each class, by its name; nothing where none are kept.

        Only patches that it learns from count. NaN for a class of which there is no map yet.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Labels of the pixels of patches.

    Parameters
    ----------
    labels
        uint8 (B, H, W): class indices, 255 where there is none.
    confidence
        uint8 (B, H, W): percent, higher where the method is surer, and 255 where there is no label. Whether a label
        is right so often is for an audit to tell.
    """

    labels: Tensor
    confidence: Tensor


class Labeller(Protocol):
    """Labels the pixels of patches whose classes are known."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the names of what `label` gives."""
        ...

    def label(
        self, images: Tensor, present: Tensor, white: Tensor | None, *, indices: NDArray[np.int64]
    ) -> dict[str, Labelled]:
        """Return labels by layer.

        Parameters
        ----------
        images
            uint8 RGB (B, 3, H, W) on the labeller's device.
        present
            bool (B, C): the classes that each image shows.
        white
            bool (B, H, W): pixels without tissue; None where there are none by definition.
        indices
            (B,): numbers of the patches among all patches of the stores.
        """
        ...


@runtime_checkable
class LabelStage(Protocol):
    """One step of a method that labels pixels and trains nothing."""

    @property
    def name(self) -> str:
        """Return a short name."""
        ...

    @property
    def depends_on(self) -> dict[str, Any]:
        """Return the options that its labels depend on beside the models of earlier stages; see `PatchStage`."""
        ...

    def labeller(self, facts: TrainingFacts, done: Mapping[str, Path], device: torch.device) -> Labeller:
        """Return what labels patches.

        Parameters
        ----------
        facts
            What is known of the patches to label.
        done
            Folders of the models of earlier stages, by name, of which it is made.
        device
            Where it is to compute.
        """
        ...


class PatchMethod(Protocol):
    """A recipe for those who only know which classes each patch shows."""

    @property
    def name(self) -> str:
        """Return the name used on the command line."""
        ...

    @property
    def summary(self) -> str:
        """Return one line on what the method needs and does."""
        ...

    @property
    def options(self) -> type[Config]:
        """Return the type of the method's options.

        Its field ``numbers`` is a dictionary in which the name of a stage that trains leads to what is
        replaced of the stage's `SgdSettings`.
        """
        ...

    def stages(self, options: Config) -> tuple[PatchStage | LabelStage, ...]:
        """Return the stages in order, for options of the method's own type."""
        ...
