"""How mutual consistency is learnt: the numbers of its paper, those of its released code, and ours.

Paper and code differ in nearly everything, so that they are never mixed. What the paper does not print stands here as
its ancestors have it. What the code does by mistake is mended, in all presets but where this says otherwise:

==============================================================  ===================================================
The released code                                               Here
==============================================================  ===================================================
makes both tasks of one head's output, which no weights please  has a head for each task
compares the background with a level set that it has not        compares the classes but the background
never makes the level sets of labels, though it could           makes them; ``official-code`` does without
leaves level sets out of the agreement with the teacher         has them in; ``official-code`` does without
never lowers its learning rate, unlike its ancestors            lowers it; ``official-code`` does not
draws classes to 0 that no image of a batch shows               leaves them out in ``wsiseg``
normalises images with labels by those beside them without      does not in ``wsiseg``
writes 96 voxels, two classes, ln 2 and CUDA into its lines     takes them from data, options and device
moves its teacher by a call that torch has no more              moves it by another
shifts skips where sides are no multiples of 16                 refuses windows that are none, and pads volumes
seeds one of two sources of random numbers in its workers       draws each window by its number and the seed
never draws the last place of a window                          draws it as often as any other
mirrors every window once that it trains on                     draws each of the eight symmetries as often
turns in the plane of the first two axes of its arrays          turns in the last two, where spacings agree
pads small volumes with zeros, as background, by 3 too many     pads with the least intensity, learns no label there
lets student and teacher agree in the padding, too              does so, too: a batch does not tell where it is
tests into the folder of another method, emptied before         replaces a prediction by its successor alone
writes labels of 1 mm a voxel, axes the other way round         writes them where the volume lies, header and all
loses the ``y`` of its windows to the network's output          has a name for each
gives an empty mask the level set 0, and its 95HD the best      gives 1; distances are missing, and counted
copies the student over the teacher at the first update         does so, too: nothing random is to linger
aligns corners of maps in 2D and not in 3D                      does so, too: published weights expect it
==============================================================  ===================================================

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
        "mixed_batches": True,
        # The norm of the distance is not printed.
        "sdf": {"norm": "crop", "longest": 32.0, "zero_ring": True, "weight": 1.0},
        "itc": {"channels": "sum"},
    },
    "official-code": {
        "supervised_weight": 0.5,
        "skips_absent": False,
        "mixed_batches": True,
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
_STEP: Final[dict[str, Any]] = {**_SGD, "schedule": "step", "step_every": 2500, "step_factor": 0.1}

TRAINING: Final[dict[PresetName, dict[str, Any]]] = {
    "wsiseg": {"batch_size": 4, "crop_px": 256, "fit": {**_POLY, "steps": 30_000, "validate_every": 500}},
    "paper": {"batch_size": 2, "fit": {**_STEP, "steps": 6000, "validate_every": 200}},
    # The rate never falls.
    "official-code": {
        "batch_size": 2,
        "fit": {**_SGD, "schedule": "cosine", "lr_floor": 1.0, "steps": 30_000, "validate_every": 200},
    },
}

# Windows are turned and mirrored alone, as published.
_TURNED: Final[dict[str, Any]] = {"brightness": 0.0, "contrast": 0.0, "noise": 0.0}

TRAINING_OF_VOLUMES: Final[dict[PresetName, dict[str, Any]]] = {
    "wsiseg": {"fit": TRAINING["wsiseg"]["fit"]},
    "paper": {**TRAINING["paper"], "patch": (80, 112, 112), "augmentation": _TURNED},
    "official-code": {**TRAINING["official-code"], "patch": (96, 96, 96), "augmentation": _TURNED},
}
