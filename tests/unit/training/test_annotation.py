"""Pseudo-labels lie on tissue alone: neither on what is white nor beyond the end of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from wsiseg.ingestion.layouts import LAYOUTS
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.methods.mlps_classify import PseudoMasks
from wsiseg.methods.stages import Labelled
from wsiseg.nets.gated import ActivationMaps
from wsiseg.nets.resnet38d import ResNet38d
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


@pytest.mark.parametrize(("layout", "is_white"), [("luad-histoseg", True), ("bcss-wsss", False)])
def test_a_white_square_has_no_class_in_any_layer_where_the_data_set_knows_white(
    layout: str,
    is_white: bool,  # noqa: FBT001
    tmp_path: Path,
    make_patch_store: MakePatchStore,
) -> None:
    published = LAYOUTS[layout]
    assert published.labels is not None
    images = np.random.default_rng(0).integers(60, 190, (1, 96, 96, 3)).astype(np.uint8)
    images[:, 10:70, 20:80] = 245
    store = make_patch_store(tmp_path / "s.zarr", images)
    known = Known(patches=store, indices=np.arange(1), present=np.array([[1, 0, 1, 1]], dtype=np.uint8))
    torch.manual_seed(0)
    labeller = PseudoMasks(ActivationMaps(ResNet38d(4, width=1), threshold=0.25))
    names = {layer: f"made-{layer}" for layer in labeller.layers}

    annotate(
        known,
        labeller,
        names,
        published.labels,
        white=published.white,
        made_by="made",
        batch_size=1,
        device=torch.device("cpu"),
    )

    expected = np.zeros((96, 96), dtype=np.bool_)
    expected[10:70, 20:80] = is_white
    assert len(names) == 3
    for name in names.values():
        mask = store.read_labels(name, [0])[0]
        np.testing.assert_array_equal(mask == IGNORE, expected)
        assert set(np.unique(mask)) <= {0, 2, 3, IGNORE}
