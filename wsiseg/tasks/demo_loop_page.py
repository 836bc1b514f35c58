"""The page of ``wsiseg demo --loop``: a picture of each stage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.geometry import Window
from wsiseg.inference.prediction import PREDICTION
from wsiseg.metrics.instances import tally_instances
from wsiseg.metrics.overlaps import count_overlaps
from wsiseg.slides.open import open_slide
from wsiseg.slides.reading import read_window
from wsiseg.stores.mask_store import MaskStore
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patches import patch_names
from wsiseg.synthesis.gan_files import PAIRS
from wsiseg.synthesis.sheets import outlined, sheet
from wsiseg.tasks.demo import tissue_outlined
from wsiseg.tasks.pictures import encoded, png, render, some
from wsiseg.tasks.select import RECORD
from wsiseg.tasks.select_files import GEOJSON, TABLE, read_chosen
from wsiseg.tasks.select_report import CLUSTER_MAP, PAGE, SHEET, UNCERTAINTY_MAP
from wsiseg.tasks.synth_report import PAGE as QUALITY
from wsiseg.tasks.train_rounds import HEALTH

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]
    Labels = NDArray[np.int32]

SLIDE_ID: Final = "loop_slide"
SLIDE: Final = f"{SLIDE_ID}.svs"
TILES: Final = "tiles"
SELECTION: Final = "selected"
ANNOTATOR: Final = "annotator"
ANNOTATIONS: Final = "annotations.geojson"
GANS: Final = "gans"
SYNTHETIC: Final = "synthetic.zarr"
RUN: Final = "run"
PREDICTIONS: Final = "predictions"
PROPOSED: Final = "next"
# Of the layer of annotations.
LAYER: Final = "labels"
_STUDENT: Final = "student-1"
_FILES: Final = {
    SLIDE: "the slide: open it in QuPath or any viewer",
    f"{SELECTION}/{PAGE}": "which patches were chosen, and why",
    f"{SELECTION}/{GEOJSON}": "boxes around them, to drag onto the slide in QuPath",
    ANNOTATIONS: "what was drawn in the boxes, as QuPath exports it",
    f"{GANS}/{QUALITY}": "how good the synthetic patches are",
    RUN: f"the teacher, {_STUDENT}, and in best/ the model to use",
    f"{PREDICTIONS}/{SLIDE_ID}/polygons.geojson": "the nuclei that it finds, to drag onto the slide in QuPath",
    f"{PROPOSED}/{PAGE}": "which patches to annotate next",
}
_COMMANDS: Final = """\
wsiseg tile slides/ -o tiles
wsiseg select tiles/ -k 6 -o chosen --download
wsiseg label tiles/slide.zarr --from annotations.geojson --as instances
wsiseg synth fit tiles/ --selection chosen/selection.csv -o gans
wsiseg synth sample gans -o synthetic.zarr
wsiseg train --method label-efficient tiles/ synthetic.zarr --val-fraction 0 -o run
wsiseg predict slides/ --model run -o predictions
wsiseg select tiles/ -k 6 -o next --strategy uncertainty --prediction predictions"""
_SHOWN: Final = 4
_FIELD_PX: Final = 320
_WHITE: Final = 255
# How much of a picture is hidden where nothing is learnt.
_COVER: Final = 0.65


def loop_page(folder: Path) -> tuple[bytes, int]:
    """Return the page about the loop in a folder that is complete, and how many nuclei its model found."""
    store = PatchStore.open(folder / TILES / f"{SLIDE_ID}.zarr")
    chosen = [row["patch"] for row in read_chosen(folder / SELECTION / TABLE)]
    names = patch_names(store)
    annotated = np.array([names.index(name) for name in chosen])
    labels, images = store.read_labels(LAYER, annotated), list(store.read_images(annotated))
    health = json.loads((folder / RUN / _STUDENT / HEALTH).read_bytes())
    annotator, model = (_instances(folder / name / SLIDE_ID / PREDICTION) for name in (ANNOTATOR, PREDICTIONS))
    nuclei = len(np.unique(model[model > 0]))
    f1 = _agreement(annotator, model, store.windows[annotated], store.patch_px)
    record = json.loads((folder / SELECTION / RECORD).read_bytes())
    synthetic = PatchStore.open(folder / SYNTHETIC)
    page = render(
        "demo_loop.html.j2",
        patches=len(chosen),
        patch_px=store.patch_px,
        facts=[
            {"value": f"{len(chosen)} of {len(store)}", "label": "patches annotated"},
            {"value": f"{record['labelled_fraction']:.1%}", "label": "of the tissue's pixels"},
            {"value": f"{len(synthetic)}", "label": "synthetic patches"},
            {"value": f"{nuclei:,}", "label": "nuclei found"},
            {"value": f"{f1:.2f}", "label": "object F1 against the stand-in, elsewhere"},
        ],
        slide=png(tissue_outlined(folder / SLIDE)),
        cluster_map=_file(folder / SELECTION / CLUSTER_MAP / f"{SLIDE_ID}.png"),
        contact_sheet=_file(folder / SELECTION / SHEET),
        annotated=png(_sheet(chosen, images, images, labels)),
        synthetic=[_file(path) for path in sorted((folder / GANS).glob(f"*/{PAIRS}"))],
        pseudo=png(_pseudo(store, health["layer"])),
        health=health,
        overlay=_file(folder / PREDICTIONS / SLIDE_ID / "overlay.png"),
        fields=_fields(folder, annotator, model, store.windows[annotated], store.patch_px),
        uncertainty=_file(folder / PROPOSED / UNCERTAINTY_MAP / f"{SLIDE_ID}.png"),
        files=[{"path": path, "meaning": meaning} for path, meaning in _FILES.items()],
        commands=_COMMANDS,
    )
    return page, nuclei


def _instances(prediction: Path) -> NDArray[np.int64]:
    store = MaskStore.open(prediction)
    return store.read("instances", store.canvas.window).astype(np.int64)


def _agreement(
    annotator: NDArray[np.int64], model: NDArray[np.int64], corners: NDArray[np.int64], patch_px: int
) -> float:
    """Return the object F1 of two label images beyond the patches that were annotated."""
    is_known = np.ones(model.shape, dtype=np.bool_)
    for x, y in corners.tolist():
        is_known[y : y + patch_px, x : x + patch_px] = False
    return float(tally_instances(count_overlaps(model * is_known, annotator * is_known)).scores()["f1"])


def _sheet(titles: Sequence[str], images: Sequence[Picture], below: Sequence[Picture], labels: Labels) -> Picture:
    """Return images in a row, and under each another with outlines on it."""
    drawn = [("", outlined(image, own)) for image, own in zip(below, labels, strict=True)]
    return sheet([list(zip(titles, images, strict=True)), drawn])


def _pseudo(store: PatchStore, layer: str) -> Picture:
    """Return some patches, and their pseudo-labels; where nothing is learnt they are pale."""
    is_whole = (store.extents == store.patch_px).all(axis=1)
    indices = some(np.flatnonzero(store.is_labelled(layer) & is_whole), _SHOWN)
    labels, images = store.read_labels(layer, indices), store.read_images(indices)
    pale = [_faded(image, own < 0) for image, own in zip(images, labels, strict=True)]
    names = patch_names(store)
    return _sheet([names[at] for at in indices.tolist()], list(images), pale, np.maximum(labels, 0))


def _faded(image: Picture, where: NDArray[np.bool_]) -> Picture:
    cover = _COVER * where[..., None]
    faded: Picture = (image * (1 - cover) + _WHITE * cover).astype(np.uint8)
    return faded


def _fields(
    folder: Path, annotator: NDArray[np.int64], model: NDArray[np.int64], corners: NDArray[np.int64], patch_px: int
) -> list[str]:
    """Return a field without annotated patches twice: what the stand-in finds there, and what the model does."""
    taken = [Window(x, y, patch_px, patch_px) for x, y in corners.tolist()]
    height, width = model.shape
    windows = [
        Window(x, y, _FIELD_PX, _FIELD_PX)
        for y in range(0, height - _FIELD_PX, patch_px)
        for x in range(0, width - _FIELD_PX, patch_px)
    ]
    free = [one for one in windows if all(one.intersection(other).is_empty for other in taken)] or windows
    field = max(free, key=lambda one: len(np.unique(annotator[one.slices])))
    with open_slide(folder / SLIDE) as slide:
        canvas = MaskStore.open(folder / PREDICTIONS / SLIDE_ID / PREDICTION).canvas
        pixels = read_window(slide, canvas, field)
    return [png(outlined(pixels, labels[field.slices])) for labels in (annotator, model)]


def _file(path: Path) -> str:
    return encoded(path.read_bytes())
