"""Label maps that are exported as polygons come back as they were, and at other resolutions as `Scale` rounds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsiseg.annotations import place_drawing, read_features
from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.inference.geojson import geojson_writer
from wsiseg.inference.placing import Frame
from wsiseg.inference.polygons import object_shapes, region_shapes
from wsiseg.labels import IGNORE, LabelMap
from wsiseg.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from wsiseg.annotations import Drawing
    from wsiseg.inference.polygons import Shapes

shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))
# Few ids on few pixels: objects in parts, with holes, and touching by sides and corners.
instances = hnp.arrays(np.uint32, shapes, elements=st.integers(0, 4)).filter(np.any)
classes = hnp.arrays(np.uint8, shapes, elements=st.sampled_from([0, 1, 2, IGNORE]))
downsample = st.sampled_from([1.0, 2.0, 4.0, 0.5, 1.0 / 3, 0.5 / 0.499]) | st.floats(0.3, 70)
origin = st.tuples(st.integers(-500, 100_000), st.integers(-500, 100_000))

LABELS = LabelMap.from_names(("background", "stroma", "tumour"))


def there_and_back(made: Iterable[Shapes], frame: Frame, scale: Scale) -> Drawing:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.geojson"
        with geojson_writer(path, slide_id="a", labels=LABELS, origin="bounds") as add:
            for some in made:
                add(some)
        return place_drawing(read_features(path), scale, frame.origin)


def frame_of(labels: NDArray[np.unsignedinteger], downsample: float, origin: tuple[int, int]) -> Frame:
    size = Size(labels.shape[1], labels.shape[0])
    return Frame(canvas=Canvas(size, Scale(downsample), None), origin=origin)


def exported(labels: NDArray[np.uint32], frame: Frame) -> Iterable[Shapes]:
    return object_shapes(
        lambda window: labels[window.slices], frame, objects=Objects.measured(labels), tolerance=0, band_rows=3
    )


def renumbered(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return ids in the order in which they appear, row by row; 0 stays."""
    ids, first, index = np.unique(labels, return_index=True, return_inverse=True)
    # Background before all others, whether it is there or not.
    order = np.argsort(np.argsort(np.where(ids == 0, -1, first))) + (0 not in ids)
    return np.asarray(order[index].reshape(labels.shape))


@settings(max_examples=200)
@given(instances, downsample, origin)
def test_objects_come_back_as_they_were(labels: NDArray[np.uint32], downsample: float, origin: tuple[int, int]) -> None:
    frame = frame_of(labels, downsample, origin)

    drawing = there_and_back(exported(labels, frame), frame, frame.canvas.scale)
    found, drawn = drawing.labels(frame.canvas.window, drawing.numbers, background=0, ignore=-1, is_complete=True)

    np.testing.assert_array_equal(renumbered(found), renumbered(labels))
    assert not drawn.is_covered.any()


@settings(max_examples=100)
@given(classes, downsample, origin)
def test_classes_come_back_as_they_were(labels: NDArray[np.uint8], downsample: float, origin: tuple[int, int]) -> None:
    frame = frame_of(labels, downsample, origin)

    made = region_shapes(lambda window: labels[window.slices], frame, labels=LABELS, tolerance=0, band_rows=3)
    drawing = there_and_back(made, frame, frame.canvas.scale)
    values = np.array([LABELS.names.index(names[0]) for names in drawing.names], dtype=np.int32)
    found, _ = drawing.labels(frame.canvas.window, values, background=0, ignore=IGNORE, is_complete=True)

    np.testing.assert_array_equal(found, labels)


@settings(max_examples=100)
@given(instances, st.floats(0.5, 8), st.floats(0.25, 3))
def test_at_another_resolution_edges_are_rounded(labels: NDArray[np.uint32], downsample: float, coarser: float) -> None:
    frame = frame_of(labels, downsample, (0, 0))
    scale = Scale(downsample * coarser)
    # Where the sides of pixels lie, as the file tells it.
    edges = [frame.on_slide(np.array([[place, place]], dtype=np.float64))[0, 0] for place in range(13)]
    moved = np.array([round(edge / scale.downsample) for edge in edges])
    size = Size(int(moved[labels.shape[1]]), int(moved[labels.shape[0]]))
    row, column = (np.searchsorted(moved, np.arange(end), side="right") - 1 for end in (size.height, size.width))

    drawing = there_and_back(exported(labels, frame), frame, scale)
    window = Window(0, 0, size.width, size.height)
    found, _ = drawing.labels(window, drawing.numbers, background=0, ignore=-1, is_complete=True)

    np.testing.assert_array_equal(renumbered(found), renumbered(labels[np.ix_(row, column)]))


@settings(max_examples=50)
@given(instances, downsample, st.integers(0, 11), st.integers(0, 11))
def test_an_object_that_patches_cut_keeps_its_id_in_each(
    labels: NDArray[np.uint32], downsample: float, x: int, y: int
) -> None:
    frame = frame_of(labels, downsample, (0, 0))
    drawing = there_and_back(exported(labels, frame), frame, frame.canvas.scale)
    whole, _ = drawing.labels(frame.canvas.window, drawing.numbers, background=0, ignore=-1, is_complete=True)
    patch = Window(x, y, 5, 5).clipped(frame.canvas.size)

    found, _ = drawing.labels(patch, drawing.numbers, background=0, ignore=-1, is_complete=True)

    np.testing.assert_array_equal(found, whole[patch.slices])
