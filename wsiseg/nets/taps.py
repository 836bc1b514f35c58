"""Image classifiers that show what they saw on the way: three layers of features beside the class logits.

Shapes: B images, C classes, D channels, H × W pixels, h × w positions of a layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from torch import Tensor, nn
from torch.nn import functional

from wsiseg.nets.dropout_attention import attention

if TYPE_CHECKING:
    from collections.abc import Iterable

Taps = tuple[Tensor, Tensor, Tensor]


class TapClassifier(nn.Module, ABC):
    """A trunk of convolutions, the mean over all positions, and one linear classifier without bias.

    Parameters
    ----------
    channels
        Of the deepest tap, which is what is classified.
    num_classes
        Classes that an image may show, any number of them at once.

    References
    ----------
    .. [1] Han et al., "Multi-Layer Pseudo-Supervision for Histopathology Tissue Semantic
       Segmentation using Patch-level Classification Labels", Medical Image Analysis 2022.
    """

    tap_names: tuple[str, str, str]
    stride: int

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.dropout7 = nn.Dropout2d(0.5)
        self.fc8 = nn.Conv2d(channels, num_classes, 1, bias=False)
        nn.init.xavier_uniform_(self.fc8.weight)
        self.is_frozen = False

    @abstractmethod
    def taps(self, images: Tensor) -> Taps:
        """Return the features (B, D, h, w) of three layers, shallow to deep, for images (B, 3, H, W) within 0 … 1."""

    @abstractmethod
    def early_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters of the first layers, down to half the resolution."""

    def forward(self, images: Tensor, *, mu: float | None = None) -> Tensor:
        """Return the logits (B, C) of the classes in images (B, 3, H, W) within 0 … 1.

        Parameters
        ----------
        images
            float.
        mu
            In training, part of its peak above which a class's activation is switched off;
            None switches nothing off. Without meaning in evaluation.
        """
        return self.attended(images, mu=mu)[0]

    def attended(self, images: Tensor, *, mu: float | None) -> tuple[Tensor, Tensor | None]:
        """Return the logits, and the dropout attention (B, 1, h, w) behind them; see `forward`.

        The attention has no gradient here; it is None where nothing is switched off.
        """
        deepest = self.taps(images)[-1]
        if not self.training or mu is None:
            return self._classified(deepest), None
        weights = attention(deepest, self.fc8.weight, mu)
        return self._classified(weights * deepest), weights.detach()

    def tapped(self, images: Tensor) -> tuple[Taps, Tensor]:
        """Return the three taps and the logits that follow from them; see `taps` and `forward`."""
        taps = self.taps(images)
        return taps, self._classified(taps[-1])

    def freeze(self) -> None:
        """Hold batch normalisation and the first layers as they are.

        Meant for weights that were trained before: with random ones such layers would hold the
        rest up. Batch normalisation then uses its running averages in training, too.
        """
        self.is_frozen = True
        self.train(self.training)
        for layer in self._norms():
            layer.requires_grad_(requires_grad=False)
        for parameter in self.early_parameters():
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - the signature of torch
        """Switch between training and evaluation; frozen layers stay in evaluation."""
        super().train(mode)
        if self.is_frozen:
            for norm in self._norms():
                norm.eval()
        return self

    def _classified(self, deepest: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(self.dropout7(deepest), 1)
        logits: Tensor = self.fc8(pooled)
        return logits.flatten(1)

    def _norms(self) -> Iterable[nn.Module]:
        return (layer for layer in self.modules() if isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm))
