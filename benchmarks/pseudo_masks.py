"""How long pseudo-masks take, in passes of the classifier that they are made with.

    python benchmarks/pseudo_masks.py [--nets resnet38d resnet18/8 resnet18/16] [--batch 2] [--rounds 5]

Masks of all three taps for all four classes are made of a batch of random images of 224 px, as the stage pseudo-label
makes them. A pass is what one step of training computes: forward in training mode, and backward from the loss to all
parameters. Beside it stands a pass backward to the images alone, in evaluation mode. The three are timed in turns in
one process and their medians compared, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import multilabel_soft_margin_loss

from wsiseg.methods.mlps_classify import PseudoMasks
from wsiseg.nets.classifiers import build_classifier
from wsiseg.nets.gated import ActivationMaps

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = 4
PATCH = 224
GOAL = 2.5
NETS = ("resnet38d", "resnet18/8", "resnet18/16")  # with the output stride of encoders


def candidates(net: str, batch: int) -> dict[str, Callable[[], None]]:
    """Return what is timed, by name."""
    torch.manual_seed(0)
    backbone, _, stride = net.partition("/")
    classifier = build_classifier(backbone, CLASSES, output_stride=int(stride or 8))
    labeller = PseudoMasks(ActivationMaps(classifier, threshold=0.25))
    images = torch.randint(256, (batch, 3, PATCH, PATCH), dtype=torch.uint8)
    present = torch.ones(batch, CLASSES, dtype=torch.bool)
    white = torch.rand(batch, PATCH, PATCH) > 0.9
    indices = np.arange(batch)

    def masks() -> None:
        classifier.eval()
        labeller.label(images, present, white, indices=indices)

    def training_pass() -> None:
        classifier.train()
        loss = multilabel_soft_margin_loss(classifier(images.float() / 255), present.float())
        torch.autograd.backward(loss)
        classifier.zero_grad(set_to_none=True)

    def input_pass() -> None:
        classifier.eval()
        inputs = (images.float() / 255).requires_grad_()
        torch.autograd.grad(multilabel_soft_margin_loss(classifier(inputs), present.float()), inputs)

    return {"masks": masks, "pass": training_pass, "pass to images": input_pass}


def main() -> None:
    """Measure every network and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=NETS, help="classifiers, encoders with /OUTPUT_STRIDE")
    parser.add_argument("--batch", type=int, default=2, help="images of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for net in options.nets:
        works = candidates(net, options.batch)
        times: dict[str, list[float]] = {name: [] for name in works}
        for round_number in range(options.rounds + 1):
            for name, work in works.items():
                begun = time.perf_counter()
                work()
                # The first round allocates memory and chooses algorithms.
                if round_number > 0:
                    times[name].append(time.perf_counter() - begun)
        medians = {name: statistics.median(values) for name, values in times.items()}
        over = {name: medians["masks"] / taken for name, taken in medians.items()}
        met = "ok" if over["pass"] <= GOAL else "MISSED"
        print(
            f"{net:12} {medians['masks'] / options.batch:6.2f} s a patch, {over['pass']:.2f} x a pass "
            f"(at most {GOAL:g})  {met}, {over['pass to images']:.2f} x a pass to the images"
        )


if __name__ == "__main__":
    main()
