"""How mutual consistency is learnt: the numbers of its paper, those of its released code, and ours.

Paper and code differ in nearly everything, so that they are never mixed. What the paper does not print stands here as
its ancestors have it. Not taken over from the code are its errors: one head for both tasks, which no weights please;
the background compared with a level set that it has not; ln 2 for any number of classes; and crops that never end
where the image does.

References
----------
.. [1] Zhang et al., "Uncertainty-guided mutual consistency learning for semi-supervised medical image segmentation",
   Artificial Intelligence in Medicine 2022.
"""

from __future__ import annotations

from typing import Any, Final, Literal

PresetName = Literal["wsiseg", "paper", "official-code"]

# What differs from the defaults, which are our own numbers.
PRESETS: Final[dict[PresetName, dict[str, Any]]] = {
    "wsiseg": {},
    "paper": {
        "supervised_weight": 1.0,
        "skips_absent": False,
        # The norm of the distance is not printed.
        "sdf": {"norm": "crop", "longest": 32.0, "zero_ring": True, "weight": 1.0},
        "itc": {"channels": "sum"},
    },
    "official-code": {
        "supervised_weight": 0.5,
        "skips_absent": False,
        # Level sets learn from the Dice of their masks alone.
        "sdf": {"norm": "crop", "longest": 32.0, "zero_ring": True, "weight": 0.0, "inverse_dice": 0.5},
        # Their part in the agreement with the teacher is commented out.
        "itc": {"beta": 1.0, "weight": 0.5},
        "ramp_steps": 200,
    },
}

_SGD: Final[dict[str, Any]] = {
    "optimiser": "sgd",
    "lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "warmup": 0.0,
    "clip_norm": None,
}
_POLY: Final[dict[str, Any]] = {**_SGD, "schedule": "poly", "power": 0.9}

TRAINING: Final[dict[PresetName, dict[str, Any]]] = {
    "wsiseg": {"batch_size": 4, "crop_px": 256, "fit": {**_POLY, "steps": 30_000, "validate_every": 500}},
    # The rate is printed to fall to a tenth after each 2,500 updates; a power of what is left falls about as far.
    "paper": {"batch_size": 2, "fit": {**_POLY, "steps": 6000, "validate_every": 200}},
    # The rate never falls.
    "official-code": {
        "batch_size": 2,
        "fit": {**_SGD, "schedule": "cosine", "lr_floor": 1.0, "steps": 30_000, "validate_every": 200},
    },
}
