"""Whatever the layout and the window, the fast reader shows OpenSlide's pixels."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.slide_makers import Layout, write_slide
from wsiseg.geometry import Size, Window
from wsiseg.slides.open import open_slide

codings = st.sampled_from(
    [
        {"compression": "jpeg", "photometric": "ycbcr"},
        {"compression": "jpeg", "photometric": "rgb"},
        {"compression": "jpeg", "photometric": "ycbcr", "subsampling": "422"},
        {"compression": "lzw", "photometric": "rgb", "predictor": True},
        {"compression": "deflate", "photometric": "gray"},
        {"compression": "none", "photometric": "rgb"},
    ]
)
sizes = st.builds(Size, st.integers(1, 150), st.integers(1, 150))
windows = st.builds(Window, st.integers(-40, 160), st.integers(-40, 160), st.integers(1, 90), st.integers(1, 90))


@settings(max_examples=40)
@given(
    size=sizes,
    tile=st.sampled_from([16, 32, 48, 80]),
    coding=codings,
    shared=st.booleans(),
    wanted=st.lists(windows, min_size=1, max_size=6),
)
def test_any_window_of_any_layout(
    *,
    size: Size,
    tile: int,
    coding: dict[str, str],
    shared: bool,
    wanted: list[Window],
) -> None:
    if coding["compression"] == "none":
        tile = 32  # the oracle's libtiff reads no uncompressed tiles that do not fill whole KiB
    layout = Layout(size=size, tile=tile, shared_tables=shared and coding["compression"] == "jpeg", **coding)  # type: ignore[arg-type] # fields of Layout
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.tif"
        write_slide(path, layout)
        with open_slide(path, reader="tiff") as fast, open_slide(path, reader="openslide") as oracle:
            for window in wanted:
                np.testing.assert_array_equal(fast.read_level(0, window), oracle.read_level(0, window))
