"""Trained models: what they are, and how they lie on disk."""

from wsiseg.checkpoint.card import HeadSpec, ModelCard, Normalisation
from wsiseg.checkpoint.files import (
    CARD,
    WEIGHTS,
    Checkpoint,
    fingerprint,
    locate,
    read,
    read_card,
    save,
    shipped,
)

__all__ = [
    "CARD",
    "WEIGHTS",
    "Checkpoint",
    "HeadSpec",
    "ModelCard",
    "Normalisation",
    "fingerprint",
    "locate",
    "read",
    "read_card",
    "save",
    "shipped",
]
