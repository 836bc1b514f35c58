"""A grown slide opens as a scanner's would and is the same for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import openslide
import pytest

from wsiseg.geometry import Size
from wsiseg.slides.synthetic import grow_slide

if TYPE_CHECKING:
    from pathlib import Path

PINK = np.full((512, 300, 3), (200, 90, 160), dtype=np.uint8)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_tissue_covers_the_share_asked_for(tmp_path: Path, share: float) -> None:
    path = tmp_path / "grown.svs"

    grow_slide(PINK, path, size=Size(1100, 1024), tissue=share, mpp=0.25, seed=1)

    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (1024, 1024)
        assert slide.level_count == 3
        assert float(slide.properties["openslide.mpp-x"]) == 0.25
        green = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., 1]
    assert (green < 160).mean() == pytest.approx(share, abs=0.03)


def test_the_same_seed_grows_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svs", "b.svs"):
        grow_slide(PINK, tmp_path / name, size=Size(512, 512), tissue=0.5, mpp=0.25, seed=3)

    assert (tmp_path / "a.svs").read_bytes() == (tmp_path / "b.svs").read_bytes()
