"""What is made of finished labels: polygons, tables, pictures, other formats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from wsiseg.inference.export import export_shapes
from wsiseg.inference.label_png import write_label_png
from wsiseg.inference.measurements import count_classes, summarise, write_measurements
from wsiseg.inference.overlay import Prediction, write_overlay
from wsiseg.labels import IGNORE
from wsiseg.stores.pyramid import build_pyramid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wsiseg.inference.job import Job
    from wsiseg.inference.measurements import ClassRow
    from wsiseg.inference.settings import OutputSettings
    from wsiseg.objects import Objects
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.stores.mask_store import Layer

MEASUREMENTS: Final = "measurements.csv"
OVERLAY: Final = "overlay.png"
LABEL_PNG: Final = "labels.png"
LABEL_TIFF: Final = "labels.ome.tif"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """Makes what is asked for, each thing whole or not at all, and none twice.

    Parameters
    ----------
    job
        Whose bands are all closed.
    folder
        Where files go.
    slide_id
        Name in polygons.
    settings
        What is asked for.
    workers
        Threads.
    """

    job: Job
    folder: Path
    slide_id: str
    settings: OutputSettings
    workers: int

    def write(self, progress: Progress, stop: Stop) -> tuple[list[ClassRow], int | None]:
        """Write what is missing and return the measurements and the number of objects.

        Raises
        ------
        StoppedError
            If `stop` was requested; what is done is on disk.
        DataError
            If there are too many objects for ``labels.png``.
        """
        job, store = self.job, self.job.store
        objects = job.objects() if "instances" in store.layers else None
        counts = count_classes(partial(store.read, "classes"), job.canvas)
        rows = summarise(counts, store.labels, objects=objects, analysed_px=job.analysed_px)
        steps: list[tuple[str, Callable[[], object]]] = [
            ("pyramid", lambda: build_pyramid(store, workers=self.workers, progress=progress)),
            (MEASUREMENTS, lambda: write_measurements(self.folder / MEASUREMENTS, rows, job.canvas)),
            (self._polygons_asked, lambda: self._polygons(objects, progress)),
            (OVERLAY, lambda: self._overlay(objects, rows)),
        ]
        if self.settings.format == "tiff":
            steps.append((LABEL_TIFF, self._tiff))
        if self.settings.label_png:
            steps.append((LABEL_PNG, lambda: self._label_png(objects)))
        done = {record["output"] for record in job.journal.records if "output" in record}
        for name, make in steps:
            if name in done:
                continue
            if stop.is_requested:
                raise stop.error()
            make()
            job.journal.append({"output": name})
        return rows, None if objects is None else len(objects)

    @property
    def _polygons_asked(self) -> str:
        settings = self.settings
        return f"polygons.{settings.polygons} {settings.simplify} {settings.qupath_origin}"

    def _polygons(self, objects: Objects | None, progress: Progress) -> None:
        store = self.job.store
        export_shapes(
            self.folder,
            slide_id=self.slide_id,
            canvas=self.job.canvas,
            labels=store.labels,
            read_classes=partial(store.read, "classes"),
            read_instances=None if objects is None else partial(store.read, "instances"),
            objects=objects,
            polygons=self.settings.polygons,
            simplify=self.settings.simplify,
            origin=self.settings.qupath_origin,
            bounds=self.job.slide.info.bounds,
            progress=progress,
        )

    def _overlay(self, objects: Objects | None, rows: list[ClassRow]) -> None:
        store = self.job.store
        prediction = Prediction(
            canvas=self.job.canvas,
            labels=store.labels,
            read_classes=partial(store.read, "classes"),
            read_instances=None if objects is None else partial(store.read, "instances"),
            objects=objects,
            rows=rows,
        )
        write_overlay(self.folder / OVERLAY, slide=self.job.slide, prediction=prediction, title=self.slide_id)

    @property
    def _layer(self) -> Layer:
        return "instances" if "instances" in self.job.store.layers else "classes"

    def _label_png(self, objects: Objects | None) -> None:
        store = self.job.store
        write_label_png(
            self.folder / LABEL_PNG,
            read=partial(store.read, self._layer),
            size=store.canvas.size,
            highest=IGNORE if objects is None else int(objects.id.max(initial=0)),
        )

    def _tiff(self) -> None:
        from wsiseg.inference.ome_tiff import write_ome_tiff

        store = self.job.store
        write_ome_tiff(
            self.folder / LABEL_TIFF, read=partial(store.read, self._layer), canvas=self.job.canvas, labels=store.labels
        )
