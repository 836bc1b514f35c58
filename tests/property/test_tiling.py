"""Patches cover the canvas, lie where their index says, and reach no further than needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wsiseg.geometry import Size
from wsiseg.grid import overlap_px, patch_windows
from wsiseg.tiling.plan import TileSettings


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 30), st.data())
def test_patches_cover_the_canvas(width: int, height: int, patch_px: int, data: st.DataObject) -> None:
    stride_px = data.draw(st.integers(1, patch_px))

    windows = patch_windows(Size(width, height), patch_px=patch_px, stride_px=stride_px)

    covered = np.zeros((height, width), dtype=bool)
    for x, y in windows.tolist():
        assert x % stride_px == 0
        assert y % stride_px == 0
        assert x < width
        assert y < height
        covered[y : y + patch_px, x : x + patch_px] = True
    assert covered.all()
    assert len(np.unique(windows, axis=0)) == len(windows)
    # Without its last column or row something would be bare.
    assert windows[:, 0].max() == 0 or windows[:, 0].max() - stride_px + patch_px < width
    assert windows[:, 1].max() == 0 or windows[:, 1].max() - stride_px + patch_px < height
    order = windows[:, 1] * (width + 1) + windows[:, 0]
    assert (np.diff(order) > 0).all()


@given(st.integers(8, 500), st.floats(0, 0.99))
def test_shares_of_overlap_leave_a_stride(patch_px: int, share: float) -> None:
    if round(share * patch_px) < patch_px:
        assert 0 <= overlap_px(share, patch_px) < patch_px


@pytest.mark.parametrize("overlap", [64, "64", 0.25, "0.25", "25%", " 25 % "])
def test_overlap_is_pixels_or_a_share(overlap: object) -> None:
    settings = TileSettings.model_validate({"overlap": overlap})

    assert overlap_px(settings.overlap, 256) == 64


@pytest.mark.parametrize("overlap", [256, -1, 1.5, "100%", "much"])
def test_overlaps_that_cannot_be_are_refused(overlap: object) -> None:
    with pytest.raises(ValidationError):
        TileSettings.model_validate({"overlap": overlap})


@pytest.mark.parametrize("mpp", [0, -1, "coarse", 1e9])
def test_resolutions_that_cannot_be_are_refused(mpp: object) -> None:
    with pytest.raises(ValidationError):
        TileSettings.model_validate({"mpp": mpp})


@pytest.mark.parametrize(
    ("written", "meant"), [("64", 64), (" 0.25", 0.25), ("25%", 0.25), (64, 64), (0.0, 0.0), ("0", 0)]
)
def test_overlaps_are_pixels_or_shares(written: object, meant: float) -> None:
    settings = TileSettings.model_validate({"overlap": written})

    assert settings.overlap == meant
    # Settings go through JSON and back.
    assert TileSettings.model_validate(settings.model_dump()) == settings
    assert TileSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("written", ["2.0", 2.0, "1e2", "1.0", 64.0, "100%", "half", "inf", "nan", "-0.5", "-8"])
def test_ambiguous_overlaps_are_refused(written: object) -> None:
    with pytest.raises(ValidationError, match=r"overlap"):
        TileSettings.model_validate({"overlap": written})
