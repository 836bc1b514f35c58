"""Pseudo-labels lie on tissue alone: neither on what is white nor beyond the end of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from wsiseg.labels import IGNORE, LabelMap
from wsiseg.methods.stages import Labelled
from wsiseg.training.annotation import annotate
from wsiseg.training.patch_batches import Known
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from tests.conftest import MakePatchStore

SIDE = 16
SPOT = (slice(2, 6), slice(3, 7))


class FirstClass:
    """Takes all tissue for the first class."""

    layers = ("all",)

    def label(
        self,
        images: Tensor,
        present: Tensor,  # noqa: ARG002 - one class is enough
        white: Tensor | None,
        *,
        indices: NDArray[np.int64],  # noqa: ARG002 - images say everything
    ) -> dict[str, Labelled]:
        """Return class 0 and full confidence but on white."""
        zeros = torch.zeros(len(images), *images.shape[2:], dtype=torch.uint8)
        away = torch.zeros_like(zeros, dtype=torch.bool) if white is None else white
        found = Labelled(labels=zeros.masked_fill(away, IGNORE), confidence=(zeros + 100).masked_fill(away, IGNORE))
        return {"all": found}


@pytest.mark.parametrize("white", [None, WhiteRule(min_area_px=9)])
@pytest.mark.parametrize("ends", [((SIDE, SIDE), (SIDE, SIDE)), ((SIDE, SIDE), (10, 12))])
def test_white_and_padding_have_no_class(
    ends: tuple[tuple[int, int], ...], white: WhiteRule | None, tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    images = np.full((2, SIDE, SIDE, 3), 90, dtype=np.uint8)
    images[:, *SPOT] = 250
    store = make_patch_store(tmp_path / "s.zarr", images, extents=np.array(ends, dtype=np.int32))
    known = Known(patches=store, indices=np.arange(2), present=np.ones((2, 1), dtype=np.uint8))
    names, labels = {"all": "made-all"}, LabelMap.from_names(("tissue",), background=False)

    annotate(
        known,
        FirstClass(),
        names,
        labels,
        white=white,
        made_by="made",
        batch_size=1,
        device=torch.device("cpu"),
        with_confidence=True,
    )

    expected = np.zeros((2, SIDE, SIDE), dtype=np.uint8)
    if white is not None:
        expected[:, *SPOT] = IGNORE
    for one, (right, bottom) in zip(expected, ends, strict=True):
        one[bottom:] = IGNORE
        one[:, right:] = IGNORE
    np.testing.assert_array_equal(store.read_labels("made-all", range(2)), expected)
    (sure,) = store.layers.keys() - {"made-all"}
    np.testing.assert_array_equal(store.read_labels(sure, range(2)) == IGNORE, expected == IGNORE)
