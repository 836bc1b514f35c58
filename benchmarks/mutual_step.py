"""How long a step of uncertainty-guided mutual consistency takes, beside the passes of networks that it needs.

    python benchmarks/mutual_step.py [--batch 4] [--crop 128] [--rounds 7]

A step is what training makes of one batch, half of it with labels: losses, gradients, and the teacher's move. The
passes are the student's way forward and back, one of the teacher without gradients, and its eight with dropout, two
at a time; they are made of the same images, with a mean of the output as the loss. Both are timed in turns in one
process and their medians compared, so that a busy machine slows both alike. The targets' share is that of making
them out of labels, which threads do while the network learns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from wsiseg.labels import LabelMap
from wsiseg.methods.base import Batch, Clock, TrainingFacts
from wsiseg.methods.registry import get_method
from wsiseg.volumes import VolumeInput

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL = 1.15
PASSES = 8
AT_ONCE = 2


def candidates(arch: str, batch: int, side: int) -> dict[str, Callable[[], None]]:
    """Return what is timed, by name."""
    torch.manual_seed(0)
    is_volume = arch != "dual-unet"
    facts = TrainingFacts(
        name="untrained",
        kind="classes",
        labels=LabelMap.from_names(("background", "gland")),
        mpp=None,
        crop_px=side,
        training_data={},
        volume=VolumeInput(patch=(side, side, side)) if is_volume else None,
    )
    method = get_method("ugmcl")
    (stage,) = method.stages(method.options(arch=arch, mc_passes=PASSES, mc_at_once=AT_ONCE))
    learner = stage.build(facts)
    module = learner.module.train()
    rng = np.random.default_rng(0)
    shape = (2 * batch, *[side] * (3 if is_volume else 2))
    labels = (rng.random(shape) > 0.5).astype(np.int32)
    labels[(slice(None), *[slice(side // 4, side // 2)] * (len(shape) - 1))] = 1

    def targets() -> dict[str, torch.Tensor]:
        items = [learner.encode(one, np.ones(one.shape, np.bool_)) for one in labels[:batch]]
        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}

    pixels = torch.from_numpy(rng.random((shape[0], 1 if is_volume else 3, *shape[1:])))
    images = pixels.float() if is_volume else (pixels * 255).to(torch.uint8)
    whole = Batch(images=images, targets=targets())
    inputs = images.float()

    def step() -> None:
        torch.autograd.backward(learner.training_step(whole, Clock(step=5, steps=10))["loss"])
        module.zero_grad(set_to_none=True)
        learner.after_update(Clock(step=5, steps=10))

    def passes() -> None:
        torch.autograd.backward(sum(maps.mean() for maps in module.student.both(inputs)))
        module.zero_grad(set_to_none=True)
        with torch.no_grad():
            module.teacher.both(inputs)
            for _ in range(PASSES // AT_ONCE):
                module.teacher.both(inputs.repeat(AT_ONCE, *[1] * (inputs.ndim - 1)))

    return {"step": step, "passes": passes, "targets": lambda: targets() and None}


def main() -> None:
    """Measure images and volumes and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4, help="images with labels; as many come without")
    parser.add_argument("--crop", type=int, default=128, help="pixels of an image's edge; a volume's has a quarter")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for arch, side in (("dual-unet", options.crop), ("unet3d", options.crop // 4)):
        works = candidates(arch, options.batch, side)
        times: dict[str, list[float]] = {name: [] for name in works}
        for round_number in range(options.rounds + 1):
            for name, work in works.items():
                begun = time.perf_counter()
                work()
                # The first round allocates memory and chooses algorithms.
                if round_number > 0:
                    times[name].append(time.perf_counter() - begun)
        medians = {name: statistics.median(values) for name, values in times.items()}
        over = medians["step"] / medians["passes"]
        print(
            f"{arch:10} {medians['step']:6.2f} s a step, {over:.2f} x its passes (at most {GOAL:g})  "
            f"{'ok' if over <= GOAL else 'MISSED'}, targets {medians['targets'] / medians['step']:.3f} of a step"
        )


if __name__ == "__main__":
    main()
