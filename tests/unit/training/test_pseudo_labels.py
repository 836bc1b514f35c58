"""What a network says of patches without labels becomes labels only where it is sure."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from wsiseg.checkpoint import HeadSpec, ModelCard
from wsiseg.errors import StoppedError
from wsiseg.labels import LabelMap
from wsiseg.methods.predictor import NetPredictor
from wsiseg.methods.pseudo_objects import PseudoObjects, PseudoRules
from wsiseg.stopping import Stop
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.training.label_health import Health, annotated_coverage, doubt
from wsiseg.training.pseudo_labels import PseudoLabeller, write_pseudo_labels
from wsiseg.training.sources import Source, UnlabelledSource

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import MakePatchStore

CARD = ModelCard(
    name="noise", task="instance", labels=LabelMap.from_names(("background", "nucleus")), tile_px=128, halo_px=16,
    net={}, head=HeadSpec(kind="flow"),
)  # fmt: skip


class Noise(torch.nn.Module):
    """A network that has learnt nothing, and remembers how many images it saw at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        noise = gaussian_filter(np.random.default_rng(0).normal(size=(3, 128, 128)), (0, 4, 4))
        return torch.from_numpy(noise / noise.std()).float().expand(len(images), -1, -1, -1)


def test_objects_that_a_teacher_sees_in_noise_are_not_believed() -> None:
    labeller = PseudoLabeller(
        NetPredictor(CARD, Noise()), PseudoRules(), min_scores=(0.5, 0.5), device=torch.device("cpu")
    )

    (found,) = labeller.label([np.zeros((128, 128, 3), np.uint8)], workers=0)

    assert found.rejected > 50
    assert len(found.scores) == 0
    assert (found.labels <= 0).all()


def told(*, kept: int = 9, coverage: float = 0.2, ignored: float = 0.1) -> Health:
    return Health(patches=4, kept=kept, rejected=1, mean_score=0.8, coverage=coverage, ignored=ignored, pixels=400)


@pytest.mark.parametrize(
    ("health", "annotated", "words"),
    [
        (told(kept=0), 0.2, "not one object was believed"),
        (told(ignored=0.975, coverage=0.01), 0.2, "nothing is learnt from 97.5% of the pixels"),
        (told(coverage=0.02), 0.2, "objects cover 2.2% of what has pseudo-labels, and 20.0% of what is annotated"),
        (told(coverage=0.5), 0.2, "objects cover 55.6% of what has pseudo-labels, and 20.0% of what is annotated"),
    ],
)
def test_pseudo_labels_that_are_unlike_what_is_annotated_are_told(health: Health, annotated: float, words: str) -> None:
    assert doubt(health, annotated).startswith(words)


@pytest.mark.parametrize("annotated", [0.12, 0.2, 0.4, None])
def test_pseudo_labels_that_look_like_what_is_annotated_are_trusted(annotated: float | None) -> None:
    assert doubt(told(), annotated) == ""


def test_coverage_is_that_of_what_is_known(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    labels = np.zeros((500, 8, 8), np.int32)
    labels[:, :4], labels[:, 7] = -1, 3
    store = make_patch_store(tmp_path / "s.zarr", np.zeros((500, 8, 8, 3), np.uint8), labels, kind="instances")

    assert annotated_coverage([Source(patches=store, layer="truth", indices=np.arange(500))]) == 0.25


class Dark(PseudoLabeller):
    """A labeller to whom each image is one object, as sure as the image is dark; counts what it is shown."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def label(self, images: Iterable[NDArray[np.uint8]], *, workers: int) -> Generator[PseudoObjects]:  # noqa: ARG002 - quick
        for image in images:
            self.seen.append(int(image[0, 0, 0]))
            labels = np.full(image.shape[:2], self.seen[-1] % 2, np.int32)
            labels[0] = -1
            scores = np.full(self.seen[-1] % 2, 1 - image.mean() / 255, np.float32)
            yield PseudoObjects(labels=labels, scores=scores, dropped=np.zeros_like(labels))


class StopsAfter(Stop):
    """Is asked to stop when some of the work is done."""

    def __init__(self, runs: float) -> None:
        super().__init__()
        self.runs = runs

    def keep(self, health: Health) -> None:
        self.health, self.runs = health, self.runs - 1
        if self.runs <= 0:
            self.request("enough")


def nobody(steps: int = 1, *, status: str = "") -> None:
    """Hear nothing."""


def test_labelling_goes_on_where_it_was_stopped(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 8, 8, 3)).copy()
    names = LabelMap.from_names(("background", "nucleus"))
    found = {}
    for name, runs in (("stopped", [1, 1, 9]), ("whole", [9])):
        parts = [images[:60], images[60:]]
        for number, part in enumerate(parts):
            make_patch_store(tmp_path / f"{name}{number}.zarr", part)
        labeller, health = Dark(), Health.of_nothing()
        for count in runs:
            stores = PatchSet([PatchStore.open(tmp_path / f"{name}{number}.zarr") for number in (0, 1)])
            source = UnlabelledSource(patches=stores, layer="", indices=np.arange(5, 95))
            stop = StopsAfter(count)
            with suppress(StoppedError):
                write_pseudo_labels(
                    [(stores, source)], labeller, "made", names, made_by="me", before=health, workers=0,
                    advance=nobody, keep=stop.keep, stop=stop,
                )  # fmt: skip
            health = stop.health
        stores = PatchSet([PatchStore.open(tmp_path / f"{name}{number}.zarr") for number in (0, 1)])
        assert np.flatnonzero(stores.is_labelled("made")).tolist() == list(range(5, 95))
        assert labeller.seen == list(range(5, 95))
        found[name] = (health, stores.read_labels("made", range(5, 95)))

    assert found["stopped"][0] == found["whole"][0]
    assert found["whole"][0].patches == 90
    assert found["whole"][0].coverage == pytest.approx(0.5 * 7 / 8)
    np.testing.assert_array_equal(found["stopped"][1], found["whole"][1])
    assert found["whole"][1][:, 1:].max(axis=(1, 2)).tolist() == [index % 2 for index in range(5, 95)]


def test_a_network_sees_several_images_at_once_and_threads_change_nothing() -> None:
    net = Noise()
    labeller = PseudoLabeller(
        NetPredictor(CARD, net), PseudoRules(min_area_px=1), min_scores=(0, 0), device=torch.device("cpu")
    )
    images = [np.zeros((side, 128, 3), np.uint8) for side in (128, 100, *[128] * 8)]

    alone, threaded = (list(labeller.label(images, workers=workers)) for workers in (0, 2))

    assert net.batches == [8, 2, 8, 2]
    assert [found.labels.shape for found in alone] == [image.shape[:2] for image in images]
    for one, other in zip(alone, threaded, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
