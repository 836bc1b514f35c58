"""PG-FANet has the published shape, its stages are joined as published, and only a student is disturbed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.initial_weights import initialise
from wsiseg.nets import pgfanet
from wsiseg.nets.dilated_resnet import DilatedResNet, DilatedStages, shrunk
from wsiseg.nets.factory import build_described, spec_type
from wsiseg.nets.pgfanet import FeatureNoise, PGFANet, PGFANetSpec, build_pgfanet

BLOCKS = (1, 2, 2, 2)


def tiny(classes: int = 3, *, noise: FeatureNoise | None = None, seed: int = 0) -> PGFANet:
    """Return a network with random weights that computes at once."""
    torch.manual_seed(seed)
    return PGFANet(
        DilatedResNet(BLOCKS, width=8), DilatedStages(BLOCKS, width=8), classes, features=8, feature_noise=noise
    )


def images(side: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def described(spec: PGFANetSpec, classes: int) -> PGFANet:
    """Return a network of full size that has shapes only."""
    with torch.device("meta"):
        return build_pgfanet(spec, classes)


@pytest.mark.parametrize(
    ("classes", "rates", "count"),
    [(3, (6, 12, 18, 24), 42_738_032), (2, (6, 12, 18, 24), 42_701_116), (3, (6, 12), 42_682_724)],
)
def test_the_published_network_has_as_many_parameters(classes: int, rates: tuple[int, ...], count: int) -> None:
    net = described(PGFANetSpec(rates=rates), classes)

    assert sum(value.numel() for value in net.parameters()) == count
    assert sum(value.numel() for value in net.encoder.parameters()) == 21_284_672
    assert sum(value.numel() for value in net.encoder2.parameters()) == 21_275_136


@pytest.mark.parametrize(
    ("size", "stem", "first", "deep"),
    [
        ((128, 128), (64, 64), (32, 32), (16, 16)),
        ((480, 480), (240, 240), (120, 120), (60, 60)),
        ((131, 97), (66, 49), (33, 25), (17, 13)),
    ],
)
def test_features_have_the_published_shapes(
    size: tuple[int, int], stem: tuple[int, int], first: tuple[int, int], deep: tuple[int, int]
) -> None:
    net = described(PGFANetSpec(), 3)
    x = torch.empty(2, 3, *size, device="meta")
    seen: dict[str, torch.Size] = {}

    def note(name: str, given: tuple[Tensor, ...]) -> None:
        seen[name] = given[0].shape

    net.enhance.register_forward_pre_hook(lambda _, given: note("guided", given))
    net.encoder2.layer1.register_forward_pre_hook(lambda _, given: note("g", given))
    net.out.register_forward_pre_hook(lambda _, given: note("z", given))

    early = net.encoder.stem(x)
    features = net.encoder.staged(shrunk(early))
    late = net.encoder2.staged(shrunk(net.enhance(torch.cat((early, early[:, :1]), dim=1))))
    out, aux = net.both(x, perturb=False)

    assert early.shape == (2, 64, *stem)
    for stages in (features, late):
        assert [tuple(one.shape[1:]) for one in stages] == [
            (64, *first),
            (128, *deep),
            (256, *deep),
            (512, *deep),
        ]
    assert pgfanet._foreground(net.head(features[-1]), early).shape == (2, 1, *stem)
    # The stem and the mask, what they make for the second stage, and what the last layer sees.
    assert seen == {"guided": (2, 65, *stem), "g": (2, 64, *first), "z": (2, 35, *first)}
    assert net.head(features[-1]).shape == (2, 3, *deep)
    assert out.shape == aux.shape == (2, 3, *size)


def test_the_last_stages_look_farther_instead_of_shrinking() -> None:
    stages = DilatedStages((3, 4, 6, 3), width=4)

    def dilations(stage: nn.Module) -> list[int]:
        return [
            layer.dilation[0] for layer in stage.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] == 3
        ]

    def strides(stage: nn.Module) -> set[tuple[int, ...]]:
        return {layer.stride for layer in stage.modules() if isinstance(layer, nn.Conv2d)}

    assert dilations(stages.layer1) + dilations(stages.layer2) == 14 * [1]
    assert dilations(stages.layer3) == [1] + 11 * [2]
    assert dilations(stages.layer4) == [2] + 5 * [4]
    assert strides(stages.layer2) == {(1, 1), (2, 2)}
    assert strides(stages.layer3) == strides(stages.layer4) == {(1, 1)}


def test_one_step_reaches_every_parameter() -> None:
    net = tiny()
    labels = torch.randint(0, 3, (2, 32, 32), generator=torch.Generator().manual_seed(1))

    out, aux = net.both(images(), perturb=False)
    torch.autograd.backward(functional.cross_entropy(out, labels) + functional.cross_entropy(aux, labels))

    still = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


def test_the_guide_is_a_mask_that_changes_the_second_stage_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny().eval()
    for value in net.head.parameters():
        nn.init.normal_(value, std=float(value.ndim > 1))
    found: list[Tensor] = []
    mask = pgfanet._foreground

    def seen(coarse: Tensor, stem: Tensor) -> Tensor:
        found.append(mask(coarse, stem))
        return found[-1]

    monkeypatch.setattr(pgfanet, "_foreground", seen)
    out, aux = net.both(images(), perturb=False)
    monkeypatch.setattr(pgfanet, "_foreground", lambda coarse, stem: torch.zeros_like(mask(coarse, stem)))
    other_out, other_aux = net.both(images(), perturb=False)

    assert found[0].shape == (2, 1, 16, 16)
    assert set(found[0].flatten().tolist()) == {0, 1}
    assert not found[0].requires_grad
    assert not torch.equal(out, other_out)
    assert torch.equal(aux, other_aux)


def test_the_guide_is_where_any_class_but_the_first_is_likeliest() -> None:
    coarse = torch.tensor([[3.0, 0, 0], [1, 2, 0], [1, 0, 2], [0, 2, 2]]).T.reshape(1, 3, 2, 2)

    mask = pgfanet._foreground(coarse, torch.zeros(1, 5, 2, 2))

    assert mask.flatten().tolist() == [0, 1, 1, 1]


def test_only_a_student_is_disturbed() -> None:
    net = tiny().eval()

    with torch.no_grad():
        plain = net.both(images(), perturb=False)
        again = net.both(images(), perturb=False)
        torch.manual_seed(2)
        out, aux = net.both(images(), perturb=True)

    assert torch.equal(plain[0], again[0])
    assert torch.equal(plain[1], again[1])
    assert torch.equal(net(images()), plain[0])
    assert not torch.equal(out, plain[0])
    assert not torch.equal(aux, plain[1])


def test_dropped_are_the_most_active_pixels() -> None:
    net = tiny(noise=FeatureNoise(drop_chance=1, noise_chance=0))
    logits = torch.linspace(0.01, 1, 100).reshape(1, 1, 10, 10).expand(2, 3, 10, 10) * torch.tensor([1, 5]).view(
        2, 1, 1, 1
    )

    left = net._disturbed(logits)

    for image, given in zip(left, logits, strict=True):
        is_dropped = (image == 0).all(dim=0).flatten()
        count = int(is_dropped.sum())
        assert 10 <= count <= 31
        assert is_dropped[-count:].all()
        torch.testing.assert_close(image.flatten(1)[:, :-count], given.flatten(1)[:, :-count])
    assert (left[0] == 0).equal(left[1] == 0)


def test_noise_is_one_for_the_batch_and_bounded() -> None:
    net = tiny(noise=FeatureNoise(drop_chance=0, noise_chance=1, noise=0.3))
    logits = torch.rand(3, 2, 7, 5, generator=torch.Generator().manual_seed(0)) + 1

    factor = net._disturbed(logits) / logits

    torch.testing.assert_close(factor[0], factor[1])
    torch.testing.assert_close(factor[0], factor[2])
    assert factor.std() > 0.1
    assert 0.7 <= factor.min() < factor.max() <= 1.3


@pytest.mark.parametrize("chance", [0, 0.5, 1])
def test_disturbances_come_as_often_as_asked_for(chance: float) -> None:
    net = tiny(noise=FeatureNoise(drop_chance=chance, noise_chance=0))
    logits = torch.ones(1, 2, 2, 2)
    torch.manual_seed(0)

    share = sum(bool((net._disturbed(logits) == 0).all()) for _ in range(200)) / 200

    assert share == pytest.approx(chance, abs=0.1)


def test_any_size_will_do() -> None:
    net = tiny(classes=2).eval()

    with torch.no_grad():
        assert net(images()[..., :27, :19]).shape == (2, 2, 27, 19)


def test_files_of_torchvision_are_a_beginning_of_both_encoders() -> None:
    import torchvision

    with torch.device("meta"):
        theirs = torchvision.models.resnet18().state_dict()
    weights = {key: torch.full(value.shape, 2.0) for key, value in theirs.items()}
    net = build_pgfanet(PGFANetSpec(encoder="resnet18"), 3)

    report = initialise(net, weights, where=Path("weights.pth"))

    state = net.state_dict()
    ours = [key for key in state if key.startswith("encoder") and "num_batches" not in key]
    assert set(ours) == set(report.loaded)
    assert all(state[key].eq(2).all() for key in ours)
    assert report.unexpected == ("fc.bias", "fc.weight")


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_encoders_have_the_names_and_shapes_of_torchvision(name: Literal["resnet18", "resnet34"]) -> None:
    import torchvision

    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)().state_dict()
    ours = described(PGFANetSpec(encoder=name), 3).encoder.state_dict()

    shapes = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.items()} == shapes


def test_weights_of_the_whole_network_stay_where_they_were() -> None:
    source, target = tiny(seed=0), tiny(seed=1)

    report = initialise(target, source.state_dict(), where=Path("model"))

    torch.testing.assert_close(target.state_dict(), source.state_dict(), rtol=0, atol=0)
    assert (report.missing, report.unexpected, report.misshapen) == ((), (), ())
    first, second = (next(encoder.layer1.parameters()) for encoder in (target.encoder, target.encoder2))
    assert not first.equal(second)


def test_the_factory_knows_it_by_name() -> None:
    given = {"arch": "pgfanet", "encoder": "resnet18", "features": 16}

    with torch.device("meta"):
        net = build_described(given, 3, 4)

    assert isinstance(net, PGFANet)
    assert net.out.in_channels == 16 + 4
    assert len(net.encoder.layer3) == 2
    assert spec_type("pgfanet") is PGFANetSpec
