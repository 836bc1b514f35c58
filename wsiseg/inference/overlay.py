"""One picture of a prediction that a person wants to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wsiseg.atomic import atomic_path
from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.inference.legend import Legend, area_text, density_colours
from wsiseg.inference.marks import FAINT, INK, draw_scale_bar, draw_tag, frame, hatch, letter, writable
from wsiseg.inference.measurements import WHOLE
from wsiseg.inference.overview import density, outlines_in, read_pixels, reduce_classes, reduced, telling_windows
from wsiseg.inference.polygons import GREY, label_of
from wsiseg.labels import IGNORE, NOT_ANALYSED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from wsiseg.inference.measurements import ClassRow
    from wsiseg.inference.overview import Loops
    from wsiseg.labels import LabelMap
    from wsiseg.objects import Objects
    from wsiseg.slides.base import Slide

_DPI: Final = 100
_LONGEST_PX: Final = 1600
_SHORTEST_PX: Final = 900
_FIELD_PX: Final = 320  # canvas pixels of the close-up
_CLOSE_UP_PX: Final = 640
_HEADER_PX: Final = 104
_GAP_PX: Final = 28
# Below this a nucleus drawn on the overview is a dot, and density says more.
_VISIBLE_PX: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What there is to show.

    Parameters
    ----------
    canvas, labels
        What the layers mean.
    read_classes
        Gives a window of class indices, uint8 (H, W), 254 = no class, 255 = not analysed.
    read_instances, objects
        Give a window of object ids and their table, for instance models.
    rows
        What was measured, from `summarise`.
    tissue_px
        Canvas pixels of tissue among those analysed, or None where tissue was not looked for.
    """

    canvas: Canvas
    labels: LabelMap
    read_classes: Callable[[Window], NDArray[np.unsignedinteger]]
    read_instances: Callable[[Window], NDArray[np.unsignedinteger]] | None = None
    objects: Objects | None = None
    rows: list[ClassRow]
    tissue_px: float | None = None


def write_overlay(path: Path, *, slide: Slide, prediction: Prediction, title: str) -> None:
    """Draw the slide with what was found on it, close-ups, a legend and scale bars.

    Where single objects would be dots, the overview shows their density instead.

    Parameters
    ----------
    path
        Ends in ``.png``; equal predictions give equal bytes.
    slide
        The slide; parts that cannot be read are shown light grey.
    prediction
        What was found.
    title
        First line of the picture.
    """
    canvas = prediction.canvas
    factor = max(1, -(-max(canvas.size.width, canvas.size.height) // _LONGEST_PX))
    with mpl.rc_context():
        mpl.rcdefaults()
        _Picture(slide, prediction, factor).save(path, title)


class _Picture:
    def __init__(self, slide: Slide, prediction: Prediction, factor: int) -> None:
        self.slide = slide
        self.prediction = prediction
        self.canvas = prediction.canvas
        self.factor = factor
        self.small = reduced(self.canvas, factor)
        self.zoom = max(1.0, _SHORTEST_PX / max(self.small.size.width, self.small.size.height))
        self.classes = reduce_classes(prediction.read_classes, self.canvas, factor)
        side = min(_FIELD_PX, self.canvas.size.width, self.canvas.size.height)
        objects = prediction.objects
        # On small images everything can be seen without a close-up.
        is_large = max(self.canvas.size.width, self.canvas.size.height) > 2 * _FIELD_PX
        self.fields = telling_windows(objects, self.classes, self.canvas, factor, side) if is_large else []
        self.is_density = (
            objects is not None
            and len(objects) > 0
            and float(np.sqrt(np.median(objects.area_px))) / factor < _VISIBLE_PX
        )
        self.densities = np.zeros((0, 0)) if objects is None else density(objects, self.canvas, factor, blur_px=5.0)
        dense = self.densities[self.densities > 0]
        self.highest = float(np.quantile(dense, 0.995)) if len(dense) else 0.0

    def save(self, path: Path, title: str) -> None:
        width, height = round(self.small.size.width * self.zoom), round(self.small.size.height * self.zoom)
        legend = Legend(
            canvas=self.canvas,
            labels=self.prediction.labels,
            rows=self.prediction.rows,
            highest=self.highest / self.factor**2 if self.is_density else None,
        )
        each = _CLOSE_UP_PX + _GAP_PX
        # A second close-up only where it does not make the picture taller.
        self.fields = self.fields[: max(1, (height - legend.height_px) // each)]
        column = _CLOSE_UP_PX if self.fields else 420
        column_height = len(self.fields) * each + legend.height_px
        total = (2 * _GAP_PX + width + _GAP_PX + column, _HEADER_PX + max(height, column_height) + _GAP_PX)
        figure = Figure(figsize=(total[0] / _DPI, total[1] / _DPI), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)

        def place(x: float, y: float, w: float, h: float) -> Axes:
            axes = figure.add_axes((x / total[0], 1 - (y + h) / total[1], w / total[0], h / total[1]))
            axes.set_axis_off()
            return axes

        header = place(_GAP_PX, 0, total[0] - 2 * _GAP_PX, _HEADER_PX)
        header.text(0, 0.62, writable(title), fontsize=21, weight="bold", color=INK, va="center")
        header.text(0, 0.26, self._caption(), fontsize=13.5, color=FAINT, va="center")
        self._draw_overview(place(_GAP_PX, _HEADER_PX, width, height), width)
        left, top = _GAP_PX + width + _GAP_PX, float(_HEADER_PX)
        for number, (_, field) in enumerate(self.fields):
            self._draw_close_up(place(left, top, _CLOSE_UP_PX, _CLOSE_UP_PX), field, number)
            top += each
        legend.draw(place(left, top, column, legend.height_px), column)
        with atomic_path(path) as temporary:
            # Without the name and version of the software, which would change the bytes.
            figure.savefig(temporary, format="png", metadata={"Software": None})

    def _draw_overview(self, axes: Axes, width: int) -> None:
        size = self.small.size
        pixels = read_pixels(self.slide, self.small, self.small.window)
        if self.is_density:
            # Without its colours the tissue does not mix with those of the map.
            pixels = np.repeat(np.rint(pixels.mean(axis=2, keepdims=True)).astype(np.uint8), 3, axis=2)
        extent = (0, size.width, size.height, 0)
        axes.imshow(self._tinted(pixels), extent=extent, interpolation="antialiased")
        prediction = self.prediction
        if self.is_density and prediction.objects is not None:
            axes.imshow(self._heat(), extent=extent, interpolation="bilinear")
        elif prediction.read_instances is not None:
            loops = outlines_in(prediction.read_instances, self.canvas.window)
            self._draw_loops(axes, loops, scale=1 / self.factor, width=min(2.2, 1.1 * self.zoom))
        else:
            self._draw_borders(axes, self.classes, width=0.9)
        hatch(axes, self.classes == IGNORE, extent)
        for number, (_, field) in enumerate(self.fields):
            corner = (field.x / self.factor, field.y / self.factor)
            sides = (field.width / self.factor, field.height / self.factor)
            for colour, line in (("white", 5.0), (INK, 2.5)):
                axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linewidth=line, zorder=4))
            is_at_top = corner[1] < 0.05 * self.small.size.height
            at = (corner[0], corner[1] + sides[1]) if is_at_top else corner
            draw_tag(axes, at, letter(number), size=12, offset=(3, -5) if is_at_top else (3, 5))
        _finish(axes, size.width, size.height)
        draw_scale_bar(axes, self.small, size.width, size.height, shown_px=width)

    def _draw_close_up(self, axes: Axes, field: Window, number: int) -> None:
        ratio = 2
        fine = Canvas(
            Size(self.canvas.size.width * ratio, self.canvas.size.height * ratio),
            Scale(self.canvas.scale.downsample / ratio),
            None if self.canvas.mpp is None else self.canvas.mpp / ratio,
        )
        window = Window(field.x * ratio, field.y * ratio, field.width * ratio, field.height * ratio)
        extent = (field.x, field.right, field.bottom, field.y)
        axes.imshow(read_pixels(self.slide, fine, window), extent=extent, interpolation="antialiased")
        prediction = self.prediction
        classes = prediction.read_classes(field).astype(np.uint8)
        axes.imshow(self._colours(alpha=0.3)[classes], extent=extent, interpolation="nearest")
        hatch(axes, classes == IGNORE, extent)
        if prediction.read_instances is not None:
            self._draw_loops(axes, outlines_in(prediction.read_instances, field), scale=1, width=2.0)
        else:
            self._draw_borders(axes, classes, width=2.0, origin=(field.x, field.y))
        axes.set_xlim(field.x, field.right)
        axes.set_ylim(field.bottom, field.y)
        frame(axes, INK, 2.0)
        draw_tag(axes, (field.x, field.y), f"{letter(number)}  {self.fields[number][0]}", size=14, offset=(5, -5))
        draw_scale_bar(axes, self.canvas, field.width, field.height, shown_px=_CLOSE_UP_PX, origin=(field.x, field.y))

    def _draw_loops(self, axes: Axes, loops: Loops, *, scale: float, width: float) -> None:
        objects = self.prediction.objects
        if objects is None or not len(objects) or not loops.points:
            return
        by_id = np.argsort(objects.id, kind="stable")
        row = np.minimum(np.searchsorted(objects.id[by_id], loops.values), len(by_id) - 1)
        labels = objects.label[by_id[row]]
        for index in np.unique(labels):
            lines = [points * scale for points, label in zip(loops.points, labels, strict=True) if label == index]
            colour = np.asarray(label_of(self.prediction.labels, int(index)).colour) / 255
            # A dark rim keeps bright lines visible on pale tissue.
            for shade, thickness in ((colour * 0.25, width + 1.2), (colour, width)):
                axes.add_collection(
                    LineCollection(lines, colors=[tuple(shade)], linewidths=thickness, joinstyle="round"),
                    autolim=False,
                )

    def _draw_borders(
        self, axes: Axes, classes: NDArray[np.uint8], *, width: float, origin: tuple[int, int] = (0, 0)
    ) -> None:
        for index in np.unique(classes).tolist():
            if index == self.prediction.labels.no_class:
                continue
            mask = (classes == index).astype(np.uint8)
            loops = outlines_in(_reader(mask), Window(0, 0, mask.shape[1], mask.shape[0]))
            lines = [points + np.asarray(origin) for points in loops.points]
            colour = np.asarray(label_of(self.prediction.labels, index).colour) / 255 * 0.8
            axes.add_collection(
                LineCollection(lines, colors=[tuple(colour)], linewidths=width, joinstyle="round"), autolim=False
            )

    def _colours(self, *, alpha: float) -> NDArray[np.float64]:
        """Return RGBA 0 … 1 of each class, (256, 4); background, and what belongs to no class, is clear."""
        table = np.zeros((256, 4))
        labels = self.prediction.labels
        if self.prediction.objects is None:
            for label in labels.labels:
                if label.index != labels.no_class:
                    table[label.index] = (*(np.asarray(label.colour) / 255), alpha)
        table[IGNORE] = (*(np.asarray(GREY) / 255), 0.55)
        return table

    def _tinted(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return RGBA with the colours of the classes, opaque, (H, W, 4)."""
        # Where alpha is missing, matplotlib adds it, and takes three times the memory for numbers of double precision.
        mixed = np.full((*pixels.shape[:2], 4), 255, dtype=np.uint8)
        mixed[:, :, :3] = pixels
        table = self._colours(alpha=0.35)
        is_tinted = (table[:, 3] > 0)[self.classes]
        colours = table[self.classes[is_tinted]]
        mixed[is_tinted, :3] = np.rint(
            pixels[is_tinted] * (1 - colours[:, 3:]) + 255 * colours[:, :3] * colours[:, 3:]
        ).astype(np.uint8)
        return mixed

    def _heat(self) -> NDArray[np.uint8]:
        """Return RGBA of the density, (H, W, 4)."""
        strength = np.linspace(0, 1, 256)
        table = density_colours(strength)
        table[:, 3] = 0.55 * np.clip(strength / 0.15, 0, 1)
        share = np.clip(self.densities / max(self.highest, 1e-12), 0, 1)
        # Pictures of bytes are drawn much faster than those of floats.
        return np.rint(255 * table).astype(np.uint8)[np.rint(255 * share).astype(np.uint8)]

    def _caption(self) -> str:
        whole = next(row for row in self.prediction.rows if row.name == WHOLE)
        missing = next(row for row in self.prediction.rows if row.name == NOT_ANALYSED)
        parts = []
        if whole.objects is not None:
            parts.append(f"{whole.objects:,} objects")
        tissue_px = self.prediction.tissue_px
        # Analysed tiles hold glass too, which would thin the objects out.
        counted, of = (whole.area_px, "analysed") if tissue_px is None else (tissue_px, "of tissue")
        if whole.objects and self.canvas.mpp is not None and counted:
            parts.append(f"{whole.objects / (counted * self.canvas.mpp**2 / 1e6):,.0f} per mm² {of}")
        if tissue_px is not None:
            parts.append(f"{area_text(tissue_px, self.canvas.mpp)} of tissue")
        parts.append(f"{area_text(whole.area_px, self.canvas.mpp)} analysed")
        if missing.area_px:
            parts.append(f"{NOT_ANALYSED}: {area_text(missing.area_px, self.canvas.mpp)}")
        if self.canvas.mpp is not None:
            parts.append(f"{self.canvas.mpp:.3g} µm per pixel")
        return "   ·   ".join(parts)


def _reader(mask: NDArray[np.uint8]) -> Callable[[Window], NDArray[np.uint8]]:
    return lambda window: mask[window.slices]


def _finish(axes: Axes, width: float, height: float) -> None:
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    frame(axes, "#c9ced6", 1.0)
