"""The page about GANs: how good their images are, and pairs to look at."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from wsiseg.atomic import write_bytes
from wsiseg.progress import track
from wsiseg.synthesis.layouts import layouts
from wsiseg.synthesis.nucleus_bank import bank_of
from wsiseg.synthesis.quality import COPY, assess
from wsiseg.synthesis.sampling import rebuilt, sample
from wsiseg.synthesis.sheets import outlined, sheet, write_png
from wsiseg.tasks.pictures import png, render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from wsiseg.progress import Progress
    from wsiseg.synthesis.gan_files import Gan
    from wsiseg.synthesis.quality import Quality

    Row = list[tuple[str, NDArray[np.uint8]]]

PAGE: Final = "quality.html"
FIGURES: Final = "quality.json"
PAIRS: Final = "pairs.png"
_IMAGES: Final = 10
_SHOWN: Final = 4
# The first of the masks that no GAN was trained with.
UNSEEN: Final = 1_000_000
_ROWS: Final = (
    ("colour_error_nuclei", "Colour error in nuclei, grey levels", "low"),
    ("colour_error_background", "Colour error in background, grey levels", "low"),
    ("contrast", "Contrast of nuclei and background", "1"),
    ("adherence", "Mask adherence, Dice", "as the patch"),
    ("adherence_of_patch", "Mask adherence of the patch itself", ""),
    ("diversity", "Diversity, grey levels", "high"),
    ("reconstruction_ssim", "SSIM of the reconstruction", "1"),
    ("ssim", "SSIM of new images and the patch", "low"),
    ("likeness", "Correlation with the nearest window of the patch", "as the patch"),
    ("likeness_of_patch", "The same within the patch", ""),
    ("copies", f"Copied windows, correlation above {COPY:g}", "0"),
)


def write_quality(output: Path, gans: Sequence[Gan], *, progress: Progress) -> Path:
    """Write a page, its numbers, and for each GAN a sheet of pairs into their folder; return the page."""
    figures: dict[str, dict[str, Any]] = {}
    strips = []
    for gan in track(gans, progress, what="quality", total=len(gans), unit="GANs"):
        quality, pairs = _assessed(gan)
        figures[gan.card.patch] = {
            **asdict(quality),
            "reconstruction_error": dict(zip(map(str, gan.sides), gan.errors, strict=True)),
            "preset": gan.card.settings.preset,
            "density": gan.card.density,
            "fingerprint": gan.fingerprint,
        }
        write_png(output / gan.card.patch / PAIRS, sheet(pairs))
        strips.append((gan.card.patch, [[(title, png(pixels)) for title, pixels in row] for row in pairs]))
    page = render(
        "synth_quality.html.j2",
        name=output.resolve().name,
        figures=figures,
        rows=_ROWS,
        strips=strips,
        images=_IMAGES,
    )
    write_bytes(output / FIGURES, json.dumps(figures, indent=1, allow_nan=False).encode() + b"\n")
    write_bytes(output / PAGE, page)
    return output / PAGE


def _assessed(gan: Gan) -> tuple[Quality, list[Row]]:
    """Return how good a GAN is, and pictures of the patch beside new ones, with their masks below."""
    settings, example = gan.card.settings, gan.example
    masks = layouts(
        bank_of(example.labels),
        settings.layout,
        gan.card.density,
        range(UNSEEN, UNSEEN + _IMAGES),
        patch=gan.card.patch,
        seed=settings.seed,
    )
    images = [sample(gan, mask, seed=settings.seed, index=at) for at, mask in enumerate(masks)]
    alike = [sample(gan, masks[0], seed=settings.seed, index=at) for at in range(_IMAGES)]
    quality = assess(example.image, example.labels, images, masks, alike=alike, reconstruction=rebuilt(gan))
    shown = [(example.image, example.labels), *zip(images[:_SHOWN], masks[:_SHOWN], strict=True)]
    titles = ["patch", *(f"synthetic {at}" for at in range(1, len(shown)))]
    pictures = [(title, image) for title, (image, _) in zip(titles, shown, strict=True)]
    return quality, [pictures, [("", outlined(image, mask)) for image, mask in shown]]
