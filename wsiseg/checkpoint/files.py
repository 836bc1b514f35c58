"""Trained models on disk: a folder with `model.safetensors` and a `model.json` that people can read.

Nothing here runs code from a file: weights are safetensors.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from wsiseg.atomic import write_bytes
from wsiseg.checkpoint.card import SCHEMA, ModelCard
from wsiseg.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

WEIGHTS: Final = "model.safetensors"
CARD: Final = "model.json"
SHIPPED: Final = Path(__file__).parent.parent / "weights"
PICKLES: Final = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model as read from disk.

    Parameters
    ----------
    card
        What the model is.
    weights
        Tensors by name, float32, on the CPU.
    folder
        Where it was read from.
    fingerprint
        Hash of the weights and of what they mean: equal for models that do the same, wherever they lie.
    """

    card: ModelCard
    weights: dict[str, Tensor]
    folder: Path
    fingerprint: str


def save(folder: Path, card: ModelCard, weights: Mapping[str, Tensor], *, half: bool = False) -> None:
    """Write a model to `folder`.

    Each file is written whole or not at all, weights first, so that at any moment
    the folder holds a model that can be loaded.

    Parameters
    ----------
    folder
        Made if missing; a model inside is replaced.
    card
        What the model is.
    weights
        Tensors by name.
    half
        Store floats in 16 bits: half the size; they are float32 again when read.
    """
    import torch
    from safetensors.torch import save as serialise

    tensors = {}
    for name in sorted(weights):
        tensor = weights[name].detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float16 if half else torch.float32)
        # A copy: tensors that share memory cannot be stored.
        tensors[name] = tensor.clone(memory_format=torch.contiguous_format)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / WEIGHTS, serialise(tensors))
    write_bytes(folder / CARD, json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False).encode() + b"\n")


def read(source: Path | str) -> Checkpoint:
    """Return the model at a path or of a name.

    Raises
    ------
    DataError
        If there is no such model, if it is not in our format, or if it is damaged.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = locate(source)
    card = read_card(folder)
    data = _read_bytes(folder / WEIGHTS)
    try:
        weights = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        what = "this is a pickle, whatever its name says" if _looks_pickled(data) else f"damaged weights ({error})"
        raise DataError(what, where=folder / WEIGHTS, mend="Copy or train the model again") from error
    weights = {name: value.to(torch.float32) if value.is_floating_point() else value for name, value in weights.items()}
    return Checkpoint(card=card, weights=weights, folder=folder, fingerprint=fingerprint(folder))


def read_card(source: Path | str) -> ModelCard:
    """Return what a model is, without its weights.

    Raises
    ------
    DataError
        If there is no such model or its card cannot be used.
    """
    folder = locate(source)
    path = folder / CARD
    try:
        content = json.loads(_read_bytes(path))
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", where=path, mend="Copy or train the model again") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA:
        raise DataError(
            f"the model has schema version {version!r}, this wsiseg reads {SCHEMA}",
            where=path,
            mend="Use the version of wsiseg that wrote it, or train it again",
        )
    try:
        return ModelCard.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{key or 'card'}: {first['msg'].lower()}", where=path) from error


def fingerprint(source: Path | str) -> str:
    """Return a hash of a model's weights and of what its card says about their use, whatever its name or version."""
    folder = locate(source)
    # Without defaults: fields that later versions add leave the hash as it is.
    prose = {"name", "description", "training_data", "metrics", "licence", "version"}
    meaning = read_card(folder).model_dump(mode="json", exclude=prose, exclude_defaults=True)
    digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
    digest.update(_read_bytes(folder / WEIGHTS))
    return digest.hexdigest()[:32]


def shipped() -> tuple[str, ...]:
    """Return the names of the models that come with the package."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD}")))


def locate(source: Path | str) -> Path:
    """Return the folder of the model that `source` means.

    Parameters
    ----------
    source
        Name of a shipped model, folder of a model, or folder of a training run, whose best model is
        meant (its last, if none was validated).

    Raises
    ------
    DataError
        If there is none, or if what is there could run code when loaded.
    """
    if str(source) in shipped():
        return SHIPPED / str(source)
    path = Path(source)
    if path.is_file() and path.name in (CARD, WEIGHTS):
        path = path.parent
    if path.is_file():
        raise DataError(
            "a pickled model can run code when it is loaded; wsiseg does not load it"
            if path.suffix.lower() in PICKLES
            else "a model is a folder, and this is a file",
            where=path,
            mend=f"Pass a folder with {WEIGHTS} and {CARD}",
        )
    if not path.is_dir():
        near = difflib.get_close_matches(str(source), shipped(), n=1)
        names = ", ".join(shipped()) or "none"
        raise DataError(
            "there is no such model",
            where=str(source),
            mend=f"Did you mean {near[0]}?" if near else f"Pass a folder, or one of the shipped models: {names}",
        )
    if not (path / CARD).exists():
        runs = [path / name for name in ("best", "last") if (path / name / CARD).exists()]
        path = runs[0] if runs else path
    pickles = sorted(file.name for file in path.iterdir() if file.suffix.lower() in PICKLES)
    if pickles:
        raise DataError(
            f"the model has a pickle inside ({pickles[0]}), which can run code when it is loaded",
            where=path,
            mend=f"Keep only {WEIGHTS} and {CARD} in the folder, if you trust those",
        )
    if not (path / CARD).exists():
        raise DataError(f"this folder has no {CARD}, so it holds no model", where=path)
    return path


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"the model lacks {path.name}", where=path.parent, mend="Copy or train it again") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error


def _looks_pickled(data: bytes) -> bool:
    # A pickle of protocol 2 or later, or the zip archive that torch.save writes around one.
    return data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05")
