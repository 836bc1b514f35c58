"""White is what is brighter than the rule says, in spots that are large enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from wsiseg.white import WhiteRule, white_pixels

RULE = WhiteRule()


def spot(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rgb = np.full((40, 60, 3), 120, np.uint8)
    rgb[5 : 5 + height, 7 : 7 + width] = 230
    return rgb


def test_the_threshold_itself_is_not_white() -> None:
    assert not white_pixels(np.full((20, 20, 3), 200, np.uint8), RULE).any()
    assert white_pixels(np.full((20, 20, 3), 201, np.uint8), RULE).all()


def test_a_spot_of_fifty_pixels_stays_and_a_smaller_one_goes() -> None:
    assert white_pixels(spot(5, 10), RULE).sum() == 50
    assert not white_pixels(spot(7, 7), RULE).any()


def test_spots_do_not_touch_across_corners() -> None:
    rgb = spot(5, 6)
    rgb[10:15, 13:19] = 230

    assert not white_pixels(rgb, RULE).any()
    assert white_pixels(rgb, WhiteRule(min_area_px=30)).sum() == 60


def test_nothing_white_is_nothing() -> None:
    assert not white_pixels(np.zeros((8, 8, 3), np.uint8), WhiteRule(min_area_px=0)).any()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 255))
def test_brightness_is_that_of_pillow_up_to_one_level(seed: int, gray_above: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    gray = np.asarray(Image.fromarray(rgb).convert("L"))

    white = white_pixels(rgb, WhiteRule(gray_above=gray_above, min_area_px=0))

    assert white[gray.astype(int) > gray_above + 1].all()
    assert not white[gray.astype(int) < gray_above].any()


def test_a_rule_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValidationError):
        WhiteRule(gray_above=256)
    with pytest.raises(ValidationError):
        WhiteRule(min_area_px=-1)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_enlarged_images_have_the_same_white(factor: int) -> None:
    small = spot(6, 9)
    large = small.repeat(factor, axis=0).repeat(factor, axis=1)
    for min_area_px in (40, 54, 55, 60):
        rule = WhiteRule(min_area_px=min_area_px)

        assert white_pixels(small, rule).any() == white_pixels(large, rule.at(factor)).any() == (min_area_px <= 54)
        assert rule.at(factor).at(1 / factor) == rule
