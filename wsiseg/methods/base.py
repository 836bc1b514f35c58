"""What training and prediction ask of a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.heads.base import Instances
    from wsiseg.labels import LabelMap


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorSpec:
    """What a trained network expects and gives.

    Parameters
    ----------
    task
        ``semantic``: `forward` gives class probabilities. ``instance``: it gives the dense
        maps of an instance head, which `decode` turns into objects.
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
    """

    task: Literal["semantic", "instance"]
    labels: LabelMap
    mpp: float | None
    tile_px: int
    halo_px: int
    channels: int


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
            uint8 RGB (B, 3, H, W) on the predictor's device; normalised inside.

        Returns
        -------
        Tensor
            float32 (B, channels, H, W): class probabilities that sum to 1, or the raw maps of
            the instance head. All may be averaged over overlapping tiles.
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
