"""A training step of a method of patches gives the loss that its numbers ask for, as summed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional

from tests.craanet_makers import (
    BACKBONE,
    LAYERS,
    SIDE,
    batch,
    classify_learner,
    colourful,
    facts,
    segment_learner,
)
from wsiseg.config import load
from wsiseg.labels import IGNORE
from wsiseg.losses.centres import ClassCentres
from wsiseg.losses.contrast import pixel_clustering
from wsiseg.losses.dense_energy import dense_energy
from wsiseg.losses.resampling import nearest
from wsiseg.methods.base import Batch, Clock
from wsiseg.methods.craanet_classify import AccumulatingNet
from wsiseg.methods.craanet_segment import ComparingNet
from wsiseg.methods.mlps_classify import ClassifyLearner, ClassifyStage
from wsiseg.methods.mlps_options import MlpsOptions
from wsiseg.methods.mlps_segment import SegmentLearner, SegmentStage
from wsiseg.methods.pair_options import CLASSIFY
from wsiseg.nets.gated import ActivationMaps, GatedDeepLab
from wsiseg.nets.taps import TapClassifier

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PRESENT = [[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]]
TAPS = ("shallow", "middle", "deep")
EPOCHS = 20
# Weights and numbers of the losses of the second stage of CRAANet.
DEFAULTS = {
    "energy": 1.0,
    "sigma_px": 100.0,
    "sigma_rgb": 15.0,
    "scale": 0.25,
    "contrast": 0.1,
    "temperature": 0.1,
    "base_temperature": 0.07,
    "max_samples": 1024,
    "max_views": 100,
    "channels": 128,
    "centre_momentum": 0.99,
}


def in_epoch(number: int) -> Clock:
    """Return the only update of one of the twenty epochs."""
    return Clock(step=number - 1, steps=EPOCHS)


def mlps_options(**changes: Any) -> MlpsOptions:  # noqa: ANN401 - fields of MlpsOptions
    return load(MlpsOptions, options={"backbone": BACKBONE, **changes})


def mlps_classifier(**changes: Any) -> ClassifyLearner:  # noqa: ANN401 - fields of MlpsOptions
    options = mlps_options(**changes)
    torch.manual_seed(0)
    return ClassifyStage(options=options, settings=options.resolved().classify).build(facts(), {}, ())


def mlps_segmenter(classifier: Path | None = None, **changes: Any) -> SegmentLearner:  # noqa: ANN401
    options = mlps_options(gate=classifier is not None, **changes)
    torch.manual_seed(0)
    done = {} if classifier is None else {CLASSIFY: classifier}
    return SegmentStage(options=options, settings=options.resolved().segment).build(facts(), done, TAPS)


def entropy_of(logits: Tensor) -> float:
    """Return the mean over patches and classes of the binary cross-entropy with what the patches show."""
    present = torch.tensor(PRESENT)
    prob = logits.detach().double().sigmoid()
    return float(-torch.where(present > 0, prob, 1 - prob).log().mean())


@pytest.mark.parametrize(
    ("changes", "epoch", "mu"),
    [
        ({}, 3, None),
        ({}, 4, 0.985),
        ({}, 10, 0.985**7),
        ({}, 20, 0.985**17),
        ({"preset": "official-code"}, 10, 0.98**9),
        ({"numbers": {"attention": {"warmup_epochs": 8, "sigma": 0.9}}}, 10, 0.9**2),
        ({"numbers": {"attention": {"lower": 0.95}}}, 10, 0.95),
        ({"attention": False}, 10, None),
        ({"attention": False, "preset": "official-code"}, 20, None),
    ],
)
def test_the_first_stage_of_mlps_learns_under_the_attention_of_its_epoch(
    changes: dict[str, Any], epoch: int, mu: float | None
) -> None:
    # What has gone before does not matter: a training that goes on later has the same.
    learner = mlps_classifier(**changes)
    assert isinstance(learner.module, ActivationMaps)
    learner.module.train()

    torch.manual_seed(1)
    found = learner.training_step(batch(colourful(), [0, 1, 2, 3], PRESENT), in_epoch(epoch))

    # From here dropout draws the same channels.
    torch.manual_seed(1)
    logits, attention = learner.module.classifier.attended(colourful() / 255, mu=mu)
    assert found["loss"].item() == pytest.approx(entropy_of(logits), rel=1e-5)
    assert found["mu"].item() == pytest.approx(1 if mu is None else mu)
    assert (attention is None) == (mu is None)
    assert mu is not None or found["switched_off"] == 0


@pytest.mark.parametrize(
    ("changes", "weights", "is_mean_of_tissue", "is_divided"),
    [
        ({}, (0.2, 0.2, 0.6), True, False),
        ({"preset": "official-code"}, (0.2, 0.2, 0.6), False, True),
        ({"numbers": {"layer_weights": [0.5, 0.3, 0.1], "white_mean": "all"}}, (0.5, 0.3, 0.1), False, False),
        (
            {"preset": "official-code", "numbers": {"layer_weights": [1, 2, 4], "white_mean": "valid"}},
            (1, 2, 4),
            True,
            True,
        ),
    ],
)
def test_the_second_stage_of_mlps_learns_from_all_masks(
    changes: dict[str, Any],
    weights: tuple[float, ...],
    is_mean_of_tissue: bool,  # noqa: FBT001
    is_divided: bool,  # noqa: FBT001
) -> None:
    learner = mlps_segmenter(**changes)
    assert isinstance(learner.module, GatedDeepLab)
    learner.module.eval()
    # Each mask costs something else: the network prefers the first class, and a mask is mostly of one of its own.
    learner.module.get_parameter("segmenter.decoder.last_conv.8.bias").data[:] = torch.tensor([2.0, 0.0, -3.0])
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.randint(0, 3, (4, SIDE, SIDE), generator=generator) for name in TAPS}
    for number, mask in enumerate(masks.values()):
        mask[:, SIDE // 4 :] = number
        mask[:2, : SIDE // 2] = IGNORE

    found = learner.training_step(Batch(images=colourful(), targets={**masks}), in_epoch(1))

    log_prob = learner.module.segmenter(colourful() / 255).detach().double().log_softmax(dim=1)
    loss = 0.0
    for weight, mask in zip(weights, masks.values(), strict=True):
        is_tissue = mask != IGNORE
        costs = -log_prob.gather(1, torch.where(is_tissue, mask, 0)[:, None])[:, 0]
        mean = costs[is_tissue].sum() / (is_tissue.sum() if is_mean_of_tissue else mask.numel())
        loss += weight * float(mean) / (len(mask) if is_divided else 1)
    assert found["loss"].item() == pytest.approx(loss, rel=1e-5)


def test_the_gate_of_mlps_shuts_at_the_probability_that_is_asked_for(tmp_path: Path) -> None:
    first = mlps_classifier()
    first.predictor(first.module).save(tmp_path, metrics={})
    still_open = {}
    for epsilon in (0.1, 0.49, 0.5):
        net = mlps_segmenter(tmp_path, numbers={"epsilon": epsilon}).module.eval()
        assert isinstance(net, GatedDeepLab)
        assert isinstance(net.classifier, TapClassifier)
        # Every class has a probability of one half.
        net.classifier.fc8.weight.data.zero_()
        with torch.inference_mode():
            still_open[epsilon] = net(colourful(1) / 255).isfinite().all(dim=(2, 3)).sum().item()

    assert still_open == {0.1: 3, 0.49: 3, 0.5: 1}


def test_the_first_stage_of_craanet_learns_from_the_mean_over_patches_and_classes() -> None:
    learner = classify_learner()
    assert isinstance(learner.module, AccumulatingNet)
    learner.module.eval()

    found = learner.training_step(batch(colourful(), [0, 1, 2, 3], PRESENT), in_epoch(2))

    logits = learner.module.net.classifier(colourful() / 255)
    assert found["loss"].item() == pytest.approx(entropy_of(logits), rel=1e-5)


def patches() -> Batch:
    """Return four patches of two classes, a corner of them white and a band of them not reliable."""
    complete = torch.zeros(4, SIDE, SIDE, dtype=torch.int64)
    complete[:, :, SIDE // 2 :] = 1
    complete[:, :16, :24] = IGNORE
    reliable = complete.clone()
    reliable[:, SIDE // 2 - 8 : SIDE // 2 + 8] = IGNORE
    present = torch.tensor([[1.0, 1.0, 0.0]] * 4)
    return Batch(images=colourful(), targets={"complete": complete, "reliable": reliable, "present": present})


@pytest.mark.parametrize(
    ("energy", "contrast"),
    [
        (
            {"weight": 0.5, "sigma_px": 9.0, "sigma_rgb": 60.0, "scale": 0.5},
            {
                "weight": 0.7,
                "start": 0.0,
                "temperature": 0.3,
                "base_temperature": 0.5,
                "max_samples": 60,
                "max_views": 9,
                "channels": 16,
                "centre_momentum": 0.6,
            },
        ),
        ({}, {"start": 0.0, "max_views": 20}),
    ],
)
def test_the_second_stage_of_craanet_weighs_its_losses_as_told(
    energy: dict[str, float], contrast: dict[str, float]
) -> None:
    learner = segment_learner(energy=energy, contrast=contrast)
    module = learner.module.train()
    assert isinstance(module, ComparingNet)
    assert module.space is not None
    known = patches()
    complete, reliable = (known.targets[name] for name in LAYERS)
    numbers = dict(DEFAULTS)
    for name, given in (("energy", energy), ("contrast", contrast)):
        numbers |= {(name if key == "weight" else key): value for key, value in given.items()}
    centres = ClassCentres(3, int(numbers["channels"]), momentum=numbers["centre_momentum"])

    # Centres exist from the second step on, and have moved in the third.
    for step in range(3):
        torch.manual_seed(step)
        found = learner.training_step(known, Clock(step=step, steps=9))

        # From here dropout and samples are drawn alike.
        torch.manual_seed(step)
        with torch.no_grad():
            decoded = module.net.segmenter.decoded(known.images / 255)
            vectors = module.space.projection(decoded.features)
            loss = functional.cross_entropy(decoded.logits, reliable, ignore_index=IGNORE)
            loss += numbers["energy"] * dense_energy(
                decoded.logits,
                known.images,
                reliable != IGNORE,
                is_white=complete == IGNORE,
                sigma_px=numbers["sigma_px"],
                sigma_rgb=numbers["sigma_rgb"],
                scale=numbers["scale"],
            )
            labels, prediction = nearest(reliable, (16, 16)), decoded.coarse.argmax(dim=1)
            terms = pixel_clustering(
                vectors,
                labels,
                prediction,
                centres,
                temperature=numbers["temperature"],
                base_temperature=numbers["base_temperature"],
                max_samples=int(numbers["max_samples"]),
                max_views=int(numbers["max_views"]),
            )
            centres.update(vectors, labels, prediction)
        loss = loss + numbers["contrast"] * terms["loss"]
        assert found["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
        assert terms["pixel_contrast"] > 0
    assert terms["centre_contrast"] > 0
    torch.testing.assert_close(module.space.centres.centres, centres.centres)
