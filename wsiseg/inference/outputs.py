"""What is made of finished labels: polygons, tables, pictures, other formats."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from wsiseg.executors import ordered_map
from wsiseg.inference.export import export_shapes
from wsiseg.inference.label_png import write_label_png
from wsiseg.inference.measurements import count_classes, summarise, write_measurements
from wsiseg.inference.overlay import Prediction, write_overlay
from wsiseg.labels import IGNORE
from wsiseg.stores.pyramid import build_pyramid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from wsiseg.inference.measurements import ClassRow
    from wsiseg.inference.seams import SeamCounter
    from wsiseg.inference.settings import OutputSettings
    from wsiseg.objects import Objects
    from wsiseg.progress import Advance, Progress
    from wsiseg.slides.base import Slide
    from wsiseg.stopping import Stop
    from wsiseg.stores.mask_layers import Layer
    from wsiseg.stores.mask_store import MaskStore

    Step = tuple[str, Callable[[], object]]

MEASUREMENTS: Final = "measurements.csv"
OVERLAY: Final = "overlay.png"
LABEL_PNG: Final = "labels.png"
LABEL_TIFF: Final = "labels.ome.tif"
_AT_ONCE: Final = 2


class _Leash:
    """Progress whose tasks fail at their next step when not even the work in hand is to be finished."""

    def __init__(self, progress: Progress, stop: Stop) -> None:
        self._progress = progress
        self._stop = stop

    @contextmanager
    def task(self, what: str, *, total: int | None, unit: str = "") -> Iterator[Advance]:
        with self._progress.task(what, total=total, unit=unit) as advance:

            def held(steps: int = 1, *, status: str = "") -> None:
                if self._stop.is_urgent:
                    raise self._stop.error()
                advance(steps, status=status)

            yield held

    def say(self, message: str) -> None:
        self._progress.say(message)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """Makes what is asked for, each thing whole or not at all, and none twice.

    Parameters
    ----------
    slide, store
        What was predicted, and the finished labels.
    objects
        The objects of instance models, or None.
    folder
        Where files go.
    slide_id
        Name in polygons.
    settings
        What is asked for.
    workers
        Threads.
    done
        Names of what is there already.
    note
        Told the name of each thing that is made.
    tissue_px
        Canvas pixels of tissue that were analysed, or None where tissue was not looked for.
    seams
        Told the class map when it is measured, or None.
    """

    slide: Slide
    store: MaskStore
    objects: Objects | None
    folder: Path
    slide_id: str
    settings: OutputSettings
    workers: int
    done: Collection[str] = ()
    note: Callable[[str], object] = field(default=lambda _: None)
    tissue_px: float | None = None
    seams: SeamCounter | None = None

    def write(self, analysed_px: int, progress: Progress, stop: Stop) -> list[ClassRow]:
        """Write all that is missing and return the measurements.

        Parameters
        ----------
        analysed_px
            Canvas pixels that were analysed.
        progress, stop
            Told about shapes; looked at between outputs.

        Raises
        ------
        StoppedError
            If `stop` was requested; what is done is on disk.
        DataError
            If there are too many objects for ``labels.png``.
        """
        store = self.store
        counts = count_classes(partial(store.read, "classes"), store.canvas, seams=self.seams)
        rows = summarise(counts, store.labels, objects=self.objects, analysed_px=analysed_px)
        leash = _Leash(progress, stop)
        steps: list[Step] = [
            ("pyramid", lambda: build_pyramid(store, workers=self.workers, progress=leash)),
            (MEASUREMENTS, lambda: self._measurements(rows)),
            *self._asked(leash),
            (OVERLAY, lambda: self._overlay(rows)),
        ]
        self._make(steps, stop)
        return rows

    def write_asked(self, progress: Progress, stop: Stop) -> None:
        """Write what is missing of that which the settings decide on; the rest is there.

        Raises
        ------
        StoppedError
            If `stop` was requested; what is done is on disk.
        DataError
            If there are too many objects for ``labels.png``.
        """
        self._make(self._asked(_Leash(progress, stop)), stop)

    def _asked(self, progress: Progress) -> list[Step]:
        makers: dict[str, Callable[[], object]] = {LABEL_TIFF: self._tiff, LABEL_PNG: self._label_png}
        return [(name, makers.get(name, partial(self._polygons, progress))) for name in names_of(self.settings)]

    def _make(self, steps: Sequence[Step], stop: Stop) -> None:
        def made(step: Step) -> str:
            if stop.is_requested:
                raise stop.error()
            name, make = step
            make()
            return name

        missing = [step for step in steps if step[0] not in self.done]
        # One thing at a time would leave processors idle: much of each is Python of a single thread.
        names = ordered_map(made, missing, workers=_AT_ONCE, ahead=len(missing))
        with closing(names):
            for name in names:
                self.note(name)

    def _measurements(self, rows: list[ClassRow]) -> None:
        write_measurements(self.folder / MEASUREMENTS, rows, self.store.canvas, tissue_px=self.tissue_px)

    def _polygons(self, progress: Progress) -> None:
        store = self.store
        export_shapes(
            self.folder,
            slide_id=self.slide_id,
            canvas=store.canvas,
            labels=store.labels,
            read_classes=partial(store.read, "classes"),
            read_instances=None if self.objects is None else partial(store.read, "instances"),
            objects=self.objects,
            polygons=self.settings.polygons,
            simplify=self.settings.simplify,
            origin=self.settings.qupath_origin,
            bounds=self.slide.info.bounds,
            progress=progress,
        )

    def _overlay(self, rows: list[ClassRow]) -> None:
        store = self.store
        prediction = Prediction(
            canvas=store.canvas,
            labels=store.labels,
            read_classes=partial(store.read, "classes"),
            read_instances=None if self.objects is None else partial(store.read, "instances"),
            objects=self.objects,
            rows=rows,
            tissue_px=self.tissue_px,
        )
        write_overlay(self.folder / OVERLAY, slide=self.slide, prediction=prediction, title=self.slide_id)

    @property
    def _layer(self) -> Layer:
        return "instances" if "instances" in self.store.layers else "classes"

    def _label_png(self) -> None:
        store = self.store
        write_label_png(
            self.folder / LABEL_PNG,
            read=partial(store.read, self._layer),
            size=store.canvas.size,
            highest=IGNORE if self.objects is None else int(self.objects.id.max(initial=0)),
        )

    def _tiff(self) -> None:
        from wsiseg.inference.ome_tiff import write_ome_tiff

        store = self.store
        write_ome_tiff(
            self.folder / LABEL_TIFF,
            read=partial(store.read, self._layer),
            canvas=store.canvas,
            labels=store.labels,
            slide_id=self.slide_id,
        )


def names_of(settings: OutputSettings) -> list[str]:
    """Return a name for each output that the settings decide on; what differs in content differs in name."""
    names = [f"polygons.{settings.polygons} {settings.simplify} {settings.qupath_origin}"]
    if settings.format == "tiff":
        names.append(LABEL_TIFF)
    if settings.label_png:
        names.append(LABEL_PNG)
    return names
