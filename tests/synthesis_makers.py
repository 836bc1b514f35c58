"""A small patch of dark nuclei on pink, and the settings of a GAN that is trained in a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.nuclei_makers import ellipses
from wsiseg.labels import LabelMap
from wsiseg.synthesis.gan_card import GanCard
from wsiseg.synthesis.gan_files import Example
from wsiseg.synthesis.quality import Quality
from wsiseg.synthesis.settings import GanSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

# As GANs of the presets smoke and cpu are.
USUAL = Quality(
    colour_error_nuclei=7,
    colour_error_background=2,
    contrast=0.93,
    adherence=0.825,
    adherence_of_patch=0.835,
    diversity=14,
    reconstruction_ssim=0.45,
    ssim=0.2,
    likeness=0.5,
    likeness_of_patch=0.45,
    copies=0.04,
)


def stained(labels: NDArray[np.integer], *, seed: int = 0) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) in which nuclei are purple and the rest is pink, with grain."""
    grain = np.random.default_rng(seed).integers(-12, 13, (*labels.shape, 1))
    image = np.where(labels[..., None] > 0, [90, 50, 130], [225, 165, 200]) + grain
    return image.clip(0, 255).astype(np.uint8)


def example_of(side: int = 32) -> Example:
    """Return a patch with nuclei."""
    labels = ellipses(6, side, seed=1, radii=(3.2, 4.5))
    return Example(image=stained(labels), labels=labels)


def tiny(**changes: Any) -> GanSettings:  # noqa: ANN401 - fields of the settings
    """Return settings of three scales, 16 to 32 px, and four steps, but for `changes`."""
    usual = {
        "smallest_px": 16,
        "largest_px": 32,
        "widths": (4, 4, 6),
        "steps": 4,
        "critic_steps": 1,
        "masks": 3,
    }
    return GanSettings.model_validate({**usual, **changes})


def card_of(settings: GanSettings) -> GanCard:
    """Return what a GAN of the patch is made from."""
    return GanCard(
        patch="a",
        parent="a",
        group="a",
        position=(0, 0),
        mpp=0.5,
        layer="labels",
        labels=LabelMap.from_names(("background", "nucleus")),
        density="normal",
        source=example_of().fingerprint,
        settings=settings,
    )
