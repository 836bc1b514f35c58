"""Layers of pseudo-labels have names that stores can keep, say who made them, and are counted until a stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.listeners import Listener
from wsiseg import checkpoint
from wsiseg.checkpoint import ModelCard
from wsiseg.errors import DataError, StoppedError
from wsiseg.labels import LabelMap
from wsiseg.methods.stages import Labelled
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.patch_data import PatchData, patch_data
from wsiseg.tasks.patch_masks import balance, check_masks, layer_names, write_masks

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from tests.conftest import MakePatchStore

LABELS = LabelMap.from_names(("fat", "stroma"), background=False)
SIDE = 8
CPU = torch.device("cpu")


class Striped:
    """A labeller that knows stripes."""

    layers = ("shallow", "deep")

    def label(
        self,
        images: Tensor,
        present: Tensor,  # noqa: ARG002 - as it is asked
        white: Tensor | None,  # noqa: ARG002
        *,
        indices: NDArray[np.int64],  # noqa: ARG002
    ) -> dict[str, Labelled]:
        stripes = (torch.arange(SIDE) % 2).to(torch.uint8).expand(len(images), SIDE, SIDE)
        return {layer: Labelled(labels=stripes, confidence=stripes) for layer in self.layers}


class Specked(Striped):
    """A labeller that finds nothing but fat, except for some pixels of the first patch."""

    def __init__(self, specks: int) -> None:
        self.specks = specks

    def label(
        self,
        images: Tensor,
        present: Tensor,  # noqa: ARG002 - as it is asked
        white: Tensor | None,  # noqa: ARG002
        *,
        indices: NDArray[np.int64],  # noqa: ARG002
    ) -> dict[str, Labelled]:
        labels = torch.zeros((len(images), SIDE, SIDE), dtype=torch.uint8)
        labels[0, 0, : self.specks] = 1
        return {layer: Labelled(labels=labels, confidence=labels) for layer in self.layers}


@pytest.fixture
def data(tmp_path: Path, make_patch_store: MakePatchStore) -> PatchData:
    made = make_patch_store(tmp_path / "s.zarr", np.full((3, SIDE, SIDE, 3), 150, np.uint8))
    made.add_image_layer("tissue", ImageLayerInfo(labels=LABELS), np.ones((3, 2), np.uint8))
    return patch_data(PatchSet([PatchStore.open(made.path)]), name="toy", layer=None, training_data={})


def model(folder: Path, name: str) -> Path:
    card = ModelCard(name=name, task="semantic", labels=LABELS, tile_px=SIDE, halo_px=1, net={})
    checkpoint.save(folder, card, {"w": torch.zeros(1)})
    return folder


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("run", "run-"),
        ("lung, 2nd/try", "lung-2nd-try-"),
        (".run", "run-"),
        ("Gewebe é.1", "Gewebe-é.1-"),
        ("/", "model-"),
    ],
)
def test_any_name_of_a_model_makes_a_name_of_a_layer(tmp_path: Path, data: PatchData, name: str, begins: str) -> None:
    names = layer_names(data, model(tmp_path / "model", name), Striped.layers)

    write_masks(data, Striped(), names, device=CPU, progress=SILENT, stop=Stop())

    layers = PatchStore.open(tmp_path / "s.zarr").layers
    assert layers.keys() == {*names.values()}
    assert all(layer.startswith(begins) and layer.endswith(("-shallow", "-deep")) for layer in layers)
    makers = {info.made_by for info in layers.values()}
    assert makers == {names["deep"].removesuffix("-deep")}


def test_counting_can_be_stopped(tmp_path: Path, data: PatchData) -> None:
    names = layer_names(data, model(tmp_path / "model", "run"), Striped.layers)
    with pytest.raises(DataError, match=r"pseudo-label has not been run, or with other options\. Add pseudo-label to"):
        check_masks(data, names, where=tmp_path, stage="pseudo-label")
    write_masks(data, Striped(), names, device=CPU, progress=SILENT, stop=Stop())
    check_masks(data, names, where=tmp_path, stage="pseudo-label")

    stop = Stop()
    assert balance(data, names, SILENT, stop)["deep"] == pytest.approx({"coverage": 1.0, "fat": 0.5, "stroma": 0.5})
    stop.request("the test says so")
    with pytest.raises(StoppedError):
        balance(data, names, SILENT, stop)


@pytest.mark.parametrize(
    ("shows", "specks", "is_told"),
    [
        # 1 of 192 pixels is 0.5 %. All patches show both, which makes half of the pixels an even part.
        ([[1, 1], [1, 1], [1, 1]], 1, True),
        ([[1, 1], [1, 1], [1, 1]], 2, False),
        # Stroma is in one patch of three and shares it: a sixth.
        ([[1, 1], [1, 0], [1, 0]], 1, False),
        # Alone in that patch, it would have a third.
        ([[0, 1], [1, 0], [1, 0]], 1, True),
        ([[1, 0], [1, 0], [1, 0]], 0, False),
    ],
)
def test_classes_that_have_gone_are_told_by_what_patches_show(
    tmp_path: Path, make_patch_store: MakePatchStore, shows: list[list[int]], specks: int, *, is_told: bool
) -> None:
    made = make_patch_store(tmp_path / "s.zarr", np.full((3, SIDE, SIDE, 3), 150, np.uint8))
    made.add_image_layer("tissue", ImageLayerInfo(labels=LABELS), np.array(shows, np.uint8))
    data = patch_data(PatchSet([PatchStore.open(made.path)]), name="toy", layer=None, training_data={})
    names = layer_names(data, model(tmp_path / "model", "run"), Specked.layers)
    write_masks(data, Specked(specks), names, device=CPU, progress=SILENT, stop=Stop())

    progress = Listener()
    balance(data, names, progress, Stop())

    warnings = [line for line in progress.heard if line.startswith("warning: stroma is in")]
    assert len(warnings) == (2 if is_told else 0)
