"""Label images come back as they were written, and anything else is refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from wsiseg import rasters
from wsiseg.errors import DataError
from wsiseg.rasters import read_labels, write_labels

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize(("highest", "depth"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_labels_survive_a_round_trip_in_the_smallest_depth(
    tmp_path: Path, suffix: str, highest: int, depth: type
) -> None:
    labels = np.linspace(0, highest, 5 * 7).astype(np.int64).reshape(5, 7)

    write_labels(tmp_path / f"a{suffix}", labels)
    back = read_labels(tmp_path / f"a{suffix}")

    assert back.dtype == depth
    np.testing.assert_array_equal(back, labels)


def test_a_palette_image_gives_its_indices_not_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 255]], dtype=np.uint8), mode="P")
    image.putpalette([200, 0, 0, 0, 200, 0] + 254 * [0, 0, 200])
    image.save(tmp_path / "p.png")

    np.testing.assert_array_equal(read_labels(tmp_path / "p.png"), [[0, 1], [2, 255]])


def test_a_bilevel_image_gives_zeros_and_ones(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")

    np.testing.assert_array_equal(read_labels(tmp_path / "b.png"), [[1, 0]])


def test_32_bit_tiffs_are_read(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)).save(tmp_path / "i.tif")

    back = read_labels(tmp_path / "i.tif")

    assert back.dtype == np.uint32
    assert back.max() == 70_000


def test_negative_labels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, -1]], dtype=np.int32)).save(tmp_path / "n.tif")

    with pytest.raises(DataError, match="negative"):
        read_labels(tmp_path / "n.tif")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "F"])
def test_colours_and_fractions_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("c.tif" if mode == "F" else "c.png")
    Image.new(mode, (3, 2)).save(path)

    with pytest.raises(DataError, match=f"this one is {mode}"):
        read_labels(path)


def test_a_missing_a_false_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    noise = np.random.default_rng(0).integers(0, 200, (64, 64))
    write_labels(tmp_path / "whole.png", noise)
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])

    for name in ("missing.png", "text.png", "cut.png"):
        with pytest.raises(DataError, match=name):
            read_labels(tmp_path / name)


@pytest.mark.parametrize("value", [-1, 65536])
def test_values_beyond_16_bit_are_not_written(tmp_path: Path, value: int) -> None:
    with pytest.raises(DataError, match="16 bit"):
        write_labels(tmp_path / "a.png", np.array([[value]]))

    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.jpg"):
        write_labels(tmp_path / "a.jpg", np.zeros((2, 2), dtype=np.uint8))


def test_images_too_large_for_readers_are_neither_written_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labels(tmp_path / "a.png", np.zeros((9, 9), dtype=np.uint8))
    monkeypatch.setattr(rasters, "MAX_LABEL_PIXELS", 80)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)

    with pytest.raises(DataError, match="9 x 9"):
        write_labels(tmp_path / "b.png", np.zeros((9, 9), dtype=np.uint8))
    with pytest.raises(DataError, match="more than"):
        read_labels(tmp_path / "a.png")


def test_large_images_are_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_labels(tmp_path / "a.png", np.zeros((9, 9), dtype=np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)

    assert read_labels(tmp_path / "a.png").shape == (9, 9)
