"""One pass over a slide: from pixels to closed bands on disk.

::

    read ahead → batches through the network → blended blocks → contexts → labels and objects → bands
    (threads)    (a thread of its own)                          (threads)                       (disk)
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.executors import ordered_map, run_ahead
from wsiseg.inference.blending import Blend, Blender
from wsiseg.inference.glass import Glass
from wsiseg.inference.holes import not_analysed, read_around_holes
from wsiseg.inference.instances import Context, Contexts
from wsiseg.inference.labelling import Step, label_step
from wsiseg.inference.painter import Painter
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

    from wsiseg.geometry import Window
    from wsiseg.grid import Tile
    from wsiseg.inference.forward import Network, ReadTile, TileOutput
    from wsiseg.inference.job import Job
    from wsiseg.inference.memory import Load
    from wsiseg.inference.walk import Start
    from wsiseg.methods.base import PredictorSpec
    from wsiseg.progress import Advance, Progress

    # By row and column, what tiles that are read ahead have lost.
    Holes = dict[tuple[int, int], list[Window]]

logger = logging.getLogger(__name__)

# Who asks to stop waits so long for the open band to be closed, if that is going to be enough.
_PATIENCE_S: Final = 20.0


def segment(
    job: Job,
    network: Network,
    *,
    blend: Blend,
    load: Load,
    progress: Progress = SILENT,
    stop: Stop | None = None,
) -> None:
    """Compute and write what the job lacks.

    What cannot be read becomes 255 in the class layer, with a margin, and is noted in the job; bare glass gets no
    class.

    Parameters
    ----------
    job
        What to do.
    network
        What to do it with.
    blend
        How the outputs of overlapping tiles are joined.
    load
        Tiles in a batch, and threads beside the network's own.
    progress
        Told about tiles.
    stop
        Looked at after each step.

    Raises
    ------
    StoppedError
        If `stop` was requested; closed bands are on disk.
    """
    if job.closed_bands == job.walk.bands:
        return
    stop, spec = stop or Stop(), network.predictor.spec
    start = job.walk.start(job.closed_bands)
    order = np.argwhere(job.is_tissue)
    begun = int(np.count_nonzero(order[:, 0] < start.tile_row))
    # The same tiles share a batch whether or not the work was interrupted.
    first = begun // load.batch_size * load.batch_size
    tiles = (job.walk.grid.at(int(row), int(column)) for row, column in order[first:])
    holes: Holes = {}
    glass = None
    if job.white is not None:
        glass = Glass(job.walk, job.white, lambda window: read_around_holes(job.slide, job.canvas, window)[0])
    pixels = ordered_map(
        partial(_read, job, holes, glass), tiles, workers=load.readers, ahead=2 * load.batch_size + load.readers
    )
    trim = (spec.tile_px - job.walk.core_px) // 2 - job.walk.reach_px
    outputs = run_ahead(network.outputs(pixels, batch_size=load.batch_size, trim_px=trim), depth=2)
    with progress.task(job.slide.info.name, total=len(order), unit="tiles") as advance, closing(outputs):
        advance(begun)
        clock = _Clock(job, begun=begun, advance=advance)
        blender = Blender(job.walk, channels=spec.channels, blend=blend, tile_px=spec.tile_px)
        steps = _steps(job, outputs, blender, spec=spec, start=start, clock=clock, holes=holes, glass=glass)
        label = partial(label_step, predictor=network.predictor, with_probs="probability" in job.store.layers)
        labels = ordered_map(label, steps, workers=load.finders, ahead=2 * load.finders)
        painter = Painter(job, start)
        with closing(labels):
            for step in labels:
                painter.paint(step)
                if stop.is_requested and clock.is_up(painter.band):
                    raise stop.error()


class _Clock:
    """Counts tiles and tells how long a band will take."""

    def __init__(self, job: Job, *, begun: int, advance: Advance) -> None:
        self._walk = job.walk
        self._tiles_above = np.cumsum(job.is_tissue.sum(axis=1))
        self._begun = self._done = begun
        self._advance = advance
        self._start = time.monotonic()
        self._last_band: int | None = None

    def tick(self) -> None:
        self._done += 1
        self._advance()

    def is_up(self, band: int) -> bool:
        """Tell whether work that is to stop should do so now, or go on until the open `band` is closed.

        Called from the moment that a stop is requested.
        """
        if self._last_band is None:
            self._last_band = band
        if band > self._last_band:
            return band < self._walk.bands
        left = int(self._tiles_above[self._walk.closing_row(band)]) - self._done
        seconds_per_tile = (time.monotonic() - self._start) / max(1, self._done - self._begun)
        return self._done == self._begun or left * seconds_per_tile > _PATIENCE_S


def _read(job: Job, holes: Holes, glass: Glass | None, tile: Tile) -> ReadTile:
    pixels, found = read_around_holes(job.slide, job.canvas, tile.read)
    if glass is not None:
        glass.look(tile, pixels)
    lost = not_analysed(found, tile.core)
    if not lost:
        return tile, pixels
    logger.info("a part of the tile at row %d, column %d cannot be read and is not analysed", tile.row, tile.column)
    holes[tile.row, tile.column] = lost
    return tile, None if lost == [tile.core] else pixels


def _steps(
    job: Job,
    outputs: Iterator[TileOutput],
    blender: Blender,
    *,
    spec: PredictorSpec,
    start: Start,
    clock: _Clock,
    holes: Holes,
    glass: Glass | None,
) -> Generator[Step]:
    """Yield what becomes final as tiles come in; places where nothing is are left out but for the ends of rows."""
    walk = job.walk
    contexts = Contexts(walk, background=spec.background) if spec.task == "instance" else None
    for row in range(start.tile_row, walk.grid.rows):
        if glass is not None:
            # A block reaches into the row above its own and no further.
            glass.forget(row - 2)
        for column in range(walk.grid.columns):
            output = None
            if job.is_tissue[row, column]:
                output = _next(outputs, row, column)
                if (row, column) in holes:
                    job.holes[row, column] = holes.pop((row, column))
                clock.tick()
            window = walk.block(row, column)
            maps = blender.push(row, column, output)
            is_analysed = is_unreadable = is_labelled = None
            if job.has_tissue(window):
                is_unreadable = job.unreadable(window)
                is_analysed = job.cells(job.is_tissue, window) & ~is_unreadable
                is_labelled = is_analysed if glass is None else is_analysed & ~glass.within(window)
            context = None
            if contexts is not None:
                around = contexts.push(row, column, maps if is_analysed is not None else None, is_analysed)
                if around is not None and row >= start.unit_row:
                    context = _context(job, row, column, around)
            if is_analysed is not None or context is not None or column == walk.grid.columns - 1:
                yield Step(
                    row=row,
                    column=column,
                    window=window,
                    maps=maps if is_analysed is not None else None,
                    is_labelled=is_labelled,
                    is_unreadable=is_unreadable,
                    context=context,
                )


def _next(outputs: Iterator[TileOutput], row: int, column: int) -> NDArray[np.float32] | None:
    """Return the output of one tile; those before it only filled up a batch."""
    for tile, output in outputs:
        if (tile.row, tile.column) == (row, column):
            return output
    raise RuntimeError(f"the network gave no output for the tile at row {row}, column {column}")


def _context(job: Job, row: int, column: int, maps: NDArray[np.float16]) -> Context | None:
    unit, window = job.walk.unit(row, column), job.walk.context(row, column)
    if unit.is_empty or not job.has_tissue(unit):
        return None
    is_analysed = job.cells(job.is_tissue, window) & ~job.unreadable(window)
    return Context(unit=unit, window=window, maps=maps, is_analysed=is_analysed)
