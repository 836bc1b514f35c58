"""Training the GAN of a patch, scale by scale."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

from wsiseg.atomic import write_bytes
from wsiseg.errors import MethodError
from wsiseg.nets.csingan import Critics, Generator
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.synthesis.gan_files import LOG, STATE, as_scale, named, part_of, read_tensors, scale_file, write_tensors
from wsiseg.synthesis.gan_steps import Material, ScaleTraining, reconstruct, update
from wsiseg.synthesis.pyramid import Scale, as_images, as_masks, colours_of, draws, noise_like, resized, resized_masks
from wsiseg.synthesis.sheets import write_scale_sheet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from wsiseg.progress import Progress
    from wsiseg.synthesis.gan_files import Example
    from wsiseg.synthesis.settings import GanSettings

SAVE_EVERY: Final = 100
_COLUMNS: Final = ("scale", "step", "reconstruction", "whole", "foreground", "background", "penalty")
_BETAS: Final = (0.5, 0.999)
# Keys of draws that belong to no step.
_STAR, _WEIGHTS = -1, -2


def fit(
    folder: Path,
    example: Example,
    labels: NDArray[np.int32],
    settings: GanSettings,
    *,
    device: torch.device,
    progress: Progress = SILENT,
    stop: Stop | None = None,
) -> None:
    """Train the scales that are not trained yet; goes on where an earlier run stopped.

    Parameters
    ----------
    folder
        Gets the files of `wsiseg.synthesis.gan_files`.
    example
        The patch.
    labels
        New masks, (M, S, S).
    settings
        How.
    device
        Where the networks are.
    progress, stop
        How far it is, and whether to stop.

    Raises
    ------
    StoppedError
        If `stop` was requested; what is done is saved.
    MethodError
        If the training diverges.
    DataError
        If the files of an earlier run are damaged.
    """
    sides = example.sides(settings)
    star = noise_like(torch.empty(1, 3, sides[0], sides[0]), draws(settings.seed, _STAR), is_grey=True)
    material = Material(
        image=as_images(example.image[None]).to(device),
        mask=as_masks(example.labels[None]).to(device),
        masks=as_masks(labels).to(device),
        star=star.to(device),
    )
    scales: list[Scale] = []
    logs: list[Tensor] = []
    before: Mapping[str, Tensor] = {}
    for number, side_px in enumerate(sides):
        if not scale_file(folder, number).exists():
            training = _begin(scales, before, material, settings, side_px=side_px)
            _restore(folder / STATE, training)
            _train(folder, training, material, settings, logs, progress=progress, stop=stop or Stop())
        before = read_tensors(scale_file(folder, number))
        scales.append(as_scale(before, settings.widths[number], settings, resized(material.image, side_px)))
        logs.append(before["log"])
    _write_log(folder, logs)
    (folder / STATE).unlink(missing_ok=True)


def _begin(
    below: Sequence[Scale], before: Mapping[str, Tensor], material: Material, settings: GanSettings, *, side_px: int
) -> ScaleTraining:
    """Return a scale with the weights of the one below, or with new ones where their widths differ."""
    number = len(below)
    width = settings.widths[number]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draws(settings.seed, number, _WEIGHTS).initial_seed())
        generator = Generator(width, norm=settings.norm)
        critics = Critics(width, norm=settings.norm, output=settings.critic_output)
    if number and settings.widths[number - 1] == width:
        generator.load_state_dict(part_of(before, "generator"))
        critics.load_state_dict(part_of(before, "critics"))
    device = material.image.device
    target, amplitude = resized(material.image, side_px), 1.0
    if number:
        made = reconstruct(below, material, side_px)
        amplitude = settings.noise * float(functional.mse_loss(made, target).sqrt())
    return ScaleTraining(
        number=number,
        scale=Scale(generator=generator.to(device), side_px=side_px, amplitude=amplitude, colours=colours_of(target)),
        below=tuple(below),
        critics=critics.to(device),
        generator_adam=torch.optim.Adam(generator.parameters(), lr=settings.lr, betas=_BETAS),
        critics_adam=torch.optim.Adam(critics.parameters(), lr=settings.lr, betas=_BETAS),
    )


def _train(
    folder: Path,
    training: ScaleTraining,
    material: Material,
    settings: GanSettings,
    logs: Sequence[Tensor],
    *,
    progress: Progress,
    stop: Stop,
) -> None:
    """Train a scale to its end and write its file."""
    scale, steps = training.scale, settings.steps
    target = resized(material.image, scale.side_px), resized_masks(material.mask, scale.side_px)
    coarse = reconstruct(training.below, material, scale.side_px)
    what = f"{folder.name}: scale {training.number + 1} of {len(settings.widths)}, {scale.side_px} px"
    status = ""
    with progress.task(what, total=steps, unit="steps") as advance:
        advance(training.step)
        while training.step < steps:
            if stop.is_requested:
                _save(folder, training)
                raise stop.error()
            training.log.append(update(training, material, target, coarse, settings))
            if training.step % SAVE_EVERY == 0:
                _save(folder, training)
                _write_log(folder, [*logs, torch.stack(training.log).cpu()])
                write_scale_sheet(folder, training, material, coarse)
                status = f"error {float(training.log[-1][0]):.4f}"
            advance(status=status)
    _check_finite(folder, training)
    write_scale_sheet(folder, training, material, coarse)
    more = {"star": material.star} if training.number == 0 else {}
    write_tensors(scale_file(folder, training.number), {**_weights(training), **more})


def _weights(training: ScaleTraining) -> dict[str, Tensor]:
    return {
        **named("generator", training.scale.generator.state_dict()),
        **named("critics", training.critics.state_dict()),
        "amplitude": torch.tensor(training.scale.amplitude),
        "log": torch.stack(training.log),
    }


def _save(folder: Path, training: ScaleTraining) -> None:
    if not training.log:
        return
    _check_finite(folder, training)
    moments = {
        **named("generator-adam", _moments(training.scale.generator, training.generator_adam)),
        **named("critics-adam", _moments(training.critics, training.critics_adam)),
    }
    write_tensors(folder / STATE, {**_weights(training), **moments, "scale": torch.tensor(training.number)})


def _restore(path: Path, training: ScaleTraining) -> None:
    """Go on from the state at `path`, if there is one of this scale."""
    if not path.exists():
        return
    tensors = read_tensors(path)
    if int(tensors["scale"]) != training.number:
        return
    training.scale.generator.load_state_dict(part_of(tensors, "generator"))
    training.critics.load_state_dict(part_of(tensors, "critics"))
    _give_moments(training.scale.generator, training.generator_adam, part_of(tensors, "generator-adam"))
    _give_moments(training.critics, training.critics_adam, part_of(tensors, "critics-adam"))
    training.log = list(tensors["log"].to(next(training.critics.parameters()).device))


def _moments(module: nn.Module, adam: torch.optim.Adam) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, weight in module.named_parameters()
        for key, value in adam.state.get(weight, {}).items()
    }


def _give_moments(module: nn.Module, adam: torch.optim.Adam, moments: Mapping[str, Tensor]) -> None:
    for name, weight in module.named_parameters():
        own = part_of(moments, name)
        # Adam counts on the CPU and keeps its means where the weights are.
        adam.state[weight] = {key: value if key == "step" else value.to(weight.device) for key, value in own.items()}


def _check_finite(folder: Path, training: ScaleTraining) -> None:
    if not bool(torch.isfinite(torch.stack(training.log)).all()):
        raise MethodError(
            f"the training of scale {training.number + 1} diverges",
            where=folder,
            mend="Fit this patch into a folder of its own with --set lr=1e-4, or leave it out",
        )


def _write_log(folder: Path, logs: Sequence[Tensor]) -> None:
    """Write the losses of all scales, (steps, 5) each, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for number, log in enumerate(logs):
        rows = enumerate(log.tolist(), start=1)
        writer.writerows((number, step, *(f"{value:.6g}" for value in row)) for step, row in rows)
    write_bytes(folder / LOG, text.getvalue().encode())
