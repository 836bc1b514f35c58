"""New masks hold whole nuclei of the patch, as densely as asked for, and never hang."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from tests.nuclei_makers import ellipses
from wsiseg.errors import DataError
from wsiseg.synthesis.layouts import SMALLEST_PIECE_PX, LayoutSettings, layouts, tidied
from wsiseg.synthesis.nucleus_bank import BORDER_PX, SMALLEST_NUCLEUS_PX, SYMMETRIES, bank_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.synthesis.layouts import Density

LABELS = ellipses(40, 256, seed=3, radii=(5, 12))
BANK = bank_of(LABELS)


def touching(labels: NDArray[np.int32]) -> bool:
    """Tell whether pixels of two nuclei are neighbours, also across corners."""
    padded = np.pad(labels, 1)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = np.roll(padded, (-dy, -dx), axis=(0, 1))
        if np.any((padded > 0) & (other > 0) & (padded != other)):
            return True
    return False


@pytest.mark.parametrize("mode", ["density-matched", "faithful"])
@pytest.mark.parametrize("density", ["normal", "dense"])
def test_nuclei_are_whole_pieces_numbered_from_one(mode: str, density: str) -> None:
    settings = LayoutSettings.model_validate({"mode": mode})

    for labels in layouts(BANK, settings, density, range(5), patch="a", seed=0):  # type: ignore[arg-type] # parametrised
        assert labels.shape == LABELS.shape
        assert labels.dtype == np.int32
        ids, areas = np.unique(labels[labels > 0], return_counts=True)
        assert ids.tolist() == list(range(1, len(ids) + 1))
        assert areas.min() >= SMALLEST_PIECE_PX
        assert all(ndimage.label(labels == number)[1] == 1 for number in ids)


def test_nuclei_near_the_border_are_counted_but_never_stamped() -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[BORDER_PX - 1 : 20, 20:30] = 1
    labels[30:40, 30:45] = 2
    labels[50:55, 50:55] = 3

    bank = bank_of(labels)

    assert (bank.nuclei, len(bank.stamps)) == (2, SYMMETRIES)
    assert {int((stamp.distance_px == 0).sum()) for stamp in bank.stamps} == {150}
    assert (labels == 3).sum() < SMALLEST_NUCLEUS_PX
    assert bank.coverage == pytest.approx((labels > 0).mean())


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize(("gap", "whole"), [(5, 1), (6, 2)])
def test_six_pixels_from_any_side_a_nucleus_is_whole(side: int, gap: int, whole: int) -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[gap : gap + 9, 25:35] = 1
    labels[30:40, 25:40] = 2

    bank = bank_of(np.rot90(labels, side))

    assert bank.nuclei == 2
    assert len(bank.stamps) == whole * SYMMETRIES


def test_a_patch_without_whole_nuclei_is_refused() -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[:20, :20] = 1

    with pytest.raises(DataError, match="border"):
        bank_of(labels, where="a")


def test_full_spacing_keeps_nuclei_apart_and_half_lets_some_touch() -> None:
    apart, close = (
        layouts(BANK, LayoutSettings(spacing=spacing), "dense", range(10), patch="a", seed=0) for spacing in (1.0, 0.5)
    )

    assert not any(touching(labels) for labels in apart)
    assert any(touching(labels) for labels in close)


def test_faithful_masks_are_sparser_than_the_patch_and_matched_ones_are_not() -> None:
    faithful, matched = (
        np.mean([(labels > 0).mean() for labels in layouts(BANK, settings, "normal", range(20), patch="a", seed=0)])
        for settings in (LayoutSettings(mode="faithful"), LayoutSettings())
    )

    assert 0.6 < faithful / BANK.coverage < 0.9
    assert 0.9 < matched / BANK.coverage < 1.3


def test_a_full_canvas_ends_with_fewer_nuclei_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.zeros((64, 64), np.int32)
    for number, (y, x) in enumerate(np.ndindex(4, 4), start=1):
        labels[7 + 13 * y : 19 + 13 * y, 7 + 13 * x : 19 + 13 * x] = number

    with caplog.at_level(logging.INFO, logger="wsiseg"):
        (mask,) = layouts(bank_of(labels), LayoutSettings(spacing=1.0), "dense", [0], patch="a", seed=0)

    assert "found room" in caplog.text
    assert 0 < mask.max() < 16


@pytest.mark.parametrize(("mode", "share"), [("density-matched", 1.0), ("faithful", 0.73)])
@pytest.mark.parametrize(("density", "rates"), [("normal", (1.03, 1.20)), ("dense", (1.20, 1.37))])
def test_as_many_nuclei_are_wanted_as_on_the_patch_for_its_area_times_the_rate(
    caplog: pytest.LogCaptureFixture, mode: str, share: float, density: Density, rates: tuple[float, float]
) -> None:
    labels = np.zeros((64, 64), np.int32)
    for number, (y, x) in enumerate(np.ndindex(4, 4), start=1):
        labels[7 + 13 * y : 19 + 13 * y, 7 + 13 * x : 19 + 13 * x] = number
    settings = LayoutSettings.model_validate({"mode": mode, "spacing": 1.0})

    # There is never room for all, and so the log tells how many were wanted.
    with caplog.at_level(logging.INFO, logger="wsiseg"):
        layouts(bank_of(labels), settings, density, range(12), patch="a", seed=0)

    wanted = [int(re.findall(r"of (\d+) nuclei found room", message)[0]) for message in caplog.messages]
    least, most = (16 * ((64 + 2 * 22) / 64) ** 2 * share * rate for rate in rates)
    assert len(wanted) == 12
    assert round(least) <= min(wanted) < max(wanted) <= round(most)
    assert max(wanted) - min(wanted) > 0.5 * (most - least)


def test_later_nuclei_cover_up_to_three_tenths_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[:256, :256]
    discs = (y % 62 - 31) ** 2 + (x % 62 - 31) ** 2 <= 24**2
    bank = bank_of(np.where(discs, 1 + y // 62 * 4 + x // 62, 0))
    (area,) = {int((stamp.distance_px == 0).sum()) for stamp in bank.stamps}
    # What a nucleus keeps, in however many pieces.
    monkeypatch.setattr("wsiseg.synthesis.layouts.tidied", lambda labels: labels)

    left = []
    for labels in layouts(bank, LayoutSettings(spacing=0.0), "dense", range(12), patch="a", seed=0):
        for number in np.unique(labels[labels > 0]):
            middle = np.argwhere(labels == number).mean(axis=0)
            # Farther from the border than any nucleus reaches.
            if middle.min() > 48 and middle.max() < 256 - 49:
                left.append(float((labels == number).sum() / area))

    assert 0.7 <= min(left) < 0.75
    assert max(left) == 1


def test_masks_depend_on_seed_patch_and_number_alone() -> None:
    first = layouts(BANK, LayoutSettings(), "normal", range(3), patch="a", seed=0)
    again = layouts(BANK, LayoutSettings(), "normal", [2], patch="a", seed=0)
    others = [
        *layouts(BANK, LayoutSettings(), "normal", [2], patch="b", seed=0),
        *layouts(BANK, LayoutSettings(), "normal", [2], patch="a", seed=1),
        first[1],
    ]

    np.testing.assert_array_equal(first[2], again[0])
    assert not any(np.array_equal(first[2], other) for other in others)


def test_no_mask_is_empty_however_few_nuclei_there_are() -> None:
    labels = np.zeros((32, 32), np.int32)
    labels[12:19, 12:19] = 1

    masks = layouts(bank_of(labels), LayoutSettings(), "normal", range(40), patch="a", seed=0)

    assert all(mask.any() for mask in masks)


def test_of_a_nucleus_in_pieces_the_largest_stays() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[:5, :5] = 7
    labels[10:16, :5] = 7
    labels[:4, 10:14] = 3
    labels[10:20, 10:20] = 9

    tidy = tidied(labels)

    assert np.unique(tidy).tolist() == [0, 1, 2]
    assert not tidy[:8].any()
    assert len(np.unique(tidy[10:16, :5])) == 1
