"""Networks that have been trained, ready to predict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError

from wsiseg import checkpoint
from wsiseg.errors import DataError, MethodError, PredictionError
from wsiseg.heads.registry import make_head
from wsiseg.heads.symmetry import turned, turned_back
from wsiseg.methods.base import PredictorSpec
from wsiseg.nets.devices import in_best_layout
from wsiseg.nets.factory import build_described
from wsiseg.nets.gated import GatedDeepLab

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from wsiseg.checkpoint import ModelCard
    from wsiseg.heads.base import InstanceHead, Instances


class NetPredictor:
    """One network and, for instances, one head.

    Parameters
    ----------
    card
        What the model is.
    net
        The network, from normalised images (B, 3, H, W) to raw maps; shared, not copied.
        It is put into evaluation mode.
    """

    def __init__(self, card: ModelCard, net: nn.Module) -> None:
        self.card = card
        self._net = net.eval()
        self._head = head_of(card)
        self._spec = PredictorSpec(
            task=card.task,
            labels=card.labels,
            mpp=card.mpp,
            tile_px=card.tile_px,
            halo_px=card.halo_px,
            channels=channels_of(card),
            background=() if self._head is None else self._head.background,
            white=card.white,
            volume=card.volume,
        )

    @property
    def spec(self) -> PredictorSpec:
        """Return what the network expects and gives."""
        return self._spec

    def to(self, device: torch.device) -> None:
        """Move the network to `device`."""
        in_best_layout(self._net.to(device))

    def forward(self, batch: Tensor) -> Tensor:
        """Return class probabilities or raw maps of the head, float32; see `Predictor`."""
        maps: Tensor = self._net(normalised(batch, self.card)).float()
        return maps.softmax(dim=1) if self._head is None else maps

    def transformed(self, batch: Tensor, symmetry: int) -> Tensor:
        """Return `forward` of the batch under a symmetry, turned back; see `Predictor`."""
        maps = self.forward(turned(batch, symmetry))
        return turned_back(maps, symmetry) if self._head is None else self._head.turned_back(maps, symmetry)

    def decode(self, maps: NDArray[np.float32]) -> Instances:
        """Return the objects in maps (channels, H, W); see `Predictor`."""
        return self._instance_head().decode(maps)

    def certainty(self, maps: NDArray[np.float32], found: Instances) -> NDArray[np.float32]:
        """Return how sure the head is of objects that it has found in maps, float32 (n,); see `InstanceHead`."""
        return self._instance_head().certainty(maps, found)

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability (H, W) of any object; see `Predictor`."""
        return self._instance_head().foreground(maps)

    def save(self, folder: Path, *, metrics: Mapping[str, float], half: bool = False) -> None:
        """Write a checkpoint to `folder` with measured values; `half` stores weights in 16 bits."""
        # Classes that are nowhere have no value, and JSON has no word for that.
        known = {name: value for name, value in metrics.items() if not math.isnan(value)}
        card = self.card.model_copy(update={"metrics": known})
        checkpoint.save(folder, card, self._net.state_dict(), half=half)

    def _instance_head(self) -> InstanceHead:
        if self._head is None:
            raise PredictionError("a semantic model finds classes of pixels, not objects", where=self.card.name)
        return self._head


def normalised(batch: Tensor, card: ModelCard) -> Tensor:
    """Return images uint8 (B, 3, H, W) as a network wants them, float32; volumes are as it wants them already."""
    if card.volume is not None:
        return batch
    mean = torch.tensor(card.normalisation.mean, device=batch.device).view(3, 1, 1) * 255
    std = torch.tensor(card.normalisation.std, device=batch.device).view(3, 1, 1) * 255
    return (batch.float() - mean) / std


def channels_of(card: ModelCard) -> int:
    """Return the channels of the network's output."""
    head = head_of(card)
    return len(card.labels) if head is None else head.channels


def head_of(card: ModelCard) -> InstanceHead | None:
    """Return the head of an instance model, None for a semantic one.

    Raises
    ------
    MethodError
        If there is no such head or its options are not its own.
    """
    return None if card.head is None else make_head(card.head.kind, **card.head.options)


def build_network(card: ModelCard) -> nn.Module:
    """Return the untrained network that a card describes."""
    return build_described(card.net, 3 if card.volume is None else 1, channels_of(card))


def _rebuilt(card: ModelCard) -> nn.Module:
    # Weights follow from the checkpoint, so there is nothing to download.
    net = {**card.net, "encoder_weights": None} if "encoder_weights" in card.net else card.net
    return build_network(card.model_copy(update={"net": net}))


def load_predictor(source: Path | str, *, device: torch.device | str = "cpu", has_gate: bool = True) -> NetPredictor:
    """Return a trained predictor on a device.

    Parameters
    ----------
    source
        Name of a shipped model, folder of a model, or folder of a training run.
    device
        Where it is to compute.
    has_gate
        Keep the gate of a model that has one.

    Raises
    ------
    DataError
        If there is no such model, or its weights do not fit its card.
    """
    card, net = _loaded(source)
    if isinstance(net, GatedDeepLab) and not has_gate:
        net.classifier = None
    predictor = NetPredictor(card, net)
    predictor.to(torch.device(device))
    return predictor


def load_network(source: Path | str) -> nn.Module:
    """Return the network of a trained model, on the CPU and in evaluation mode; see `load_predictor`."""
    _, net = _loaded(source)
    return net.eval()


def _loaded(source: Path | str) -> tuple[ModelCard, nn.Module]:
    read = checkpoint.read(source)
    try:
        net = _rebuilt(read.card)
        net.load_state_dict(read.weights)
        head_of(read.card)
    except (RuntimeError, ValidationError, MethodError) as error:
        first = str(error).splitlines()[0].rstrip(":")
        raise DataError(
            f"the weights or the head do not fit the card ({first})",
            where=read.folder,
            mend="Copy or train the model again",
        ) from error
    return read.card, net
