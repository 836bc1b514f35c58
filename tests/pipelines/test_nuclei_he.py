"""The material and the batches that the shipped model learns from are what its README says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wsiseg.heads.registry import make_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

SIDE = 96


@pytest.fixture(scope="module")
def pipeline(scripts: Callable[..., AbstractContextManager[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Return the modules of the pipeline."""
    with scripts("nuclei_he", "material", "mixture", "evaluate") as found:
        yield found


def purple_cells(pipeline: dict[str, Any], radius: int) -> Any:  # noqa: ANN401 - the pipeline is no package
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), dtype=np.int32)
    rgb = np.full((SIDE, SIDE, 3), (180, 160, 210), dtype=np.uint8)
    for number, (cy, cx) in enumerate(((24, 24), (24, 70), (70, 24), (70, 70)), start=1):
        inside = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        labels[inside] = number
        rgb[inside] = (80, 40, 160)
    return pipeline["material"].Cells(name=str(radius), stain="purple_on_purple", rgb=rgb, labels=labels)


def mixture(pipeline: dict[str, Any]) -> Any:  # noqa: ANN401 - the pipeline is no package
    rgb = np.full((300, 300, 3), (220, 150, 190), dtype=np.uint8)
    labels = np.zeros((300, 300), dtype=np.int32)
    labels[140:152, 140:153] = 1
    rgb[labels > 0] = (70, 40, 120)
    cells = [purple_cells(pipeline, radius) for radius in (9, 18)]
    valid = np.ones(labels.shape, dtype=bool)
    encode = make_head("flow").targets
    return pipeline["mixture"].Mixture(cells, rgb, labels, valid, encode=encode, seed=3)


def test_a_batch_depends_on_its_number_alone(pipeline: dict[str, Any]) -> None:
    first, again = (mixture(pipeline).make(5) for _ in range(2))
    other = mixture(pipeline).make(6)

    assert first.images.shape == (8, 3, 160, 160)
    assert first.images.equal(again.images)
    assert first.targets["maps"].equal(again.targets["maps"])
    assert not first.images.equal(other.images)


def test_cells_of_any_size_are_brought_to_the_size_of_the_slides_nuclei(pipeline: dict[str, Any]) -> None:
    material, source = pipeline["material"], pipeline["mixture"]
    rng = np.random.default_rng(0)
    for radius in (9, 18):
        cells = purple_cells(pipeline, radius)
        whole = np.ones(cells.labels.shape, dtype=bool)
        size = material.diameter_px(cells.labels)
        picture = material.Picture.of(cells.rgb, cells.labels, whole, size)

        image, labels, valid = source._warped(picture, rng, 13 / size)

        assert image.shape == (160, 160, 3)
        assert 2 * np.sqrt(np.bincount(labels.ravel())[1:].max() / np.pi) == pytest.approx(13, rel=0.15)
        assert not labels[~valid].any()


def test_the_scale_of_an_image_is_found_without_its_labels(pipeline: dict[str, Any]) -> None:
    def dark_things(rgb: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        from scipy import ndimage

        labels: np.ndarray[Any, Any] = ndimage.label(rgb[..., 1] < 100)[0]
        return labels

    for radius in (8, 14):
        factor = pipeline["evaluate"].own_scale(dark_things, purple_cells(pipeline, radius).rgb)

        assert factor * (2 * radius + 1) == pytest.approx(13, rel=0.12)


def test_emptied_nuclei_are_paler_inside_than_at_their_rims(pipeline: dict[str, Any]) -> None:
    labels = purple_cells(pipeline, 14).labels
    rng = np.random.default_rng(0)
    inside, rim = [], []
    y, x = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(y - 24, x - 24)
    for _ in range(20):
        dye = pipeline["mixture"].chromatin((labels > 0).astype(np.float32), labels, rng, hollow=0.9)
        inside.append(np.median(dye[distance < 8]))
        rim.append(np.median(dye[(distance > 13) & (labels == 1)]))
        assert not dye[labels == 0].any()

    assert np.mean(inside) < 0.5 * np.mean(rim)


def test_images_are_learnt_from_chosen_by_or_held_out_and_never_two_of_these(
    pipeline: dict[str, Any], data_dir: Path
) -> None:
    parts = pipeline["material"].read_cells(data_dir / "nuclei_dsb2018")

    assert [len(part) for part in parts] == [52, 7, 16]
    names = [cells.name for part in parts for cells in part]
    assert len(set(names)) == len(names)
    _, _, held_out = parts
    assert {cells.stain for cells in held_out} == {"HE_pink", "purple_on_purple", "purple_on_white"}


@pytest.mark.slow
def test_the_slide_gets_labels_where_nuclei_are_and_none_where_there_are_none(
    pipeline: dict[str, Any], cmu_svs: Path
) -> None:
    material = pipeline["material"]
    rgb = material.read_slide(cmu_svs)
    regions = material.Regions.read(rgb.shape[:2])

    labels, valid = material.first_labels(rgb, regions)

    assert len(np.unique(labels)) > 1500
    assert not labels[regions.bare].any()
    assert not valid[regions.unclear].any()
    assert valid.mean() > 0.85
