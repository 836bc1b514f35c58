"""Models so small that they run in a test, with random but fixed weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from wsiseg.checkpoint import HeadSpec, ModelCard
from wsiseg.labels import LabelMap
from wsiseg.methods.predictor import NetPredictor, build_network

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.white import WhiteRule


def save_tiny_model(
    folder: Path,
    *,
    task: Literal["semantic", "instance"] = "instance",
    tile_px: int = 128,
    mpp: float | None = 0.5,
    white: WhiteRule | None = None,
) -> Path:
    """Write a model of a few thousand weights, without a background where it has a rule, and return its folder."""
    torch.manual_seed(1)
    other = "background" if white is None else "stroma"
    card = ModelCard(
        name="tiny",
        task=task,
        labels=LabelMap.from_names((other, "nucleus") if task == "instance" else (other, "dark", "pale")),
        mpp=mpp,
        tile_px=tile_px,
        halo_px=16,
        net={"arch": "unet-gn", "widths": [8, 16]},
        head=HeadSpec(kind="flow") if task == "instance" else None,
        white=white,
    )
    NetPredictor(card, build_network(card)).save(folder, metrics={})
    return folder
