"""What a legend tells is written for people."""

from __future__ import annotations

import pytest

from wsiseg.inference.legend import density_text


@pytest.mark.parametrize(
    ("per_px", "mpp", "told"),
    [
        (0.0061175, 0.5, "24,500 per mm²"),
        (0.25, 0.25, "4,000,000 per mm²"),
        (1.25e-6, 0.5, "5 per mm²"),
        (1.23e-7, 0.5, "0.492 per mm²"),
        (0.006117, None, "0.00612 per pixel"),
        (0, 0.5, "0 per mm²"),
    ],
)
def test_densities_are_no_powers_of_ten(per_px: float, mpp: float | None, told: str) -> None:
    assert density_text(per_px, mpp) == told
