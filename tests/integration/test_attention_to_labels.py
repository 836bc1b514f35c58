"""Classes of patches tell a tiny network where two textures are; wrong labels of pixels hardly mislead it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.checkpoint import ModelCard, Normalisation
from wsiseg.config import load
from wsiseg.labels import LabelMap
from wsiseg.methods.accumulation import AttentionAccumulator
from wsiseg.methods.base import Batch, Clock
from wsiseg.methods.craanet_classify import AccumulatingNet, ClassifyLearner
from wsiseg.methods.craanet_label import AttentionLabeller
from wsiseg.methods.craanet_options import CraanetOptions
from wsiseg.methods.craanet_segment import ComparingNet, PixelSpace, SegmentLearner
from wsiseg.nets.attending import AttendingClassifier, AttentionMaps
from wsiseg.nets.deeplab import FEATURES, Decoded
from wsiseg.nets.taps import TapClassifier
from wsiseg.ramps import poly

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from wsiseg.methods.base import Learner
    from wsiseg.nets.taps import Taps

SIDE = 32
EPOCHS = 40
STEPS = 120
CARD = ModelCard(
    name="toy",
    task="semantic",
    labels=LabelMap.from_names(("striped", "blotched")),
    tile_px=SIDE,
    halo_px=0,
    normalisation=Normalisation.none(),
    net={"arch": "toy"},
)


class Trunk(TapClassifier):
    """Three convolutions."""

    tap_names = ("one", "two", "three")
    stride = 4

    def __init__(self) -> None:
        super().__init__(32, 2)
        # Eight patches are few, and dropout would only slow things down.
        self.dropout7 = nn.Dropout2d(0)
        self.layers = trunk(16, 32, 32, strides=(2, 2, 1))

    def taps(self, images: Tensor) -> Taps:
        deep: Tensor = self.layers(images)
        return deep, deep, deep

    def early_parameters(self) -> Iterable[nn.Parameter]:
        return ()


class Segmenter(nn.Module):
    """Three convolutions at half the resolution and a classifier of pixels, with the outside of DeepLabV3+."""

    def __init__(self) -> None:
        super().__init__()
        # Narrow: wrong labels of eight patches hardly mislead a wide network.
        self.layers = nn.Sequential(trunk(16, 16, 16, strides=(1, 2, 1)), nn.Conv2d(16, FEATURES, 1))
        self.classifier = nn.Conv2d(FEATURES, 2, 1)

    def decoded(self, images: Tensor) -> Decoded:
        features = self.layers(images)
        coarse = self.classifier(features)
        logits = functional.interpolate(coarse, size=images.shape[-2:], mode="bilinear")
        return Decoded(features=features, coarse=coarse, logits=logits)


class Alone(nn.Module):
    """A segmentation network without a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.segmenter = Segmenter()


def textures() -> tuple[Tensor, Tensor]:
    """Return eight patches, uint8 (8, 3, H, W), and their classes (8, H, W): 0 is striped, 1 is blotched."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    borders = (0, SIDE, 0, SIDE, 10, 14, 18, 22)
    labels = np.stack([(x if n % 2 else y) >= border for n, border in enumerate(borders)]).astype(np.int64)
    striped, blotched = (0.5 + 0.3 * (pattern % 2) for pattern in ((x + y) // 2, x // 4 + y // 4))
    images = np.where(labels, blotched, striped)[:, None] + rng.normal(0, 0.08, (8, 3, SIDE, SIDE))
    images[:, 0] += 0.05 * labels
    return torch.tensor(255 * images.clip(0, 1)).to(torch.uint8), torch.tensor(labels)


def trunk(*widths: int, strides: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in zip((3, *widths[:-1]), widths, strides, strict=True):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def mean_iou(found: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    hits = [((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in (0, 1)]
    return float(np.mean(hits))


def teach(learner: Learner, batch: Batch, *, steps: int, power: float) -> None:
    """Show one batch again and again to a learner."""
    optimiser = torch.optim.Adam(learner.module.parameters(), lr=1e-2)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-2 * poly(step, steps=steps, power=power)
        optimiser.zero_grad()
        torch.autograd.backward(learner.training_step(batch, Clock(step=step, steps=steps))["loss"])
        optimiser.step()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_attention_finds_the_textures(seed: int) -> None:
    images, truth = textures()
    present = torch.stack([(truth == label).flatten(1).any(dim=1) for label in (0, 1)], dim=1)
    targets = {"present": present.float(), "index": torch.arange(8), "symmetry": torch.zeros(8, dtype=torch.int64)}
    options = load(CraanetOptions, options={"numbers": {"classify": {"epochs": EPOCHS}}})
    torch.manual_seed(seed)
    net = AttentionMaps(AttendingClassifier(Trunk(), 2), threshold=0.25)
    accumulator = AttentionAccumulator(8, 2, (8, 8), options.accumulation)
    learner = ClassifyLearner(CARD, AccumulatingNet(net, accumulator), options)
    teach(learner, Batch(images=images, targets=targets), steps=EPOCHS, power=0)

    made = AttentionLabeller(net, accumulator, options).label(images, present, None, indices=np.arange(8))
    labels, reliable = (one.labels.numpy() for one in made.values())
    found = net.classifier(images / 255)

    assert torch.equal(found > 0, present)
    is_reliable = reliable < 2
    assert mean_iou(labels, truth.numpy()) > 0.7
    assert (reliable == truth.numpy())[is_reliable].mean() > 0.85


@pytest.mark.slow
def test_energy_and_contrast_make_up_for_wrong_labels() -> None:
    gains = [learn(seed, is_guarded=True) - learn(seed, is_guarded=False) for seed in range(3)]

    assert np.mean(gains) > 0.03


def learn(seed: int, *, is_guarded: bool) -> float:
    """Return how well a network does that learnt from labels of which 20 % are wrong."""
    images, truth = textures()
    # Wrong in blocks, as labels from coarse maps are; single wrong pixels hardly disturb a convolution.
    wrong = (torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(seed)) < 0.2).repeat_interleave(4, dim=1)
    labels = torch.where(wrong.repeat_interleave(4, dim=2), 1 - truth, truth)
    targets = {"complete": labels, "reliable": labels, "present": torch.ones(8, 2)}
    # Contrast needs a network that has learnt something; this one has after some 60 steps, whatever the seed.
    guards = {
        "energy": {"sigma_px": 14, "scale": 0.5},
        "contrast": {"start": 0.5, "channels": 16, "max_samples": 256, "max_views": 50},
    }
    options = load(CraanetOptions, options=guards if is_guarded else {name: {"weight": 0} for name in guards})
    torch.manual_seed(seed)
    net = Alone()
    space = PixelSpace(2, options.contrast) if is_guarded else None
    # It has the parts of a pair that learning needs.
    module = ComparingNet(net, space)  # type: ignore[arg-type]
    learner = SegmentLearner(CARD, module, options, ("complete", "reliable"))
    teach(learner, Batch(images=images, targets=targets), steps=STEPS, power=0.9)
    with torch.no_grad():
        found = net.segmenter.decoded(images / 255).logits.argmax(dim=1)
    return mean_iou(found.numpy(), truth.numpy())
