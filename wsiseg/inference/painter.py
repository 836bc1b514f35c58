"""Labels onto the canvas, and bands onto the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsiseg.inference.bands import Bands
from wsiseg.inference.instances import paint_objects
from wsiseg.labels import IGNORE
from wsiseg.objects import Objects

if TYPE_CHECKING:
    from wsiseg.inference.job import Job
    from wsiseg.inference.labelling import StepLabels
    from wsiseg.inference.walk import Start


class Painter:
    """Paints one step after the other, and closes each band that is complete.

    A closed band is written, then its objects, then it is noted in the journal.

    Parameters
    ----------
    job
        Where everything goes.
    start
        Where the walk begins.
    """

    def __init__(self, job: Job, start: Start) -> None:
        self._job = job
        self._walk = job.walk
        self._start = start
        self._bands = Bands(job.store, closed=job.closed_bands)
        self._has_objects = "instances" in job.store.layers
        self._next_id = job.first_ids.get(start.exact_row, 1)
        # Rows begun since a band was last closed, with the id that was next.
        self._first_ids: list[tuple[int, int]] = []
        self._row_objects: list[Objects] = []
        self.band = job.closed_bands

    def paint(self, labels: StepLabels) -> None:
        """Paint the labels of one step; the last of a row ends the row."""
        step, bands = labels.step, self._bands
        if labels.uncertainty is not None:
            bands.paint("uncertainty", step.window, labels.uncertainty, where=step.is_labelled)
        if labels.probs is not None:
            bands.paint("probability", step.window, labels.probs, where=step.is_labelled)
        if labels.classes is not None:
            bands.paint("classes", step.window, labels.classes, where=step.is_labelled)
        if step.is_unreadable is not None and step.is_unreadable.any():
            ignored = np.full(step.is_unreadable.shape, IGNORE, dtype=np.uint8)
            bands.paint("classes", step.window, ignored, where=step.is_unreadable)
        if labels.found is not None:
            objects = paint_objects(labels.found, bands, first_id=self._next_id)
            if step.row >= self._start.exact_row:
                self._row_objects.append(objects)
                self._next_id += len(objects)
        bands.write_settled(*self._walk.settled(step.row, step.column))
        if step.column == self._walk.grid.columns - 1:
            self._end_row(step.row)

    def _end_row(self, row: int) -> None:
        if row >= self._start.exact_row:
            self._first_ids.append((row + 1, self._next_id))
            if self._has_objects:
                Objects.concat(self._row_objects).save(self._job.part(row))
            self._row_objects.clear()
        bottom, _ = self._walk.settled(row, self._walk.grid.columns - 1)
        # Rows without anything to paint have not been looked at for shards that they settle.
        self._bands.write_settled(bottom, self._walk.canvas.width)
        while self.band < self._walk.bands and self._bottom(self.band) <= bottom:
            self._job.close_band(self.band, self._first_ids)
            self._first_ids = []
            self.band += 1

    def _bottom(self, band: int) -> int:
        return min((band + 1) * self._walk.band_px, self._walk.canvas.height)
