"""Labels come back unchanged from TIFF and PNG, and what does not fit a PNG is refused with a way out."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsiseg.errors import DataError
from wsiseg.geometry import Canvas, Scale, Size
from wsiseg.inference import ome_tiff
from wsiseg.inference.label_png import write_label_png
from wsiseg.inference.ome_tiff import write_ome_tiff
from wsiseg.labels import LabelMap
from wsiseg.rasters import read_labels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TISSUES = LabelMap.from_names(("background", "tumour", "stroma"))


def _random(dtype: type[np.unsignedinteger], height: int, width: int) -> NDArray[np.unsignedinteger]:
    labels = np.random.default_rng(0).integers(
        0, 70_000 if dtype is np.uint32 else 3, (height // 9 + 1, width // 9 + 1)
    )
    return np.kron(labels, np.ones((9, 9), dtype=np.int64))[:height, :width].astype(dtype)


def _write_tiff(
    path: Path, labels: NDArray[np.unsignedinteger], mpp: float | None = 0.5, *, slide_id: str = "slide"
) -> None:
    canvas = Canvas(Size(labels.shape[1], labels.shape[0]), Scale(1.0), mpp)
    write_ome_tiff(path, read=lambda window: labels[window.slices], canvas=canvas, labels=TISSUES, slide_id=slide_id)


def test_tiffs_of_two_slides_have_two_identifiers(tmp_path: Path) -> None:
    labels = np.ones((64, 64), dtype=np.uint8)
    for name in ("a", "b"):
        _write_tiff(tmp_path / f"{name}.ome.tif", labels, slide_id=name)
    _write_tiff(tmp_path / "again.ome.tif", labels, slide_id="a")

    first, second, again = ((tmp_path / f"{name}.ome.tif").read_bytes() for name in ("a", "b", "again"))
    assert first == again
    assert first != second


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
@pytest.mark.parametrize("kept_bytes", [0, 1 << 26])
def test_every_level_of_a_tiff_takes_every_second_pixel(
    tmp_path: Path, dtype: type[np.unsignedinteger], kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ome_tiff, "_KEPT_BYTES", kept_bytes)
    labels = _random(dtype, 1300, 2501)

    _write_tiff(tmp_path / "labels.ome.tif", labels)

    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as file:
        assert file.is_ome
        (series,) = file.series
        assert [level.shape for level in series.levels] == [(1300, 2501), (650, 1251), (325, 626)]
        for number, level in enumerate(series.levels):
            np.testing.assert_array_equal(level.asarray(), labels[:: 2**number, :: 2**number])
            assert level.keyframe.tile == (512, 512)


def test_a_tiff_says_its_resolution_and_its_colours(tmp_path: Path) -> None:
    _write_tiff(tmp_path / "labels.ome.tif", _random(np.uint8, 60, 50), mpp=0.25)

    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as file:
        page = file.pages.first
        assert 'PhysicalSizeX="0.25"' in (file.ome_metadata or "")
        assert 'PhysicalSizeXUnit="µm"' in (file.ome_metadata or "")
        numerator, denominator = page.tags["XResolution"].value
        assert numerator / denominator == pytest.approx(40_000)
        assert page.colormap is not None
        assert (page.colormap[:, 1] // 257).tolist() == list(TISSUES[1].colour)
        assert (page.colormap[:, 255] // 257).tolist() == [128, 128, 128]


def test_a_second_tiff_has_the_same_bytes(tmp_path: Path) -> None:
    labels = _random(np.uint32, 700, 600)
    for name in ("one", "two"):
        _write_tiff(tmp_path / name / f"{uuid.uuid4().hex}.ome.tif", labels, mpp=None)
    one, two = (next((tmp_path / name).iterdir()).read_bytes() for name in ("one", "two"))

    assert one == two


def test_large_labels_make_a_big_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ome_tiff, "_CLASSIC_BYTES", 1000)
    _write_tiff(tmp_path / "labels.ome.tif", _random(np.uint8, 60, 50))

    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as file:
        assert file.is_bigtiff


@settings(max_examples=30)
@given(
    hnp.arrays(np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 65_535)),
    st.booleans(),
)
def test_a_png_gives_back_its_labels(
    tmp_path_factory: pytest.TempPathFactory,
    labels: NDArray[np.uint32],
    narrow: bool,  # noqa: FBT001 - drawn
) -> None:
    stored = (labels % 256).astype(np.uint8) if narrow else labels
    path = tmp_path_factory.mktemp("png") / "labels.png"

    write_label_png(
        path,
        read=lambda window: stored[window.slices],
        size=Size(labels.shape[1], labels.shape[0]),
        highest=int(stored.max()),
    )

    back = read_labels(path)
    np.testing.assert_array_equal(back, stored)
    assert back.dtype == (np.uint8 if narrow else np.uint16)


def test_a_png_of_many_bands_gives_back_its_labels(tmp_path: Path) -> None:
    labels = _random(np.uint32, 2200, 3000) % 60_000
    write_label_png(
        tmp_path / "labels.png", read=lambda window: labels[window.slices], size=Size(3000, 2200), highest=59_999
    )

    np.testing.assert_array_equal(read_labels(tmp_path / "labels.png"), labels)


def test_what_a_png_cannot_hold_is_refused_with_a_way_out(tmp_path: Path) -> None:
    labels = np.zeros((1, 1), dtype=np.uint32)
    for size, highest, message in (
        (Size(10, 10), 65_536, r"65,536 objects .*prediction\.zarr"),
        (Size(20_000, 20_000), 5, r"20,000 x 20,000 pixels .*prediction\.zarr"),
    ):
        with pytest.raises(DataError, match=message):
            write_label_png(
                tmp_path / "labels.png", read=lambda window: labels[window.slices], size=size, highest=highest
            )
    assert not list(tmp_path.iterdir())
