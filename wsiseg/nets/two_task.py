"""Networks for one task taught a second one, and given the dropout that a measure of doubt needs.

Shapes: B images, C classes, K level sets, H × W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, JsonValue
from torch import nn

from wsiseg.config import Config
from wsiseg.errors import MethodError
from wsiseg.nets.dual_task import DualTaskNet

if TYPE_CHECKING:
    from torch import Tensor

TWO_TASK: Final = "two-task"


class TwoTaskSpec(Config):
    """A network of one output whose last maps are level sets.

    Parameters
    ----------
    arch
        ``two-task``.
    net
        The network; see `NetSpec`. It has dropout of its own, or is given some.
    level_sets
        Maps that are level sets.
    joined
        They are part of the output; see `DualTaskSpec`.
    """

    arch: Literal["two-task"] = TWO_TASK
    net: dict[str, JsonValue]
    level_sets: int = Field(default=1, gt=0)
    joined: bool = False


class TwoTaskNet(DualTaskNet):
    """A network whose output is parted into logits and level sets.

    Its last layer makes maps independently of each other, so that it is two heads.

    Parameters
    ----------
    net
        From images (B, 3, H, W) to maps (B, C + K, H, W).
    maps
        C + K.
    level_sets
        K.
    joined
        See `DualTaskSpec`.

    Raises
    ------
    MethodError
        If the network has no dropout: what it says of an image would always be the same.
    """

    def __init__(self, net: nn.Module, maps: int, *, level_sets: int, joined: bool) -> None:
        super().__init__(_Maps(0, maps - level_sets), _Maps(maps - level_sets, maps), joined=joined)
        if not any(isinstance(layer, nn.Dropout | nn.Dropout2d) and layer.p > 0 for layer in net.modules()):
            raise MethodError(
                "this network has no dropout, so that how sure it is cannot be measured",
                mend="Pass --set options.net.dropout=0.5, or take another network, such as dual-unet",
            )
        if hasattr(net, "stride"):
            self.stride = net.stride
        self.net = net

    def features(self, x: Tensor) -> Tensor:
        """Return all maps (B, C + K, H, W)."""
        y: Tensor = self.net(x)
        return y


class DroppingNet(nn.Module):
    """A network of segmentation_models_pytorch with dropout of channels, under its own names of weights.

    Parameters
    ----------
    net
        Taken apart.
    dropout
        Part of the channels that are dropped of its deepest features, and of those that its output is made of.
    """

    def __init__(self, net: nn.Module, dropout: float) -> None:
        super().__init__()
        self.encoder = net.get_submodule("encoder")
        self.decoder = net.get_submodule("decoder")
        self.segmentation_head = net.get_submodule("segmentation_head")
        self.drop = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (B, maps, H, W) for images (B, 3, H, W)."""
        *shallow, deep = self.encoder(x)
        y: Tensor = self.segmentation_head(self.drop(self.decoder([*shallow, self.drop(deep)])))
        return y


class _Maps(nn.Module):
    """Some of the maps of an output."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first, self.last = first, last

    def forward(self, maps: Tensor) -> Tensor:
        return maps[:, self.first : self.last]
