"""What was not analysed is background in the words of the head, in the contexts that objects are found in."""

from __future__ import annotations

import numpy as np
import pytest

from wsiseg.geometry import Size
from wsiseg.grid import Grid
from wsiseg.heads.registry import HEADS, make_head
from wsiseg.inference.instances import Contexts
from wsiseg.inference.walk import Walk


@pytest.mark.parametrize("kind", HEADS)
def test_nothing_is_found_where_nothing_was_analysed(kind: str) -> None:
    head = make_head(kind)
    walk = Walk(grid=Grid(Size(48, 24), Size(24, 24), 8), reach_px=0, margin_px=8, band_px=24)
    contexts = Contexts(walk, background=head.background)
    # Noise that would be full of objects.
    noise = np.random.default_rng(0).normal(0, 9, (head.channels, 24, 24)).astype(np.float32)
    is_analysed = np.zeros((24, 24), dtype=np.bool_)

    first = contexts.push(0, 0, noise, is_analysed)
    second = contexts.push(0, 1, None, None)

    for maps in (first, second):
        assert maps is not None
        np.testing.assert_array_equal(maps[:, 0, 0], np.array(head.background, dtype=np.float16))
        assert len(head.decode(maps.astype(np.float32))) == 0
