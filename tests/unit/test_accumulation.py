"""Accumulated attention depends on patches, epochs and the rule alone: not on order, batches or turned images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from wsiseg.errors import DataError
from wsiseg.heads.symmetry import turned
from wsiseg.methods.accumulation import AccumulationSettings, AttentionAccumulator

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PATCHES, CLASSES, SIZE = 7, 3, (4, 4)
EPOCHS = 3


def accumulator(**settings: Any) -> AttentionAccumulator:  # noqa: ANN401 - fields of AccumulationSettings
    return AttentionAccumulator(PATCHES, CLASSES, SIZE, AccumulationSettings(**settings))


def give(
    into: AttentionAccumulator,
    values: NDArray[np.floating[Any]],
    *,
    epoch: int,
    logits: tuple[float, ...] = (2, 1, 0),
    present: tuple[int, ...] = (1, 0, 0),
    is_last: bool = False,
) -> None:
    """Take in maps (C, H, W) of patch 0."""
    into.update(
        [0],
        values[None],
        np.array([logits], dtype=np.float32),
        np.array([present], dtype=bool),
        symmetries=[0],
        epoch=epoch,
        is_last=is_last,
    )


def random_maps(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((CLASSES, *SIZE), dtype=np.float32)


def network(images: NDArray[np.float32], epoch: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return maps (B, C, H, W) and logits (B, C) of a network that sees single pixels only; it learns as epochs go."""
    weights = np.random.default_rng(epoch).normal(size=CLASSES).astype(np.float32)
    maps = np.abs(np.sin(weights[:, None, None] * images[:, None] * 5))
    # Multiples of 1/1024 add up to the same sum in any order.
    return maps, (np.round(maps * 1024) / 1024).sum(axis=(2, 3))


def train(
    into: AttentionAccumulator,
    *,
    batch: int,
    order: int,
    symmetries: tuple[int, ...] = (0,),
    epochs: range = range(1, EPOCHS + 1),
) -> AttentionAccumulator:
    rng = np.random.default_rng(3)
    images = rng.random((PATCHES, *SIZE), dtype=np.float32)
    present = rng.random((PATCHES, CLASSES)) < 0.5
    present[:, 0] |= ~present.any(axis=1)
    shuffling = np.random.default_rng(order)
    for epoch in epochs:
        for indices in np.array_split(shuffling.permutation(PATCHES), -(-PATCHES // batch)):
            ways = shuffling.choice(symmetries, size=len(indices))
            seen = [turned(torch.from_numpy(images[i]), int(way)).numpy() for i, way in zip(indices, ways, strict=True)]
            maps, logits = network(np.stack(seen), epoch)
            into.update(indices, maps, logits, present[indices], symmetries=ways, epoch=epoch, is_last=epoch == EPOCHS)
    return into


def test_the_highest_value_of_all_epochs_but_the_first_is_kept() -> None:
    kept = accumulator()
    for epoch in (1, 2, 3):
        give(kept, random_maps(epoch), epoch=epoch)

    expected = np.maximum(random_maps(2), random_maps(3))[0].astype(np.float16)
    np.testing.assert_array_equal(kept.maps[0, 0], expected)
    assert kept.counts[0].tolist() == [2, 0, 0]


def test_the_first_epoch_leaves_no_map() -> None:
    kept = accumulator()
    give(kept, random_maps(0), epoch=1)

    assert not kept.maps.any()
    assert not kept.counts.any()


def test_the_highest_values_never_fall() -> None:
    kept, before = accumulator(), np.zeros(SIZE, dtype=np.float16)
    for epoch in range(2, 9):
        give(kept, random_maps(epoch), epoch=epoch)
        assert (kept.maps[0, 0] >= before).all()
        before = kept.maps[0, 0].copy()


def test_classes_and_patches_that_are_not_there_stay_empty() -> None:
    kept = accumulator()
    give(kept, random_maps(0), epoch=5, present=(0, 1, 1), is_last=True)

    assert not kept.maps[0, 0].any()
    assert kept.maps[0, 1:].any(axis=(1, 2)).all()
    assert not kept.maps[1:].any()


def test_a_class_that_is_not_among_the_highest_logits_changes_nothing() -> None:
    kept = accumulator()
    give(kept, random_maps(0), epoch=2, present=(0, 1, 0), logits=(0, 9, 0))
    before = kept.maps.copy()

    give(kept, random_maps(1), epoch=3, present=(0, 1, 0), logits=(9.5, 9, 0))

    np.testing.assert_array_equal(kept.maps, before)


def test_as_many_classes_are_accepted_as_a_patch_has() -> None:
    kept = accumulator()
    give(kept, random_maps(0), epoch=2, present=(1, 0, 1), logits=(3, 2, 1))
    assert kept.counts[0].tolist() == [1, 0, 0]

    give(kept, random_maps(0), epoch=2, present=(1, 0, 1), logits=(3, 1, 2))
    assert kept.counts[0].tolist() == [2, 0, 1]


def test_the_last_epoch_fills_a_class_that_was_never_accepted_and_no_other() -> None:
    kept = accumulator()
    give(kept, random_maps(0), epoch=2, present=(1, 0, 1), logits=(3, 2, 1))
    before = kept.maps[0, 0].copy()

    give(kept, random_maps(1), epoch=3, present=(1, 0, 1), logits=(1, 9, 8), is_last=True)
    assert kept.counts[0].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(kept.maps[0, 0], before)
    np.testing.assert_array_equal(kept.maps[0, 2], random_maps(1)[2].astype(np.float16))


def test_a_single_epoch_is_a_last_one() -> None:
    kept = accumulator()
    give(kept, random_maps(0), epoch=1, is_last=True)

    assert kept.counts[0].tolist() == [1, 0, 0]


def test_a_probability_can_be_asked_for() -> None:
    kept = accumulator(accept="prob", min_prob=0.5)
    give(kept, random_maps(0), epoch=2, present=(1, 1, 0), logits=(0, -0.01, 5))

    assert kept.counts[0].tolist() == [1, 0, 0]


def test_means_and_running_averages_follow_their_formulas() -> None:
    mean, average = accumulator(mode="mean"), accumulator(mode="ema", ema_decay=0.75)
    for kept in (mean, average):
        for epoch in (2, 3, 4):
            give(kept, random_maps(epoch), epoch=epoch)

    second, third, fourth = (random_maps(epoch)[0] for epoch in (2, 3, 4))
    np.testing.assert_allclose(mean.maps[0, 0], (second + third + fourth) / 3, atol=1e-3)
    expected = 0.75 * (0.75 * second + 0.25 * third) + 0.25 * fourth
    np.testing.assert_allclose(average.maps[0, 0], expected, atol=1e-3)


@pytest.mark.parametrize("mode", ["max", "mean", "ema"])
@pytest.mark.parametrize(("batch", "order"), [(1, 1), (2, 2), (7, 3)])
def test_neither_order_nor_batch_size_matters(mode: str, batch: int, order: int) -> None:
    straight = train(accumulator(mode=mode), batch=3, order=0)
    other = train(accumulator(mode=mode), batch=batch, order=order)

    np.testing.assert_array_equal(other.maps, straight.maps)
    np.testing.assert_array_equal(other.counts, straight.counts)
    assert straight.counts.any()


@pytest.mark.parametrize("symmetries", [(4,), (6,), (0, 4, 2, 6), tuple(range(8))])
def test_turned_images_give_the_maps_of_images_as_they_are(symmetries: tuple[int, ...]) -> None:
    straight = train(accumulator(), batch=3, order=0)
    other = train(accumulator(), batch=3, order=1, symmetries=symmetries)

    np.testing.assert_array_equal(other.maps, straight.maps)


def test_a_mirror_of_left_and_right_is_4_and_one_of_top_and_bottom_6() -> None:
    image = torch.arange(16).view(4, 4)

    torch.testing.assert_close(turned(image, 4), image.flip(1))
    torch.testing.assert_close(turned(image, 6), image.flip(0))


@pytest.mark.parametrize("mode", ["max", "mean", "ema"])
def test_it_goes_on_exactly_from_a_state(mode: str) -> None:
    whole = train(accumulator(mode=mode), batch=3, order=0)
    first = train(accumulator(mode=mode), batch=3, order=0, epochs=range(1, EPOCHS))
    rest = accumulator(mode=mode)

    rest.load_state(first.state())
    train(rest, batch=3, order=0, epochs=range(EPOCHS, EPOCHS + 1))

    np.testing.assert_array_equal(rest.maps, whole.maps)
    np.testing.assert_array_equal(rest.counts, whole.counts)


def test_a_state_is_a_copy() -> None:
    kept = accumulator()
    state = kept.state()
    give(kept, random_maps(0), epoch=2)

    assert not state["maps"].any()


def test_a_state_of_other_patches_is_refused() -> None:
    with pytest.raises(DataError, match="do not fit"):
        accumulator().load_state(AttentionAccumulator(PATCHES + 1, CLASSES, SIZE).state())


def test_what_is_saved_is_read_back_bit_by_bit(tmp_path: Path) -> None:
    kept = train(accumulator(), batch=3, order=0)
    kept.save(tmp_path / "attention.npy")

    found = AttentionAccumulator.open(tmp_path / "attention.npy")

    assert found.maps.tobytes() == kept.maps.tobytes()
    assert found.counts.tobytes() == kept.counts.tobytes()
    assert [file.name for file in tmp_path.iterdir()] == ["attention.npy"]


@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_what_is_no_file_of_maps_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "attention.npy"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataError, match="accumulated maps"):
        AttentionAccumulator.open(path)


def test_an_array_of_another_kind_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.zeros(3))

    with pytest.raises(DataError, match="no accumulated maps"):
        AttentionAccumulator.open(tmp_path / "other.npy")


def test_what_was_seen_can_be_hidden_in_the_frame_of_the_turned_image() -> None:
    kept = accumulator()
    values = np.zeros((CLASSES, *SIZE), dtype=np.float32)
    values[0, 0, 1], values[0, 2, 2], values[1, 3, 3] = 0.7, 0.5, 1
    give(kept, values, epoch=2)

    seen = kept.attended([0, 0, 1], symmetries=[0, 4, 0])

    expected = np.zeros((3, *SIZE), dtype=bool)
    expected[0, 0, 1] = expected[1, 0, 2] = True
    np.testing.assert_array_equal(seen, expected)


def test_means_of_classes_count_maps_that_are_there() -> None:
    kept = accumulator()
    give(kept, np.full((CLASSES, *SIZE), 0.5), epoch=2, present=(1, 1, 0))

    np.testing.assert_array_equal(kept.class_means(), [0.5, 0.5, np.nan])
    before = kept.counts.copy()
    kept.maps[1], kept.counts[1] = 1, 1
    np.testing.assert_array_equal(kept.class_means(), [0.75, 0.75, 1])
    np.testing.assert_array_equal(kept.class_means(without=[1]), [0.5, 0.5, np.nan])
    np.testing.assert_array_equal(kept.counts[0], before[0])
