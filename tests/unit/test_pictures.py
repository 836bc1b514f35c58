"""Pictures of classes show what they are of, and a page needs nothing beside itself."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from wsiseg.labels import IGNORE, Label, LabelMap
from wsiseg.tasks.pictures import covered, keys, png, shaded, some
from wsiseg.tasks.train_report import gate_warning

LABELS = LabelMap(
    labels=(Label(index=0, name="red", colour=(250, 0, 0)), Label(index=1, name="blue", colour=(0, 0, 250)))
)


def test_classes_are_tinted_and_what_is_ignored_is_not() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)

    red, blue, ignored = covered(image, np.array([[0, 1, IGNORE]]), LABELS)[0]

    assert red[0] > 100 > red[2]
    assert blue[2] > 100 > blue[0]
    assert ignored.tolist() == [100, 100, 100]


def test_shades_of_certain_classes_are_their_tints() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    mask = np.arange(20).reshape(4, 5) % 2
    prob = np.stack([mask == 0, mask == 1]).astype(np.float32)

    np.testing.assert_allclose(shaded(image, prob, LABELS), covered(image, mask, LABELS), atol=1)
    middle = shaded(image, np.full((2, 4, 5), 0.5, np.float32), LABELS).astype(np.int64)
    assert (np.abs(2 * middle - covered(image, mask, LABELS) - covered(image, 1 - mask, LABELS)) <= 3).all()


def test_a_picture_is_the_same_in_a_page() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)

    with Image.open(io.BytesIO(base64.b64decode(png(image)))) as found:
        np.testing.assert_array_equal(np.asarray(found), image)
    assert keys(LABELS) == [{"name": "red", "colour": "#fa0000"}, {"name": "blue", "colour": "#0000fa"}]


@pytest.mark.parametrize("count", [1, 3, 10])
@pytest.mark.parametrize("most", [1, 4])
def test_some_are_spread_evenly(count: int, most: int) -> None:
    found = some(np.arange(count), most)

    assert len(found) == min(count, most) == len(set(found.tolist()))
    assert found[0] == 0
    assert most == 1 or found[-1] == count - 1


def test_a_gate_that_does_harm_is_told() -> None:
    assert gate_warning("segment", 0.70, 0.72) == ""
    assert gate_warning("segment", 0.08, 0.92).startswith("warning: segment has an mIoU of 0.080 with its gate")
