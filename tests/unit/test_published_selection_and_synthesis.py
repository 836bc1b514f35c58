"""Patches are selected, masks laid out and GANs trained with the published numbers unless told.

They are those of the released code of Lou et al., "Which Pixel to Annotate: a Label-Efficient Nuclei Segmentation
Framework", IEEE TMI 42(4), 2023.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.synthesis_makers import example_of
from wsiseg.selection.patch_scores import ConsistencyOptions
from wsiseg.synthesis.layouts import MARGIN_PX, RATES, SMALLEST_PIECE_PX, LayoutSettings, layouts
from wsiseg.synthesis.nucleus_bank import BORDER_PX, bank_of
from wsiseg.synthesis.pyramid import sides
from wsiseg.synthesis.settings import GanSettings

if TYPE_CHECKING:
    from wsiseg.synthesis.nucleus_bank import Stamp


def test_patches_are_scored_with_the_published_numbers() -> None:
    assert ConsistencyOptions().model_dump() == {
        "sub_clusters": 4,
        "restarts": 10,
        "representativeness": 1.0,
        "dominance": 1.0,
        "spread": 1.0,
    }


def test_gans_of_the_paper_are_trained_with_the_published_numbers_but_for_what_is_right() -> None:
    settings = GanSettings(preset="paper")

    assert settings.model_dump(mode="json") == {
        "preset": "paper",
        "smallest_px": 128,
        "largest_px": 256,
        "widths": [32, 32, 32, 32, 64],
        "steps": 25_000,
        "critic_steps": 3,
        "penalty_every": 1,
        "masks": 50,
        # Published: in turn.
        "mask_order": "random",
        "layout": {"mode": "density-matched", "spacing": 0.5, "density": "auto"},
        # Published: batch norm, and scores that are bounded.
        "norm": "instance",
        "critic_output": "linear",
        "component_reduction": "all",
        "component_weight": 1.0,
        "reconstruction_weight": 10.0,
        "penalty_weight": 0.1,
        "noise": 0.1,
        "lr": 5e-4,
        "seed": 0,
    }
    assert sides(settings.smallest_px, settings.largest_px, len(settings.widths)) == (128, 153, 182, 216, 256)


def test_masks_are_laid_out_with_the_published_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = set()

    class Canvas:
        """Has room for everything, and looks at what is asked for."""

        def __init__(self, side: int, most: int) -> None:
            self.count, self.labels = 0, np.ones((side, side), np.int32)
            assert (side, most > 0) == (32 + 2 * 22, True)

        def place(self, stamp: Stamp, distance_px: float, rng: np.random.Generator) -> bool:  # noqa: ARG002 - as there
            gaps.add(round(distance_px - 0.5 * stamp.radius_px, 6))
            self.count += 1
            return True

    monkeypatch.setattr("wsiseg.synthesis.layouts._Canvas", Canvas)
    layouts(bank_of(example_of(32).labels), LayoutSettings(), "normal", range(10), patch="a", seed=0)

    assert gaps == {2, 3, 4, 5}
    assert (MARGIN_PX, BORDER_PX, SMALLEST_PIECE_PX) == (22, 6, 20)
    # A seventh of the bank, which holds each nucleus six times, and 0.2 … 0.4 or 0.4 … 0.6 of that more.
    for rates, more in ((RATES["normal"], (0.2, 0.4)), (RATES["dense"], (0.4, 0.6))):
        assert rates == pytest.approx([6 / 7 * (1 + share) for share in more], abs=0.005)
