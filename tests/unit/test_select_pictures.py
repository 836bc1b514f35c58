"""On the map of a slide each patch has its cluster's colour, and boxes lie where the chosen patches do."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from PIL import Image

from wsiseg.stores.patch_meta import PatchGrid
from wsiseg.tasks.select_files import Row
from wsiseg.tasks.select_pictures import (
    SHEET_PX,
    cluster_colours,
    colours,
    contact_sheet,
    patch_map,
    uncertainty_colours,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.stores.patch_store import PatchStore

PINK = (220, 180, 200)
INK = (34, 38, 43)
PATCH_PX, STRIDE_PX = 28, 14
# Of the map per pixel of the canvas.
SCALE = 10


@dataclass
class Slide:
    """A slide of 140 × 70 pixels, cut into patches that overlap by half; the last of each row is cut off."""

    windows: NDArray[np.int64] = field(
        default_factory=lambda: np.array([(x, y) for y, x in product(range(0, 43, 14), range(0, 127, 14))])
    )

    @property
    def extents(self) -> NDArray[np.int64]:
        extents: NDArray[np.int64] = np.minimum(PATCH_PX, (140, 70) - self.windows)
        return extents

    @property
    def meta(self) -> SimpleNamespace:
        return SimpleNamespace(grid=PatchGrid(canvas=(140, 70), patch_px=PATCH_PX, stride_px=STRIDE_PX, downsample=1.0))

    def thumbnail(self) -> NDArray[np.uint8]:
        return np.full((35, 70, 3), PINK, np.uint8)


def mapped(shades: NDArray[np.uint8], rows: list[tuple[int, Row]]) -> NDArray[np.int64]:
    picture = patch_map(cast("PatchStore", Slide()), shades, rows)
    assert picture is not None
    assert picture.shape == (70 * SCALE, 140 * SCALE, 3)
    return picture.astype(np.int64)


def row_of(place: int, cluster: int) -> Row:
    return Row(
        index=place, patch=f"p{place}", slide="a", x=0, y=0, cluster=cluster, members=3, rank=1, scores={"score": 0.5}
    )


def test_the_middle_of_each_patch_has_the_colour_of_its_cluster() -> None:
    windows = Slide().windows
    cluster = np.random.default_rng(0).integers(4, size=len(windows)).astype(np.int32)

    picture = mapped(cluster_colours(cluster), [])

    for (x, y), number in zip((windows + PATCH_PX // 2).tolist(), cluster.tolist(), strict=True):
        shade = np.array(colours(3)[number - 1] if number else PINK)
        # Each paints as far as to the middle between it and the next.
        part = picture[y * SCALE - 69 : y * SCALE + 69, x * SCALE - 69 : x * SCALE + 69]
        assert np.abs(part - (0.55 * np.array(PINK) + 0.45 * shade)).max() <= 2


@pytest.mark.parametrize("place", [0, 13, 29])
def test_boxes_lie_at_the_chosen_patches(place: int) -> None:
    shades = cluster_colours(np.ones(len(Slide().windows), np.int32))
    left, top = Slide().windows[place] * SCALE
    right, bottom = (Slide().windows[place] + Slide().extents[place]) * SCALE

    without, picture = mapped(shades, []), mapped(shades, [(place, row_of(place, 1))])

    box = picture[top:bottom, left:right]
    for edge in (box[:3], box[-3:], box[:, :3], box[:, -3:]):
        assert (edge == INK).all()
    inside = (slice(top + 3, bottom - 3), slice(left + 3, right - 3))
    np.testing.assert_array_equal(picture[inside], without[inside])
    # Beyond its white rim nothing changes but for its number, on the right.
    changed = (picture != without).any(axis=2)
    assert not changed[:, : max(0, left - 3)].any()
    assert not changed[: max(0, top - 3)].any()
    assert changed[top : top + 40, right + 6 : right + 40].any() == (right + 6 < picture.shape[1])
    assert (picture[top + 80 : bottom, max(0, left - 3) : left] == 255).all()


def test_images_without_a_thumbnail_have_no_map() -> None:
    class Images(Slide):
        def thumbnail(self) -> NDArray[np.uint8]:
            return np.empty((0, 0, 3), np.uint8)

    assert patch_map(cast("PatchStore", Images()), np.zeros((40, 4), np.uint8), []) is None


def test_the_less_certain_a_patch_the_darker_and_where_nothing_is_known_it_is_clear() -> None:
    shades = uncertainty_colours(np.array([0, 0.2, 0.9, 0.5], np.float32)).astype(int)

    assert shades[0, 3] == 0
    assert (shades[1:, 3] == shades[1, 3]).all()
    assert shades[1, 3] > 0
    brightness = shades[:, :3].sum(axis=1)
    assert brightness[1] > brightness[3] > brightness[2]


def test_the_contact_sheet_shows_patches_in_their_order_framed_in_the_colours_of_their_clusters() -> None:
    flat = [(10 * number, 90, 200) for number in range(5)]
    images = [np.full((32, 32, 3), colour, np.uint8) for colour in flat]
    rows = [row_of(place, cluster) for place, cluster in enumerate((2, 1, 3, 5, 4))]

    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(rows, images))))

    corners = []
    for row, colour in zip(rows, flat, strict=True):
        y, x = np.nonzero((sheet == colour).all(axis=2))
        # `contain` fills a cell.
        assert [int(np.ptp(ends)) + 1 for ends in (y, x)] == [SHEET_PX, SHEET_PX]
        assert (sheet[y.min() - 2, x.min() : x.max()] == colours(5)[row.cluster - 1]).all()
        corners.append((int(y.min()), int(x.min())))
    assert corners == sorted(corners)
    assert len({y for y, _ in corners}) == 2
