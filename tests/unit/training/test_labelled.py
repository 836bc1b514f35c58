"""Subsets of labels are drawn by whole images, and what is not drawn is learnt from without labels."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import ConfigError, DataError
from wsiseg.training.labelled import draw_labelled, part_labelled, without_labels

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore

NAMES = [f"image-{number:03d}" for number in range(153)]


@pytest.mark.parametrize(
    ("images", "share", "count"),
    [
        *[(27, share, count) for share, count in (("5%", 1), ("0.1", 3), ("20 %", 5), ("0.5", 14), ("1.0", 27))],
        *[(153, share, count) for share, count in (("0.05", 8), ("10%", 15), (".2", 31), ("50%", 76), ("100%", 153))],
        (153, "3", 3),
        (153, "0.0001", 1),
        (153, "1e-05", 1),
        (153, "1", 1),
        (153, "5e-1", 76),
        (153, "1E1 %", 15),
    ],
)
def test_shares_are_rounded_as_published(images: int, share: str, count: int) -> None:
    assert len(draw_labelled(NAMES[:images], share, seed=666)) == count


def test_a_draw_is_that_of_the_published_code() -> None:
    order = sorted(NAMES)
    np.random.RandomState(666).shuffle(order)

    assert draw_labelled(NAMES[::-1], "8", seed=666) == sorted(order[:8])


def test_larger_shares_hold_smaller_ones_and_seeds_differ() -> None:
    draws = [set(draw_labelled(NAMES, share, seed=1)) for share in ("0.05", "0.1", "0.5", "1.0")]

    assert all(small < large for small, large in pairwise(draws))
    assert draws[1] != set(draw_labelled(NAMES, "0.1", seed=2))


def test_images_may_be_named_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "few.txt"
    file.write_text("image-003\r\n\nimage-001\n")

    assert draw_labelled(NAMES, str(file), seed=0) == ["image-001", "image-003"]
    file.write_text("image-003\nimage-3\n")
    with pytest.raises(DataError, match=r"few.txt: 1 of 2 names are none of the 153 labelled images .* image-3"):
        draw_labelled(NAMES, str(file), seed=0)
    file.write_text("\n")
    with pytest.raises(DataError, match="names nothing"):
        draw_labelled(NAMES, str(file), seed=0)
    file.write_bytes("Müller".encode("cp1252"))
    with pytest.raises(DataError, match=r"few.txt: the file is not in UTF-8\. Save it as UTF-8"):
        draw_labelled(NAMES, str(file), seed=0)


@pytest.mark.parametrize("wanted", ["0", "154", "1.5", "0.0", "200%", "1e3", "-1", "nan", "no-such-file.txt"])
def test_what_cannot_be_drawn_is_refused(wanted: str) -> None:
    with pytest.raises(ConfigError, match=r"^--labelled: "):
        draw_labelled(NAMES, wanted, seed=0)


def test_patches_of_an_image_are_never_parted(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    images = np.zeros((6, 8, 8, 3), np.uint8)
    masks = np.ones((6, 8, 8), np.uint8)
    parents = ["a", "a", "b", "b", "c", "c"]
    stores = [
        make_patch_store(tmp_path / "one.zarr", images, masks, parents=parents, splits=["train"] * 4 + ["val"] * 2),
        make_patch_store(
            tmp_path / "two.zarr",
            images,
            parents=["a", "a", "c", "c", "d", "d"],
            splits=["unlabelled"] * 4 + ["test"] * 2,
        ),
    ]
    training = [np.arange(4), np.arange(0)]

    kept, chosen = part_labelled(stores, training, "1", seed=0)
    rest = without_labels(stores, kept, [np.array([4, 5]), np.arange(0)])

    (name,) = chosen
    assert [parents[at] for at in kept[0]] == [name] * 2
    # The other image, and all of the second store but for the image that is held out and what is for testing.
    assert {parents[at] for at in rest[0]} == {"a", "b"} - {name}
    assert rest[1].tolist() == [0, 1]


def test_what_is_drawn_may_be_smaller_than_a_group_and_messages_name_it(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    images, masks = np.zeros((4, 8, 8, 3), np.uint8), np.ones((4, 8, 8), np.uint8)
    store = make_patch_store(tmp_path / "s.zarr", images, masks, parents=["p", "p", "q", "q"])
    names = np.array(["p1", "p2", "q1", "q2"], dtype=np.object_)

    kept, chosen = part_labelled([store], [np.arange(4)], "1", seed=0, units=[names])

    assert [names[at] for at in kept[0]] == chosen
    assert len(chosen) == 1
    with pytest.raises(ConfigError, match="3 of 2 labelled patients cannot be drawn"):
        part_labelled([store], [np.arange(4)], "3", seed=0, what="patients")


@pytest.mark.parametrize("mark", ["test", "val"])
def test_images_of_patients_who_judge_are_not_learnt_from(
    tmp_path: Path, make_patch_store: MakePatchStore, mark: str
) -> None:
    images = np.zeros((3, 8, 8, 3), np.uint8)
    marked = make_patch_store(tmp_path / "a.zarr", images, parents=["p", "p", "q"], splits=[mark, "train", "train"])
    other = make_patch_store(tmp_path / "b.zarr", images, parents=["p", "q", "r"], splits=["unlabelled"] * 3)

    rest = without_labels([marked, other], [np.arange(0)] * 2, [np.arange(0)] * 2)

    assert [part.tolist() for part in rest] == [[2], [1, 2]]
