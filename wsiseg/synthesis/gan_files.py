"""The GAN of a patch on disk.

A folder with ``gan.json`` for people, ``patch.safetensors`` (the patch and its labels), ``scale-0.safetensors`` … for
scales that are trained, ``state.safetensors`` for the one in training, ``log.csv``, and to look at ``sheets/`` and
``pairs.png``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from wsiseg.atomic import write_bytes
from wsiseg.errors import DataError
from wsiseg.nets.csingan import Generator
from wsiseg.synthesis.gan_card import CARD, check_alike, is_begun, read_card
from wsiseg.synthesis.pyramid import Scale, as_images, colours_of, resized, sides

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.synthesis.gan_card import GanCard
    from wsiseg.synthesis.settings import GanSettings

PATCH: Final = "patch.safetensors"
STATE: Final = "state.safetensors"
LOG: Final = "log.csv"
SHEETS: Final = "sheets"
PAIRS: Final = "pairs.png"
# Steps whose mean error says how well a scale reconstructs the patch.
_LAST: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """The patch that a GAN learns from.

    Parameters
    ----------
    image
        uint8 RGB (S, S, 3).
    labels
        int32 (S, S), 0 = background, an id for each nucleus.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]

    @property
    def fingerprint(self) -> str:
        """Return the hash of both."""
        digest = hashlib.blake2b(self.image.tobytes(), digest_size=16)
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    def sides(self, settings: GanSettings) -> tuple[int, ...]:
        """Return the sides of the scales."""
        largest = self.image.shape[0]
        return sides(settings.smallest_px * largest / settings.largest_px, largest, len(settings.widths))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gan:
    """A trained GAN.

    Parameters
    ----------
    card, example
        What it was made from.
    scales
        From the lowest.
    star
        (1, 3, s, s), the noise at the lowest scale from which it reconstructs the patch.
    errors
        Squared error of the reconstruction at each scale, the mean of its last steps.
    fingerprint
        Hash of the weights.
    """

    card: GanCard
    example: Example
    scales: tuple[Scale, ...]
    star: Tensor
    errors: tuple[float, ...]
    fingerprint: str

    @property
    def sides(self) -> tuple[int, ...]:
        """Return the sides of its scales."""
        return tuple(scale.side_px for scale in self.scales)


def begin(folder: Path, card: GanCard, example: Example) -> None:
    """Write what a GAN is made from into its folder, or see that it is what was begun there.

    Raises
    ------
    DataError
        If something else was.
    """
    if is_begun(folder):
        check_alike(folder, card)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / PATCH, {"image": torch.tensor(example.image), "labels": torch.tensor(example.labels)})
    write_bytes(folder / CARD, json.dumps(card.model_dump(mode="json"), indent=2).encode() + b"\n")


def is_foreign(folder: Path) -> bool:
    """Tell whether something is there that is neither a GAN nor what is left of one."""
    if is_begun(folder) or not folder.exists():
        return False
    return not folder.is_dir() or not all(map(_is_own, folder.iterdir()))


def remove(folder: Path) -> None:
    """Remove a GAN, or what is left of one; who has put something beside its files keeps that."""
    for path in folder.glob("*"):
        if path.name == SHEETS:
            shutil.rmtree(path, ignore_errors=True)
        elif _is_own(path):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _is_own(path: Path) -> bool:
    # Files of the system, and those that a kill left half written, are hidden.
    own = (CARD, PATCH, STATE, LOG, SHEETS, PAIRS, "scale-*.safetensors", ".*")
    return any(fnmatch(path.name, name) for name in own)


def is_trained(folder: Path) -> bool:
    """Tell whether the GAN in a folder is trained to its end."""
    return all(scale_file(folder, number).exists() for number in range(len(read_card(folder).settings.widths)))


def read_gan(folder: Path, device: torch.device) -> Gan:
    """Return the trained GAN in a folder, on a device.

    Raises
    ------
    DataError
        If there is none, it is damaged, or its training has not come to its end.
    """
    card = read_card(folder)
    patch = read_tensors(folder / PATCH)
    example = Example(image=patch["image"].numpy(), labels=patch["labels"].numpy())
    image = as_images(example.image[None]).to(device)
    scales, errors = [], []
    digest, star = hashlib.blake2b(digest_size=16), torch.empty(0)
    for number, side_px in enumerate(example.sides(card.settings)):
        file = scale_file(folder, number)
        if not file.exists():
            raise DataError("the GAN is not trained to its end", where=folder, mend="Run wsiseg synth fit again")
        tensors = read_tensors(file)
        star = tensors.get("star", star)
        scales.append(as_scale(tensors, card.settings.widths[number], card.settings, resized(image, side_px)))
        errors.append(float(tensors["log"][-_LAST:, 0].mean()))
        digest.update(file.read_bytes())
    return Gan(
        card=card,
        example=example,
        scales=tuple(scales),
        star=star.to(device),
        errors=tuple(errors),
        fingerprint=digest.hexdigest(),
    )


def scale_file(folder: Path, number: int) -> Path:
    """Return the file of a scale."""
    return folder / f"scale-{number}.safetensors"


def as_scale(tensors: Mapping[str, Tensor], width: int, settings: GanSettings, image: Tensor) -> Scale:
    """Return a trained scale, frozen, from the tensors of its file and the patch at its size, (1, 3, s, s)."""
    generator = Generator(width, norm=settings.norm).to(image.device)
    generator.load_state_dict(part_of(tensors, "generator"))
    generator.eval().requires_grad_(requires_grad=False)
    return Scale(
        generator=generator,
        side_px=image.shape[-1],
        amplitude=float(tensors["amplitude"]),
        colours=colours_of(image),
    )


def part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a part's name, without it."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def named(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under a part's name."""
    return {f"{name}.{key}": value for key, value in tensors.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, whole or not at all."""
    # Copies: tensors that share memory cannot be stored.
    write_bytes(path, save({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file, on the CPU.

    Raises
    ------
    DataError
        If it is damaged or gone.
    """
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"damaged ({error})", where=path, mend="Pass --overwrite to train from the start") from error
