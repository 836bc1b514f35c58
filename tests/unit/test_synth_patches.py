"""What a GAN learns from is what was drawn on its patch, and not what it was called; and how densely it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.nuclei_makers import ellipses
from tests.synthesis_makers import stained, tiny
from wsiseg.stores.patch_set import PatchSet
from wsiseg.synthesis.gan_files import Example
from wsiseg.synthesis.layouts import LayoutSettings, layouts
from wsiseg.synthesis.nucleus_bank import bank_of
from wsiseg.tasks.synth_patches import Chosen, chosen_patches, densities_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore


def test_numbers_of_nuclei_change_neither_what_is_learnt_from_nor_new_masks(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    labels = ellipses(9, 40, seed=1, radii=(3.2, 4.5))
    count = int(labels.max())
    # As one writes them, and as others may have, with gaps.
    orders = [np.arange(1, count + 1), *(np.random.default_rng(seed).permutation(90)[:count] + 1 for seed in range(5))]
    called = [np.concatenate(([0], numbers)).astype(np.int32)[labels] for numbers in orders]
    images = np.stack([stained(labels)] * len(called))
    store = make_patch_store(tmp_path / "a.zarr", images, np.stack(called), kind="instances", names=("back", "nucleus"))

    names = [f"image{number}" for number in range(len(called))]
    settings = tiny(largest_px=40)
    chosen, _ = chosen_patches(PatchSet([store]), "truth", names, None, settings)

    assert len({one.example.fingerprint for one in chosen}) == 1
    learnt = chosen[0].example.labels
    assert len(set(zip(labels.ravel().tolist(), learnt.ravel().tolist(), strict=True))) == count + 1
    assert set(np.unique(learnt)) == set(range(count + 1))
    masks = [layouts(one.bank, settings.layout, "normal", [0, 1], patch="a", seed=0) for one in chosen]
    for other in masks[1:]:
        np.testing.assert_array_equal(other, masks[0])


def chosen_with(*nuclei: int) -> list[Chosen]:
    """Return patches with so many nuclei each."""
    maps = [ellipses(count, 64, seed=1, radii=(3.2, 4.5)) for count in nuclei]
    return [
        Chosen(
            name=f"image{place}",
            index=place,
            example=Example(image=stained(labels), labels=labels),
            offset_px=(0, 0),
            bank=bank_of(labels),
        )
        for place, labels in enumerate(maps)
    ]


def test_masks_are_dense_where_nuclei_cover_more_than_of_the_median_patch() -> None:
    settings = LayoutSettings(density="auto")

    assert densities_of(chosen_with(20, 5, 11), settings) == ["dense", "normal", "normal"]
    assert densities_of(chosen_with(20, 11, 5, 26), settings) == ["dense", "normal", "normal", "dense"]
    assert densities_of(chosen_with(20), settings) == ["normal"]


def test_a_density_that_is_asked_for_is_that_of_all() -> None:
    chosen = chosen_with(20, 5, 11)

    assert densities_of(chosen, LayoutSettings(density="dense")) == ["dense"] * 3
