"""A GAN is trained scale by scale, goes on after a stop as if there had been none, and samples by seed."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tests.synthesis_makers import card_of, example_of, tiny
from wsiseg.errors import DataError, MethodError, StoppedError
from wsiseg.stopping import Stop
from wsiseg.synthesis import gan_fit
from wsiseg.synthesis.gan_card import CARD
from wsiseg.synthesis.gan_files import LOG, STATE, begin, read_gan, read_tensors, scale_file
from wsiseg.synthesis.gan_fit import fit
from wsiseg.synthesis.gan_steps import Material, reconstruct
from wsiseg.synthesis.layouts import LayoutSettings, layouts
from wsiseg.synthesis.nucleus_bank import bank_of
from wsiseg.synthesis.pyramid import as_images, as_masks, resized
from wsiseg.synthesis.sampling import rebuilt, sample

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.synthesis.gan_steps import ScaleTraining
    from wsiseg.synthesis.settings import GanSettings

CPU = torch.device("cpu")


class StopAfter(Stop):
    """Stops after some looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    @property
    def is_requested(self) -> bool:
        self._left -= 1
        if self._left < 0:
            self.request("a test wants it")
        return super().is_requested


def train(folder: Path, settings: GanSettings, stop: Stop | None = None) -> None:
    example = example_of()
    begin(folder, card_of(settings), example)
    masks = layouts(bank_of(example.labels), LayoutSettings(), "normal", range(settings.masks), patch="a", seed=0)
    fit(folder, example, np.stack(masks), settings, device=CPU, stop=stop)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gan") / "a"
    train(folder, tiny())
    return folder


def test_a_trained_gan_has_all_scales_a_log_and_sheets(trained: Path) -> None:
    gan = read_gan(trained, CPU)

    assert gan.sides == (16, 23, 32)
    # Each scale knows the colours that the patch has at its size.
    patch = as_images(gan.example.image[None])
    for scale in gan.scales:
        own = resized(patch, scale.side_px)[0].flatten(1)
        assert torch.equal(scale.colours[:, :, 0, 0], torch.stack((own.amin(dim=1), own.amax(dim=1))))
    with (trained / LOG).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["scale"], row["step"]) for row in rows] == [(str(n), str(k)) for n in range(3) for k in range(1, 5)]
    assert sorted(path.name for path in (trained / "sheets").iterdir()) == [f"scale-{n}.png" for n in range(3)]
    assert not (trained / STATE).exists()
    assert gan.errors[0] == pytest.approx(np.mean([float(row["reconstruction"]) for row in rows[:4]]), rel=1e-4)


@torch.no_grad()
def test_noise_is_a_tenth_of_the_error_that_the_scales_below_leave(trained: Path) -> None:
    gan = read_gan(trained, CPU)
    image, mask = as_images(gan.example.image[None]), as_masks(gan.example.labels[None])
    material = Material(image=image, mask=mask, masks=mask, star=gan.star)

    assert gan.scales[0].amplitude == 1
    for number in (1, 2):
        side = gan.sides[number]
        error = reconstruct(gan.scales[:number], material, side) - resized(image, side)
        assert gan.scales[number].amplitude == pytest.approx(0.1 * float(error.square().mean()) ** 0.5, rel=1e-4)


def test_generator_and_critics_have_the_published_adam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.optim.Adam] = []

    def look(training: ScaleTraining, *_: object) -> torch.Tensor:
        seen.extend((training.generator_adam, training.critics_adam))
        return torch.zeros(5)

    monkeypatch.setattr(gan_fit, "update", look)
    train(tmp_path / "a", tiny(steps=1))

    assert len(seen) == 6
    groups = [group for adam in seen for group in adam.param_groups]
    assert {(group["lr"], group["betas"], group["weight_decay"]) for group in groups} == {(5e-4, (0.5, 0.999), 0)}


@pytest.mark.parametrize("looks", [0, 2, 6, 11])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(trained: Path, tmp_path: Path, looks: int) -> None:
    folder = tmp_path / "a"

    with pytest.raises(StoppedError):
        train(folder, tiny(), StopAfter(looks))
    train(folder, tiny())

    for number in range(3):
        once, twice = read_tensors(scale_file(trained, number)), read_tensors(scale_file(folder, number))
        assert all(torch.equal(once[name], twice[name]) for name in once)
    assert (folder / LOG).read_bytes() == (trained / LOG).read_bytes()


def test_a_second_run_trains_nothing(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gan_fit, "update", lambda *_: pytest.fail("there is nothing to train"))

    train(trained, tiny())


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "batch"},
        {"norm": "none"},
        {"critic_output": "relu6"},
        {"component_reduction": "masked"},
        {"mask_order": "cyclic"},
        {"component_weight": 0.0},
        {"critic_steps": 2, "penalty_every": 3},
    ],
)
def test_what_can_be_chosen_trains(tmp_path: Path, changes: dict[str, object]) -> None:
    settings = tiny(steps=2, widths=(4, 4), **changes)

    train(tmp_path / "a", settings)

    assert all(np.isfinite(read_gan(tmp_path / "a", CPU).errors))


def test_scales_of_equal_width_begin_with_the_weights_below(tmp_path: Path) -> None:
    # With almost no learning, weights stay where they began.
    train(tmp_path / "a", tiny(steps=1, widths=(4, 4, 6), lr=1e-12))

    first, second, third = (read_gan(tmp_path / "a", CPU).scales[n].generator.state_dict() for n in range(3))

    torch.testing.assert_close(first, second)
    assert third["body.0.weight"].shape[0] == 6


def test_other_settings_are_refused(trained: Path) -> None:
    with pytest.raises(DataError, match="settings"):
        begin(trained, card_of(tiny(lr=1e-3)), example_of())


def test_a_diverging_training_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gan_fit, "update", lambda *_: torch.full((5,), torch.nan))

    with pytest.raises(MethodError, match="diverges"):
        train(tmp_path / "a", tiny())


def test_unfinished_and_damaged_gans_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with pytest.raises(StoppedError):
        train(folder, tiny(), StopAfter(6))

    with pytest.raises(DataError, match="not trained to its end"):
        read_gan(folder, CPU)
    scale_file(folder, 0).write_bytes(b"rubbish")
    with pytest.raises(DataError, match="damaged"):
        read_gan(folder, CPU)
    (folder / CARD).write_text("{}")
    with pytest.raises(DataError, match="card"):
        read_gan(folder, CPU)
    with pytest.raises(DataError, match="no GAN"):
        read_gan(tmp_path, CPU)


@pytest.mark.parametrize("noise", ["ends", "all"])
def test_noise_makes_other_images_of_a_mask_and_a_seed_the_same(trained: Path, noise: str) -> None:
    gan = read_gan(trained, CPU)
    labels = gan.example.labels

    first, again, other = (
        sample(gan, labels, seed=seed, index=0, noise=noise)  # type: ignore[arg-type] # parametrised
        for seed in (0, 0, 1)
    )

    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(float) - other).mean() > 0.5
    assert first.shape == (32, 32, 3)


def test_images_may_be_larger_than_the_patch(trained: Path) -> None:
    assert sample(read_gan(trained, CPU), np.ones((50, 50), np.int32), seed=0, index=0).shape == (50, 50, 3)


def test_a_gan_rebuilds_the_patch_from_its_own_noise_and_better_than_from_any_other(tmp_path: Path) -> None:
    train(tmp_path / "a", tiny(steps=60, widths=(8, 8), lr=2e-3, reconstruction_weight=100))
    gan = read_gan(tmp_path / "a", CPU)

    def error(image: NDArray[np.uint8]) -> float:
        return float((((image.astype(float) - gan.example.image) / 127.5) ** 2).mean())

    others = [sample(gan, gan.example.labels, seed=seed, index=0) for seed in range(3)]
    assert error(rebuilt(gan)) < 0.6 * min(map(error, others))
