"""Encoders are built with the weights that were asked for, and nothing is fetched unasked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from wsiseg.errors import DataError, MethodError
from wsiseg.selection.encoders import EncoderSpec, ImageEncoder, build_encoder

if TYPE_CHECKING:
    from pathlib import Path

SMALL = "test_resnet.r160_in1k"
FIXED = "test_vit.r160_in1k"


@pytest.fixture(autouse=True)
def no_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give tests caches of their own, which are empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))


def snapshot(cache: Path, model: str) -> Path:
    """Return the folder of a model in a cache as the Hugging Face hub lays it out."""
    repository = cache / f"models--{model.replace('/', '--')}"
    folder = repository / "snapshots" / "0123abc"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    return folder


def images(side: int = 64) -> torch.Tensor:
    return torch.randint(256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [SMALL, FIXED, "torchvision/resnet18"])
def test_any_encoder_makes_one_vector_of_an_image(name: str) -> None:
    encoder = build_encoder(EncoderSpec(encoder=name, init="none"))

    for side in (64, 128):
        found = encoder(images(side))
        assert found.shape == (2, encoder.dimensions)
        assert not found.requires_grad


class OneSize(nn.Module):
    """Takes images of one size, as a vision transformer does."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side, self.body, self.heads = side, nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[2] == self.side, "Wrong image height!"
        found: torch.Tensor = self.heads(self.body(images).mean(dim=(2, 3)))
        return found


def test_networks_that_take_one_size_get_the_one_of_their_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = EncoderSpec(encoder="torchvision/vit_b_16", init="none")
    monkeypatch.setattr("torchvision.models.get_model", lambda *_, **__: OneSize(224))

    for sides in ((64, 128), (224, 448), (112, 224)):
        encoder = build_encoder(spec, sides_px=sides)
        assert encoder.side_px == 224
        assert encoder(images(32)).shape == (2, 4)
    monkeypatch.setattr("torchvision.models.get_model", lambda *_, **__: OneSize(100))
    with pytest.raises(MethodError, match=r"takes no images of 224 px \(Wrong image height!\)"):
        build_encoder(spec)


def test_networks_get_images_as_they_are_if_they_take_all_of_them() -> None:
    spec = EncoderSpec(encoder=SMALL, init="none")

    assert build_encoder(spec, sides_px=(16, 32)).side_px is None
    assert build_encoder(EncoderSpec(encoder=FIXED, init="none")).side_px == 160


def test_random_weights_are_always_the_same_and_leave_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()

    one, other = (build_encoder(EncoderSpec(encoder=SMALL, init="none")) for _ in range(2))

    assert one.fingerprint() == other.fingerprint()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_colours_are_prepared_as_asked() -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)

    torch.testing.assert_close(ImageEncoder(net)(white), torch.ones(1, 3))
    torch.testing.assert_close(
        ImageEncoder(net, mean=(0.5, 0.5, 0.0), std=(0.5, 0.25, 2.0))(white), torch.tensor([[1.0, 2.0, 0.5]])
    )
    unit = build_encoder(EncoderSpec(encoder=SMALL, init="none", preproc="unit"))
    trained = build_encoder(EncoderSpec(encoder=SMALL, init="none"))
    assert unit.get_buffer("mean").flatten().tolist() == [0, 0, 0]
    about: Any = timm.create_model(SMALL).pretrained_cfg  # as timm leaves it
    assert trained.get_buffer("mean").flatten().tolist() == pytest.approx(list(about["mean"]))


def test_weights_of_a_file_and_of_the_cache_of_the_hub_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = timm.create_model(SMALL)
    for folder in (tmp_path, snapshot(tmp_path / "hf", f"timm/{SMALL}")):
        save_file(net.state_dict(), folder / "model.safetensors")
    net.reset_classifier(0)  # type: ignore[operator] # timm's
    expected = ImageEncoder(net).fingerprint()

    for init in (str(tmp_path / "model.safetensors"), "imagenet"):
        assert build_encoder(EncoderSpec(encoder=SMALL, init=init)).fingerprint() == expected
    with pytest.raises(DataError, match="no such file"):
        build_encoder(EncoderSpec(encoder=SMALL, init=str(tmp_path / "gone.safetensors")))


def test_published_weights_come_from_the_cache_of_torch_or_are_fetched_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    net = resnet18()
    weights: dict[str, Any] = net.state_dict()
    fetched = []

    def fetch(url: str, **asked: object) -> dict[str, Any]:
        fetched.append((url.rpartition("/")[2], asked["check_hash"]))
        return weights

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    spec = EncoderSpec(encoder="torchvision/resnet18")
    asked = build_encoder(spec.model_copy(update={"download": True}))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(weights, folder / "resnet18-f37072fd.pth")
    found = build_encoder(spec)

    assert fetched == [("resnet18-f37072fd.pth", True)]
    net.fc = nn.Identity()
    assert found.fingerprint() == ImageEncoder(nn.Sequential(net, nn.Flatten())).fingerprint()
    assert asked.fingerprint() == found.fingerprint()


def test_weights_that_cannot_be_fetched_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)

    with pytest.raises(MethodError, match=r"cannot be had \(no route to host\)"):
        build_encoder(EncoderSpec(encoder="torchvision/resnet18", download=True))


def test_unless_told_the_encoder_is_the_published_one_with_its_first_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A hundred MB of weights are found, but not read.
    path = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    read: list[Path] = []
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setattr("wsiseg.selection.encoders.read_weights", read.append)
    monkeypatch.setattr("wsiseg.selection.encoders.initialise", lambda *_, **__: None)

    encoder = build_encoder(EncoderSpec(preproc="unit"))

    assert read == [path]
    assert (encoder.dimensions, encoder.side_px) == (2048, None)
    # As published, colours stay 0 … 1.
    assert encoder.get_buffer("mean").flatten().tolist() == [0, 0, 0]
    assert encoder.get_buffer("std").flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["torchvision/resnet18", SMALL, "hf-hub:timm/some_model"])
def test_weights_that_are_not_here_are_one_clear_error(name: str) -> None:
    with pytest.raises(MethodError, match=r"not on this machine.*--download.*--init FILE.*--init none"):
        build_encoder(EncoderSpec(encoder=name))


def test_a_folder_and_a_model_of_the_hub_that_was_fetched_are_encoders(tmp_path: Path) -> None:
    torch.manual_seed(5)
    net = timm.create_model(SMALL, num_classes=0)
    about = {
        "architecture": "test_resnet",
        "num_classes": 0,
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 160, 160]},
    }
    folder = snapshot(tmp_path / "hf", "owner/tiny")
    (folder / "config.json").write_text(json.dumps(about))
    save_file(net.state_dict(), folder / "model.safetensors")

    for name in (str(folder), "hf-hub:owner/tiny"):
        found = build_encoder(EncoderSpec(encoder=name))

        assert found.fingerprint() == ImageEncoder(net).fingerprint()
        assert found.get_buffer("mean").flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("name", ["resnet5000", "torchvision/resnet51"])
def test_unknown_encoders_are_told_with_what_was_meant(name: str) -> None:
    with pytest.raises(MethodError, match=r"no encoder.*Did you mean"):
        build_encoder(EncoderSpec(encoder=name, init="none"))


def test_networks_that_give_maps_are_refused() -> None:
    with pytest.raises(MethodError, match="one vector"):
        ImageEncoder(nn.Conv2d(3, 4, 3))
