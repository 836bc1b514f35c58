"""The picture of a prediction shows each class in its colour, survives odd slides, and is the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.inference.measurements import count_classes, summarise
from wsiseg.inference.overlay import Prediction, write_overlay
from wsiseg.inference.overview import read_pixels, reduce_classes, telling_windows
from wsiseg.labels import LabelMap
from wsiseg.objects import Objects
from wsiseg.slides.array import ArraySlide

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NUCLEI = LabelMap.from_names(("background", "nucleus"))
TISSUES = LabelMap.from_names(("background", "tumour", "stroma"))


def _prediction(
    classes: NDArray[np.uint8],
    labels: LabelMap,
    instances: NDArray[np.uint32] | None = None,
    mpp: float | None = 0.5,
) -> Prediction:
    canvas = Canvas(Size(classes.shape[1], classes.shape[0]), Scale(1.0), mpp)
    objects = None if instances is None else Objects.measured(instances)
    return Prediction(
        canvas=canvas,
        labels=labels,
        read_classes=lambda window: classes[window.slices],
        read_instances=None if instances is None else lambda window: instances[window.slices],
        objects=objects,
        rows=summarise(count_classes(lambda window: classes[window.slices], canvas), labels, objects=objects),
    )


def _slide(shape: tuple[int, ...], **options: Any) -> ArraySlide:  # noqa: ANN401 - handed on
    return ArraySlide(np.full((*shape[:2], 3), 240, dtype=np.uint8), mpp=0.5, **options)


def _nuclei(height: int, width: int, step: int) -> NDArray[np.uint32]:
    instances = np.zeros((height, width), dtype=np.uint32)
    ys, xs = np.mgrid[8 : height - 16 : step, 8 : width - 16 : step]
    for number, (y, x) in enumerate(zip(ys.ravel(), xs.ravel(), strict=True)):
        instances[y : y + 9, x : x + 7] = number + 1
    return instances


def _shares(path: Path, colour: tuple[int, int, int]) -> float:
    """Return the share of pixels of about this colour."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(np.int64)
    return float((np.abs(pixels - colour).max(axis=2) < 20).mean())


def test_nuclei_are_outlined_in_the_colour_of_their_class(tmp_path: Path) -> None:
    instances = _nuclei(200, 260, 20)
    prediction = _prediction((instances > 0).astype(np.uint8), NUCLEI, instances)

    for name in ("one", "two"):
        write_overlay(tmp_path / f"{name}.png", slide=_slide(instances.shape), prediction=prediction, title="a slide")

    assert _shares(tmp_path / "one.png", NUCLEI[1].colour) > 0.01
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_classes_are_tinted_and_what_was_not_analysed_is_grey(tmp_path: Path) -> None:
    classes = np.zeros((300, 400), dtype=np.uint8)
    classes[:, :150] = 1
    classes[:, 150:250] = 2
    classes[200:, 300:] = 255

    write_overlay(
        tmp_path / "overlay.png", slide=_slide(classes.shape), prediction=_prediction(classes, TISSUES), title="t"
    )

    for index in (1, 2):
        tint = np.asarray(TISSUES[index].colour) * 0.35 + 240 * 0.65
        assert _shares(tmp_path / "overlay.png", (int(tint[0]), int(tint[1]), int(tint[2]))) > 0.05
    assert _shares(tmp_path / "overlay.png", (178, 178, 178)) > 0.02


def test_what_belongs_to_no_class_is_shown_as_it_is(tmp_path: Path) -> None:
    labels = LabelMap.from_names(("tumour", "stroma"), background=False)
    classes = np.full((300, 400), 254, dtype=np.uint8)
    classes[100:200, 100:200] = 1

    write_overlay(
        tmp_path / "overlay.png", slide=_slide(classes.shape), prediction=_prediction(classes, labels), title="t"
    )

    with Image.open(tmp_path / "overlay.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    bare = (pixels == 240).all(axis=2).sum()
    tinted = (pixels == np.rint(np.asarray(labels[1].colour) * 0.35 + 240 * 0.65)).all(axis=2).sum()
    assert bare == pytest.approx(11 * tinted, rel=0.1)


@pytest.mark.parametrize("kind", ["none found", "one pixel", "no scale", "unreadable"])
def test_odd_slides_have_a_picture_too(tmp_path: Path, kind: str) -> None:
    shape = (1, 1) if kind == "one pixel" else (700, 300)
    instances = np.zeros(shape, dtype=np.uint32)
    if kind == "no scale":
        instances[100:110, 100:110] = 3
    slide = _slide(shape, broken=[Window(0, 0, 50, 50)] if kind == "unreadable" else [])
    prediction = _prediction(
        (instances > 0).astype(np.uint8), NUCLEI, instances, mpp=None if kind == "no scale" else 0.5
    )

    write_overlay(tmp_path / "overlay.png", slide=slide, prediction=prediction, title=kind)

    with Image.open(tmp_path / "overlay.png") as picture:
        assert min(picture.size) > 400


@pytest.mark.slow
def test_a_large_slide_shows_density_instead_of_dots(tmp_path: Path) -> None:
    instances = _nuclei(5000, 4000, 40)
    prediction = _prediction((instances > 0).astype(np.uint8), NUCLEI, instances)

    write_overlay(tmp_path / "overlay.png", slide=_slide(instances.shape), prediction=prediction, title="large")

    assert _shares(tmp_path / "overlay.png", (240, 240, 240)) < 0.5


def test_a_reduced_pixel_has_the_commonest_class_under_it() -> None:
    classes = np.zeros((7, 10), dtype=np.uint8)
    classes[:4, :3] = 2
    classes[:, 8:] = 5
    canvas = Canvas(Size(10, 7), Scale(1.0), None)

    small = reduce_classes(lambda window: classes[window.slices], canvas, 4)

    np.testing.assert_array_equal(small, [[2, 0, 5], [0, 0, 5]])


def test_classes_are_reduced_in_pieces_of_bounded_size() -> None:
    classes = np.random.default_rng(0).integers(0, 4, (1300, 8200)).astype(np.uint8)
    wide = np.tile(classes, (1, 3))
    read: list[int] = []

    def window_of(window: Window) -> NDArray[np.uint8]:
        read.append(window.size.area)
        return wide[window.slices]

    alone = reduce_classes(lambda window: classes[window.slices], Canvas(Size(8200, 1300), Scale(1.0), None), 25)
    small = reduce_classes(window_of, Canvas(Size(24_600, 1300), Scale(1.0), None), 25)

    np.testing.assert_array_equal(small, np.tile(alone, (1, 3)))
    assert sum(read) == wide.size
    assert max(read) <= 1 << 23


def test_an_unreadable_piece_leaves_the_rest_of_the_picture() -> None:
    pixels = np.full((3000, 1500, 3), 7, dtype=np.uint8)
    slide = ArraySlide(pixels, broken=[Window(10, 10, 5, 5)])
    canvas = Canvas(Size(1500, 3000), Scale(1.0), None)

    result = read_pixels(slide, canvas, canvas.window)

    assert (result[10:15, 10:15] == 225).all()
    assert (result[16:] == 7).all()
    assert (result[:, 16:] == 7).all()


def test_what_was_not_analysed_is_hatched_in_close_ups_too(tmp_path: Path) -> None:
    instances = _nuclei(1000, 1000, 20)
    classes = (instances > 0).astype(np.uint8)
    shown = []
    for name, hole in (("whole", (slice(0), slice(0))), ("holed", (slice(None), slice(0, 1000)))):
        missing = classes.copy()
        missing[hole] = 255
        write_overlay(
            tmp_path / f"{name}.png", slide=_slide(classes.shape), prediction=_prediction(missing, NUCLEI, instances),
            title=name,
        )  # fmt: skip
        shown.append(_shares(tmp_path / f"{name}.png", (74, 81, 96)))

    assert shown[1] > shown[0] + 0.02


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("title", ["腎臓 スライド", "слайд", "a $1 $2 \\frac", "tab\tand\nline"])
def test_any_title_is_written_without_a_warning(tmp_path: Path, title: str) -> None:
    classes = np.zeros((60, 80), dtype=np.uint8)

    write_overlay(
        tmp_path / "o.png", slide=_slide(classes.shape), prediction=_prediction(classes, TISSUES), title=title
    )

    assert (tmp_path / "o.png").exists()


def test_close_ups_show_the_densest_place_and_another() -> None:
    instances = np.zeros((1000, 1000), dtype=np.uint32)
    for number in range(30):
        instances[800 + 4 * number : 802 + 4 * number, 800:802] = number + 1
    instances[100:104, 100:104] = 99
    canvas = Canvas(Size(1000, 1000), Scale(1.0), None)

    windows = telling_windows(
        Objects.measured(instances), np.zeros((500, 500), dtype=np.uint8), canvas, factor=2, side=200
    )

    (first, densest), (second, typical) = windows
    assert (first, second) == ("densest field", "typical field")
    assert densest.x <= 800 <= densest.right
    assert typical.x <= 100 <= typical.right
    assert densest.intersection(typical).is_empty
