"""What is told of synthetic images tells good ones from bad ones."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

from tests.nuclei_makers import ellipses
from tests.synthesis_makers import USUAL, stained
from wsiseg.synthesis.quality import Quality, assess, doubt, nearest, ssim, strain
from wsiseg.synthesis.sheets import outlined, sheet, write_png

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 96
LABELS = ellipses(12, SIDE, seed=0)
PATCH = stained(LABELS, seed=0)
MASKS = [ellipses(12, SIDE, seed=seed) for seed in (1, 2)]
GOOD = [stained(mask, seed=7 + at) for at, mask in enumerate(MASKS)]


def quality(images: list[NDArray[np.uint8]], alike: list[NDArray[np.uint8]] | None = None) -> Quality:
    return assess(PATCH, LABELS, images, MASKS, alike=alike or [GOOD[0], GOOD[1]], reconstruction=PATCH)


def test_images_that_obey_their_masks_in_the_colours_of_the_patch_are_good() -> None:
    told = quality(GOOD)

    assert told.colour_error_nuclei < 2
    assert told.colour_error_background < 2
    assert told.contrast == pytest.approx(1, abs=0.05)
    assert told.adherence > 0.9
    assert told.adherence_of_patch > 0.9
    assert told.reconstruction_ssim == pytest.approx(1)
    assert told.ssim < 0.9
    assert told.copies == 0


def test_images_of_other_masks_do_not_adhere() -> None:
    told = quality(GOOD[::-1])

    assert told.adherence < 0.6
    assert told.contrast < 0.6


def test_other_colours_are_told() -> None:
    assert quality([np.roll(image, 1, axis=2) for image in GOOD]).colour_error_nuclei > 40


def test_a_few_black_pixels_do_not_hide_the_nuclei() -> None:
    spotted = [image.copy() for image in GOOD]
    for image in spotted:
        image[:6, :6] = 0

    assert quality(spotted).adherence > 0.85


def test_images_without_colour_have_numbers_too() -> None:
    told = quality([np.full_like(PATCH, 200)] * 2, [PATCH, PATCH])

    assert (told.adherence, told.diversity, told.contrast) == (0, 0, 0)
    assert all(value == value for value in asdict(told).values())  # noqa: PLR0124 - no NaN, which JSON has not


def test_masks_without_nuclei_or_background_do_not_count() -> None:
    nothing, everything = np.zeros_like(LABELS), np.ones_like(LABELS)
    black = np.zeros_like(PATCH)

    def told(
        images: list[NDArray[np.uint8]], masks: list[NDArray[np.int32]], labels: NDArray[np.int32] = LABELS
    ) -> Quality:
        return assess(PATCH, labels, images, masks, alike=GOOD, reconstruction=PATCH)

    with_empty, without = told([*GOOD, GOOD[0]], [*MASKS, nothing]), told(GOOD, MASKS)
    assert (with_empty.contrast, with_empty.adherence) == (without.contrast, without.adherence)
    assert with_empty.colour_error_nuclei == without.colour_error_nuclei
    empty = told([black], [nothing])
    assert np.isnan([empty.colour_error_nuclei, empty.contrast, empty.adherence]).all()
    assert not math.isnan(empty.colour_error_background)
    full = told([black], [everything])
    assert np.isnan([full.colour_error_background, full.contrast]).all()
    unlabelled = told(GOOD, MASKS, nothing)
    assert np.isnan([unlabelled.colour_error_nuclei, unlabelled.contrast, unlabelled.adherence_of_patch]).all()
    assert unlabelled.adherence == without.adherence


def test_copies_of_the_patch_are_found() -> None:
    copy = np.roll(PATCH, (5, -9), axis=(0, 1))

    assert quality([copy, copy]).copies > 0.4
    assert quality(GOOD).likeness < 0.9


def test_windows_of_the_patch_do_not_meet_themselves() -> None:
    rng = np.random.default_rng(0)

    with_itself = nearest(PATCH, PATCH, 8, rng)
    without = nearest(PATCH, PATCH, 8, rng, is_itself=True)

    assert with_itself.min() > 0.999
    assert without.max() < 0.95


def test_of_usual_gans_nothing_is_doubted() -> None:
    short = replace(
        USUAL, colour_error_nuclei=5.2, colour_error_background=1.1, contrast=0.89, adherence=0.59,
        adherence_of_patch=0.62, copies=0,
    )  # fmt: skip

    assert [doubt(one) for one in (USUAL, short, quality(GOOD))] == [""] * 3
    assert str(USUAL) == (
        "colours 7.0 grey levels off in nuclei and 2.0 in background, contrast 0.93, adherence 0.825 (patch 0.835), "
        "copies 4.0%"
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"colour_error_nuclei": 80.0, "contrast": 0.5},
            "nuclei are 80 grey levels off, contrast is 0.50 of the patch's",
        ),
        ({"colour_error_background": 30.0}, "background is 30 grey levels off"),
        ({"contrast": 1.7}, "contrast is 1.70 of the patch's"),
        ({"adherence": 0.4}, "masks are obeyed by 0.40, in the patch by 0.83"),
        ({"copies": 0.5}, "50% of the windows are copies"),
    ],
)
def test_what_is_beyond_its_limit_is_doubted(changes: dict[str, float], told: str) -> None:
    bad = replace(USUAL, **changes)

    assert doubt(bad) == told
    assert strain(USUAL) < 1 < strain(bad)


def test_what_could_not_be_measured_is_not_doubted() -> None:
    unknown = replace(USUAL, colour_error_nuclei=math.nan, contrast=math.nan, adherence=math.nan, adherence_of_patch=0)

    assert doubt(unknown) == ""
    assert "colours – grey levels off in nuclei and 2.0 in background, contrast –, adherence – (" in str(unknown)


def test_structural_similarity_is_that_of_scikit_image() -> None:
    grey = PATCH.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    other = GOOD[0].astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)

    _, reference = structural_similarity(  # type: ignore[no-untyped-call] # scikit-image carries no types
        grey, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True
    )

    assert ssim(PATCH, GOOD[0]) == pytest.approx(reference.mean(), abs=2e-3)


def test_outlines_lie_on_the_edges_of_each_nucleus() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[2:6, 2:10] = 1
    labels[6:10, 2:10] = 2

    drawn = outlined(np.zeros((12, 12, 3), np.uint8), labels).max(axis=2) > 0

    assert drawn[5, 5]
    assert drawn[6, 5]
    assert not drawn[0].any()
    assert not drawn[4, 5]


def test_sheets_hold_pictures_of_any_size(tmp_path: Path) -> None:
    rows = [[("one", PATCH), ("two", PATCH)], [("", PATCH[:50])]]

    write_png(tmp_path / "new" / "sheet.png", sheet(rows))

    with Image.open(tmp_path / "new" / "sheet.png") as picture:
        assert picture.width > 2 * SIDE
        assert picture.height > 2 * SIDE
