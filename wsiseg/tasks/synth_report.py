"""The page about GANs: how good their images are, and pairs to look at."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.progress import track
from wsiseg.synthesis.gan_files import PAIRS, read_gan
from wsiseg.synthesis.layouts import layouts
from wsiseg.synthesis.nucleus_bank import bank_of
from wsiseg.synthesis.quality import COPY, Quality, assess, doubt, strain
from wsiseg.synthesis.sampling import rebuilt, sample
from wsiseg.synthesis.sheets import outlined, sheet, write_png
from wsiseg.tasks.pictures import encoded, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from wsiseg.progress import Progress
    from wsiseg.synthesis.gan_files import Gan

    Row = list[tuple[str, NDArray[np.uint8]]]

logger = logging.getLogger(__name__)

PAGE: Final = "quality.html"
FIGURES: Final = "quality.json"
_IMAGES: Final = 10
_SHOWN: Final = 4
# GANs that are told of one by one.
_TOLD: Final = 10
_MEASURED: Final = {field.name for field in fields(Quality)}
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


def write_quality(
    output: Path, folders: Sequence[Path], device: torch.device, *, progress: Progress
) -> tuple[dict[str, Quality], bool]:
    """Write a page about GANs and its numbers into a folder, and a sheet of pairs into that of each GAN.

    What was measured of the same weights before is not measured again. Return how good each GAN is, by its patch, and
    whether there was anything to do.

    Parameters
    ----------
    output
        Gets the page and the numbers.
    folders
        Of trained GANs.
    device
        Where they sample.
    progress
        Told about GANs.
    """
    before, figures, sheets = _figures(output / FIGURES), {}, []
    for folder in track(folders, progress, what="quality", total=len(folders), unit="GANs"):
        gan = read_gan(folder, device)
        name, pairs = gan.card.patch, folder / PAIRS
        figures[name] = before.get(name, {})
        is_known = figures[name].keys() >= _MEASURED and figures[name].get("fingerprint") == gan.fingerprint
        if not is_known or not pairs.exists():
            quality, shown = _assessed(gan)
            write_png(pairs, sheet(shown))
            figures[name] = {
                # JSON has no NaN.
                **{key: None if math.isnan(value) else value for key, value in asdict(quality).items()},
                "reconstruction_error": dict(zip(map(str, gan.sides), gan.errors, strict=True)),
                "preset": gan.card.settings.preset,
                "density": gan.card.density,
                "fingerprint": gan.fingerprint,
            }
        sheets.append((name, encoded(pairs.read_bytes())))
    found = {name: _quality(own) for name, own in figures.items()}
    if figures == before and (output / PAGE).exists():
        return found, False
    page = render(
        "synth_quality.html.j2",
        name=output.resolve().name,
        figures=figures,
        doubts={name: doubt(quality) for name, quality in found.items()},
        rows=_ROWS,
        sheets=sheets,
        images=_IMAGES,
    )
    write_bytes(output / FIGURES, json.dumps(figures, indent=1, allow_nan=False).encode() + b"\n")
    write_bytes(output / PAGE, page)
    return found, True


def told(found: Mapping[str, Quality]) -> list[str]:
    """Return a line for each GAN on how good it is; where they are many, of their medians and of the worst."""
    if len(found) <= _TOLD:
        return [f"{name}: {quality}" for name, quality in found.items()]
    worst = max(found, key=lambda name: strain(found[name]))
    return [f"medians: {_medians(list(found.values()))}", f"the worst, {worst}: {found[worst]}"]


def warn_of(found: Mapping[str, Quality], page: Path) -> None:
    """Warn of GANs that paint too unlike their patches, the worst first, if there are any.

    Parameters
    ----------
    found
        How good each GAN is.
    page
        What shows their images.
    """
    beyond = sorted((name for name in found if doubt(found[name])), key=lambda name: -strain(found[name]))
    named = [f"{name} ({doubt(found[name])})" for name in beyond[:_TOLD]]
    if len(beyond) > _TOLD:
        named.append(f"{len(beyond) - _TOLD} more")
    if beyond:
        logger.warning(
            "%d of %d GANs paint unlike their patches: %s. Look at %s; train them longer (--set steps or another "
            "--preset, with --overwrite), or remove their folders",
            len(beyond),
            len(found),
            "; ".join(named),
            page,
        )


def _medians(found: Sequence[Quality]) -> Quality:
    """Return the median of each number, of what could be measured."""
    medians = {}
    for name in _MEASURED:
        known = [value for one in found if not math.isnan(value := getattr(one, name))]
        medians[name] = float(np.median(known)) if known else math.nan
    return Quality(**medians)


def _quality(figures: Mapping[str, Any]) -> Quality:  # Any: JSON
    return Quality(**{name: math.nan if figures[name] is None else figures[name] for name in _MEASURED})


def _figures(path: Path) -> dict[str, dict[str, Any]]:  # Any: JSON
    """Return the numbers of an earlier run, if there are any."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
