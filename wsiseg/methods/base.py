"""What training and prediction ask of a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from wsiseg.config import Config
    from wsiseg.heads.base import Instances
    from wsiseg.labels import LabelMap
    from wsiseg.volumes import VolumeInput
    from wsiseg.white import WhiteRule


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorSpec:
    """What a trained network expects and gives.

    Parameters
    ----------
    task
        ``semantic``: `forward` gives class probabilities; ``instance``: dense maps, which `decode` turns into objects.
    labels
        The classes. For instance models index 0 is background.
    mpp
        Micrometres per pixel the network was trained at; None where it has no scale.
    tile_px
        Side of the square it is given, halo included; a multiple of its stride.
    halo_px
        Pixels at a tile's edge whose output is not used.
    channels
        Channels of the output.
    background
        Of instance models: a value for each channel, which together say that a pixel belongs to no object.
    white, volume
        What of an image belongs to no class, whatever `forward` says, and what a network of volumes gets; else None.
    """

    task: Literal["semantic", "instance"]
    labels: LabelMap
    mpp: float | None
    tile_px: int
    halo_px: int
    channels: int
    background: tuple[float, ...] = ()
    white: WhiteRule | None = None
    volume: VolumeInput | None = None


class Predictor(Protocol):
    """A trained network together with all that its output means."""

    @property
    def spec(self) -> PredictorSpec:
        """Return what the network expects and gives."""
        ...

    def to(self, device: torch.device) -> None:
        """Move the network to `device`."""
        ...

    def forward(self, batch: Tensor) -> Tensor:
        """Return the dense output for a batch.

        Parameters
        ----------
        batch
            uint8 RGB (B, 3, H, W) on the predictor's device; volumes are float32 (B, 1, D, H, W), prepared already.

        Returns
        -------
        Tensor
            float32 (B, channels, H, W), or (B, channels, D, H, W): class probabilities that sum to 1, or the raw
            maps of the instance head. All may be averaged over overlapping tiles.
        """
        ...

    def transformed(self, batch: Tensor, symmetry: int) -> Tensor:
        """Return `forward` of the batch seen under one of the eight symmetries of a square, turned back.

        Parameters
        ----------
        batch
            As for `forward`; square.
        symmetry
            0 … 7; 0 is the identity. Vector maps are turned back as vectors.
        """
        ...

    def decode(self, maps: NDArray[np.float32]) -> Instances:
        """Return the objects in dense maps (channels, H, W) of an instance model.

        Decoding is local: an object depends only on maps within ``halo_px`` of it.
        """
        ...

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability, (H, W), that a pixel belongs to any object of an instance model."""
        ...


# Turns labels (H, W) int32 and what of them may be learnt from (bool) into what a loss compares with; runs in threads.
Encode = Callable[["NDArray[np.int32]", "NDArray[np.bool_]"], "dict[str, NDArray[Any]]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images and what is known about them.

    Parameters
    ----------
    images
        uint8 RGB (B, 3, H, W); of volumes float32 (B, 1, D, H, W), normalised.
    targets
        What the learner's `encode` gave for the first n images, stacked, (n, …) each; of others nothing is known.
    """

    images: Tensor
    targets: dict[str, Tensor]

    @property
    def labelled(self) -> int:
        """Return how many images, from the first, have targets."""
        return next((len(value) for value in self.targets.values()), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """How far training is: `step` updates were made so far, of `steps`."""

    step: int
    steps: int

    @property
    def progress(self) -> float:
        """Return the part of the training that has passed, 0 … 1."""
        return self.step / self.steps

    def epoch(self, epochs: int) -> int:
        """Return the number of the epoch, from 1, of a training that has so many."""
        return self.step * epochs // self.steps + 1

    def ends_epoch(self, epochs: int) -> bool:
        """Tell whether the update with this number is the last of its epoch."""
        return (self.step + 1) % max(1, self.steps // epochs) == 0


class TrainedPredictor(Predictor, Protocol):
    """A predictor that can be kept."""

    def save(self, folder: Path, *, metrics: Mapping[str, float], half: bool = False) -> None:
        """Write a checkpoint to `folder` with measured values; `half` stores weights in 16 bits."""
        ...


class Learner(Protocol):
    """One trainable stage: gives a loss; owns neither data, time, optimiser nor backward."""

    @property
    def module(self) -> nn.Module:
        """Return the module that holds every parameter and buffer of the stage."""
        ...

    def training_step(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Return scalar losses by name.

        ``loss`` is differentiated, the others are logged. The network is in training mode, the batch on its device.

        Raises
        ------
        MethodError
            If the method has no use for the targets that the batch lacks or carries.
        """
        ...

    def rate_of(self, name: str) -> float:
        """Return how much faster than the rest the parameter `name` of `module` learns."""
        ...

    def after_update(self, clock: Clock) -> None:
        """Do what follows a step of the optimiser, such as moving a teacher."""
        ...

    def predictor(self, module: nn.Module) -> TrainedPredictor:
        """Return the predictor that `module`, the learner's own or an averaged copy of it, makes."""
        ...


class DenseLearner(Learner, Protocol):
    """A learner that learns from labels of pixels."""

    @property
    def encode(self) -> Encode:
        """Return what makes targets out of labels; must not refer to the network."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """What a stage must know about its data.

    Parameters
    ----------
    name
        Name of the model.
    kind
        ``instances`` (object ids, 0 background, negative ignored) or ``classes`` (indices, 255 ignored).
    labels
        The classes of the layer.
    mpp
        Micrometres per pixel of the crops, or None where unknown.
    crop_px
        Side of the crops.
    training_data
        Fingerprint of each store, by name.
    patches, held_out
        Patches of all stores, by whose numbers batches know them; 0 where batches hold crops. Those that judge models.
    white, volume
        What of an image is white and has no label, and what a network of volumes gets; else None.
    """

    name: str
    kind: Literal["instances", "classes"]
    labels: LabelMap
    mpp: float | None
    crop_px: int
    training_data: dict[str, str]
    patches: int = 0
    held_out: tuple[int, ...] = ()
    white: WhiteRule | None = None
    volume: VolumeInput | None = None


class Stage(Protocol):
    """One step of a method: trains one learner."""

    @property
    def name(self) -> str:
        """Return a short name, used for the stage's folder where a method has several."""
        ...

    def build(self, facts: TrainingFacts) -> DenseLearner:
        """Return an untrained learner; its weights depend on torch's random state alone.

        Raises
        ------
        MethodError
            If the data do not suit the stage or its options name an unknown network or head.
        """
        ...


class Method(Protocol):
    """A recipe: options, and the stages that they make."""

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
        """Return the type of the method's options."""
        ...

    @property
    def takes_unlabelled(self) -> bool:
        """Tell whether the method can learn from images without labels, too."""
        ...

    def sees_unlabelled(self, options: Config) -> bool:
        """Tell whether it does so with these options; where it does not, such images are neither read nor told of."""
        ...

    def resolved(self, options: Config, facts: TrainingFacts) -> Config:
        """Return options in which the data have decided what the user left open; runs keep these."""
        ...

    def stages(self, options: Config) -> tuple[Stage, ...]:
        """Return the stages in order, for options of the method's own type."""
        ...

    def training(self, options: Config, *, of_volumes: bool = False) -> Mapping[str, Any]:
        """Return the method's own settings of a training, such as ``{"fit": {"lr": 0.01}}``; the user's come first."""
        ...
