"""Features as QuPath writes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Box = tuple[float, float, float, float]


def ring(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    """Return the closed outline of a box."""
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(box: Box, name: str | None, *, kind: str = "annotation", hole: Box | None = None) -> dict[str, Any]:
    """Return a box of a class, with a hole or without."""
    rings = [ring(*box)] if hole is None else [ring(*box), ring(*hole)]
    classification = {} if name is None else {"classification": {"name": name, "color": [1, 2, 3]}}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {"objectType": kind, **classification},
    }


def write_features(path: Path, *features: dict[str, Any]) -> Path:
    """Write a FeatureCollection; return its path."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path
