"""The job behind ``wsiseg models``: which models there are, and what is known of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsiseg import checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.checkpoint import ModelCard


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """A model on disk.

    Parameters
    ----------
    name
        What to pass to ``--model``.
    folder
        Where it lies.
    card
        What it is.
    size_bytes
        Size of card and weights.
    fingerprint
        Hash of card and weights.
    """

    name: str
    folder: Path
    card: ModelCard
    size_bytes: int
    fingerprint: str


def list_models() -> list[ModelReport]:
    """Return the models that come with the package."""
    return [show_model(name) for name in checkpoint.shipped()]


def show_model(source: str) -> ModelReport:
    """Return what is known of a model, by name or path.

    Raises
    ------
    DataError
        If there is no such model, or it cannot be used.
    """
    folder = checkpoint.locate(source)
    card = checkpoint.read_card(folder)
    return ModelReport(
        name=source,
        folder=folder,
        card=card,
        fingerprint=checkpoint.fingerprint(folder),
        size_bytes=sum((folder / name).stat().st_size for name in (checkpoint.CARD, checkpoint.WEIGHTS)),
    )
