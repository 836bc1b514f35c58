"""``wsiseg train``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console

DATA, MODEL, LEARNING, RUN = "Data", "Model", "Learning", "Run"


class Amp(StrEnum):
    """Precision on the way forward."""

    AUTO = "auto"
    BF16 = "bf16"
    FP16 = "fp16"
    OFF = "off"


def train(
    stores: Annotated[list[Path], typer.Argument(help="Patch stores, or folders of them.", show_default=False)],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", show_default=False)],
    method: Annotated[
        str | None, typer.Option("--method", help="How to learn. Default supervised.", rich_help_panel=MODEL)
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            help="unet-gn, or an architecture of segmentation-models-pytorch (unet, fpn, …). Default unet-gn.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="A timm encoder, for architectures that take one.", rich_help_panel=MODEL),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            help="semantic for classes; flow, hv or star for objects; auto by the layer. Default auto.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer of labels. Default: the only one there is.", rich_help_panel=DATA),
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option("--mpp", help="µm per pixel to train at. Default: the first store's.", rich_help_panel=DATA),
    ] = None,
    crop_px: Annotated[
        int | None, typer.Option("--crop-px", help="Edge of training images. Default 256.", rich_help_panel=DATA)
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            "--val-fraction",
            help="Share held out by whole images, unless the stores mark splits; 0 for none. Default 0.2.",
            rich_help_panel=DATA,
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Rounds through the data.", rich_help_panel=LEARNING)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Updates of the weights. Default 5000.", rich_help_panel=LEARNING),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help="Images in a batch, per device. Default 8.", rich_help_panel=LEARNING),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option("--accumulate", help="Batches for one update. Default 1.", rich_help_panel=LEARNING),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", help="Highest learning rate. Default 0.0003.", rich_help_panel=LEARNING),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            "--ema", help="Keep a running average of weights with this decay, such as 0.999.", rich_help_panel=LEARNING
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Decides everything random. Default 0.", rich_help_panel=LEARNING)
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=RUN)
    ] = "auto",
    amp: Annotated[
        Amp | None,
        typer.Option("--amp", help="Half precision; auto uses it on CUDA. Default auto.", rich_help_panel=RUN),
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option("--num-workers", help="Threads that cut images. Default 2.", rich_help_panel=RUN)
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option("--time-limit", help="Minutes after which to save, stop and exit 75.", rich_help_panel=RUN),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew instead of going on.", rich_help_panel=RUN)
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings as a TOML file.", rich_help_panel=RUN)
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A deeper setting, such as augmentation.scale=0.3.", rich_help_panel=RUN),
    ] = None,
) -> None:
    """Train a model on labelled patches, or go on with a training that was interrupted.

    The run holds the models best and last, log.csv, validation.csv and curves.png; `wsiseg predict --model RUN` uses
    the best. Several GPUs: torchrun --nproc-per-node N -m wsiseg.cli.app train …
    """
    from wsiseg.config import load
    from wsiseg.tasks.train import TrainConfig, TrainJob
    from wsiseg.tasks.train import train as run

    options = {
        "method": method,
        "layer": layer,
        "mpp": mpp,
        "crop_px": crop_px,
        "val_fraction": val_fraction,
        "epochs": epochs,
        "batch_size": batch_size,
    }
    nested = {
        "options.arch": arch,
        "options.encoder": encoder,
        "options.head": head,
        "fit.steps": steps,
        "fit.accumulate": accumulate,
        "fit.lr": lr,
        "fit.ema": ema,
        "fit.seed": seed,
        "fit.amp": amp,
        "fit.num_workers": num_workers,
    }
    given = [f"{key}={value}" for key, value in nested.items() if value is not None]
    job = TrainJob(
        stores=tuple(stores),
        output=output,
        config=load(TrainConfig, file=config, options=options, overrides=[*given, *(overrides or ())]),
        device=device,
        overwrite=overwrite,
    )
    limit_s = None if time_limit is None else 60 * time_limit
    with console.progress_bar() as progress, console.graceful(limit_s) as stop:
        report = run(job, progress, stop)
    if report.is_first:
        console.out.print(str(report), highlight=False, markup=False)
