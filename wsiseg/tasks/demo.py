"""The job behind ``wsiseg demo``: the whole way on a small slide, and a page that shows it."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.atomic import atomic_path, write_bytes
from wsiseg.geometry import Canvas, Size, Window
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.tasks.pictures import encoded, png, render

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.progress import Progress

PACKAGE: Final = Path(__file__).parents[1]
REGION: Final = PACKAGE / "demo_data" / "CMU-1-Small-Region.svs"
SLIDE_ID: Final = "demo_slide"
SIDE_PX: Final = 3072
TISSUE: Final = 0.5
MPP: Final = 0.499
SHOWN: Final = (3, 4)  # rows and columns of patches on the page
TISSUE_COLOUR: Final = (0, 150, 90)
FILES: Final = {
    "{slide}.svs": "the slide: open it in QuPath or any viewer",
    "predictions/{slide}/polygons.geojson": "one polygon for each nucleus, ready for QuPath",
    "predictions/{slide}/prediction.zarr": "the masks as OME-Zarr 0.5: classes, instances, uncertainty",
    "predictions/{slide}/objects.csv": "place, size, shape and probability of each nucleus",
    "predictions/{slide}/measurements.csv": "areas and counts for each class",
    "predictions/{slide}/overlay.png": "the picture above",
    "predictions/{slide}/summary.json": "settings, versions, timings",
    "tiles/{slide}.zarr": "the patches, for training",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What the demo made.

    Parameters
    ----------
    page
        The HTML page that shows everything.
    nuclei
        Nuclei found.
    seconds
        Time taken.
    """

    page: Path
    nuclei: int
    seconds: float


def demo(output: Path, *, progress: Progress = SILENT, stop: Stop | None = None) -> DemoReport:
    """Grow a slide, cut it into patches, predict its nuclei and write a page about it.

    Parameters
    ----------
    output
        Folder for everything; what is already there is used.
    progress
        Told of every step.
    stop
        Looked at while predicting.

    Raises
    ------
    StoppedError
        If a stop was requested.
    """
    from wsiseg.inference.settings import PredictSettings
    from wsiseg.tasks.predict import PredictJob, predict
    from wsiseg.tasks.tile import TileConfig, TileJob, tile

    stop = stop or Stop()
    begun = time.monotonic()
    slide = output / f"{SLIDE_ID}.svs"
    if not slide.exists():
        grow(slide, side_px=SIDE_PX, tissue=TISSUE)
    progress.say(f"Grew a slide of {SIDE_PX} × {SIDE_PX} px from a real H&E region: {slide}")
    cut = tile(TileJob(inputs=(str(slide),), output=output / "tiles", settings=TileConfig()), progress, stop)
    cut.raise_failures()
    settings = PredictSettings()
    job = PredictJob(inputs=(str(slide),), output=output / "predictions", settings=settings)
    predict(job, progress, stop).raise_failures()
    summary = json.loads((output / "predictions" / SLIDE_ID / "summary.json").read_text(encoding="utf-8"))
    page = output / "report.html"
    write_bytes(page, _page(output, model=settings.model))
    return DemoReport(page=page, nuclei=summary["objects"], seconds=time.monotonic() - begun)


def grow(path: Path, *, side_px: int, tissue: float) -> None:
    """Write a slide made of the region that comes along; see `grow_slide`."""
    from wsiseg.slides.open import open_slide
    from wsiseg.slides.synthetic import grow_slide

    with open_slide(REGION) as region:
        size = region.info.size
        pixels = region.read_level(0, Window(0, 0, size.width, size.height))
    with atomic_path(path) as temporary:
        grow_slide(pixels, temporary, size=Size(side_px, side_px), tissue=tissue, mpp=MPP, seed=0)


def _page(output: Path, *, model: str) -> bytes:
    from wsiseg.stores.patch_store import PatchStore

    folder = output / "predictions" / SLIDE_ID
    with (folder / "measurements.csv").open(newline="", encoding="utf-8") as file:
        classes = [row for row in csv.DictReader(file) if row["objects"]]
    everything = classes[-1]
    with PatchStore(output / "tiles" / f"{SLIDE_ID}.zarr") as store:
        rows, columns = SHOWN
        chosen = np.linspace(0, len(store) - 1, min(rows * columns, len(store))).round().astype(np.int64)
        patches = png(_sheet(store.read_images(chosen), columns))
        count, patch_px, patch_mpp = len(store), store.patch_px, store.mpp
    return render(
        "demo.html.j2",
        model=model,
        slide_name=f"{SLIDE_ID}.svs",
        slide_size=f"{SIDE_PX} × {SIDE_PX}",
        slide_mpp=MPP,
        facts=[
            {"value": f"{int(everything['objects']):,}", "label": "nuclei"},
            {"value": f"{float(everything['objects_per_mm2_tissue']):,.0f}", "label": "nuclei per mm² of tissue"},
            {"value": f"{float(everything['median_object_area_um2']):.0f} µm²", "label": "median area of a nucleus"},
            {"value": f"{float(everything['tissue_mm2']):.2f} mm²", "label": "tissue"},
        ],
        overlay=encoded((folder / "overlay.png").read_bytes()),
        thumbnail=png(tissue_outlined(output / f"{SLIDE_ID}.svs")),
        patches=patches,
        patches_shown=len(chosen),
        patch_count=count,
        patch_px=patch_px,
        patch_mpp=patch_mpp,
        table={
            "header": [
                "Class",
                "Area (mm²)",
                "Share of analysed",
                "Nuclei",
                "Nuclei per mm² of tissue",
                "Mean nucleus (µm²)",
                "Median nucleus (µm²)",
            ],
            "rows": [_cells(row) for row in classes],
        },
        files=[{"path": path.format(slide=SLIDE_ID), "meaning": meaning} for path, meaning in FILES.items()],
        commands="wsiseg info your_slide.svs\nwsiseg predict your_slide.svs -o predictions",
    )


def _cells(row: dict[str, str]) -> list[str]:
    return [
        row["class"],
        f"{float(row['area_mm2']):.3f}",
        f"{float(row['share_of_analysed']):.1%}",
        f"{int(row['objects']):,}",
        f"{float(row['objects_per_mm2_tissue']):,.0f}",
        f"{float(row['mean_object_area_um2']):.1f}",
        f"{float(row['median_object_area_um2']):.1f}",
    ]


def tissue_outlined(path: Path) -> NDArray[np.uint8]:
    """Return the slide in small with the border of its tissue drawn, RGB (H, W, 3)."""
    from scipy.ndimage import binary_dilation, binary_erosion, zoom

    from wsiseg.slides.open import open_slide
    from wsiseg.slides.reading import read_window
    from wsiseg.tissue import TissueSettings, find_tissue

    with open_slide(path) as slide:
        canvas = Canvas.over(slide.info.size, slide_mpp=MPP, mpp=2.0)
        pixels = read_window(slide, canvas, canvas.window)
        tissue = find_tissue(slide, TissueSettings()).mask
    smooth = zoom(tissue.astype(np.float32), np.divide(pixels.shape[:2], tissue.shape), order=1) > 0.5  # noqa: PLR2004
    border = binary_dilation(smooth, iterations=2) & ~binary_erosion(smooth, iterations=2)
    pixels[border] = TISSUE_COLOUR
    return pixels


def _sheet(images: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Return images (N, H, W, 3) side by side with white gaps."""
    gap = 6
    framed = np.pad(images, ((0, -len(images) % columns), (0, gap), (0, gap), (0, 0)), constant_values=255)
    count, height, width, _ = framed.shape
    sheet = framed.reshape(count // columns, columns, height, width, 3).swapaxes(1, 2)
    return np.ascontiguousarray(sheet.reshape(count // columns * height, columns * width, 3)[:-gap, :-gap])
