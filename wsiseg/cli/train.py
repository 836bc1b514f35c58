"""``wsiseg train``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console
from wsiseg.cli.options import (
    RUN,
    ConfigFile,
    Device,
    Overrides,
    Precision,
    TimeLimit,
    as_overrides,
    seconds,
)

DATA, MODEL, LEARNING = "Data", "Model", "Learning"


def train(
    stores: Annotated[list[Path], typer.Argument(help="Patch stores, or folders of them.", show_default=False)],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", show_default=False)],
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="How to learn: supervised; from few labels mean-teacher, pgfanet, ugmcl, or hce (reconstructed); "
            "objects from a few annotated patches label-efficient; from patch labels mlps, or craanet (reconstructed). "
            "Default supervised.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            help="unet-gn, dual-unet, pgfanet, hce, deeplabv3+, maskrcnn, or an architecture of "
            "segmentation-models-pytorch (unet, fpn, …); for volumes unet3d or vnet. "
            "Default unet-gn, or the method's own.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="An encoder of timm, or for maskrcnn of torchvision.", rich_help_panel=MODEL),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            help="Of methods that learn from patch labels: resnet38d, or a timm encoder such as resnet18. "
            "Default as published.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            help="Weights that its networks begin with: none, imagenet (downloaded), or a file, for all networks "
            "on the same backbone. Default none.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            "--stages",
            help="Stages to run, such as classify,pseudo-label,segment; pseudo-label alone is wsiseg pseudo-label. "
            "Default all.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            help="Of label-efficient: students, one after the other, each taught by the one before. Default 1.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            help="semantic for classes; flow, hv, star, centre, level-set or ternary for objects; auto by layer, "
            "network and method. Default auto.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer of labels. Default: the only one there is.", rich_help_panel=DATA),
    ] = None,
    labelled: Annotated[
        str | None,
        typer.Option(
            "--labelled",
            help="Labels to train on: a share (0.1, 10%; 1.0 is all), a count (1 is one), or a file of names, by whole "
            "patients, else slides or images (--set labelled_by=image, or patch); or the selection.csv of wsiseg "
            "select. Methods for few labels see the others without. --val-fraction is held out before, with labels "
            "beyond these (--set val_from=labelled: of these). Default all.",
            rich_help_panel=DATA,
        ),
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option(
            "--mpp",
            help="µm per pixel to train at; not with patch labels. Default: the first store's.",
            rich_help_panel=DATA,
        ),
    ] = None,
    crop_px: Annotated[
        int | None,
        typer.Option(
            "--crop-px",
            help="Edge of training images; not with patch labels. Default 256, or the method's own.",
            rich_help_panel=DATA,
        ),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            "--val-fraction",
            help="Share of all labels held out, by whole patients, slides or images, to choose the model by, where "
            "stores mark no splits; not with patch labels; 0 for none. Default 0.2.",
            rich_help_panel=DATA,
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            "--epochs",
            help="Rounds through the data. Default by --steps; from patch labels 20 to classify and 30 to segment.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            help="Updates of the weights; not with patch labels. Default 5000, or the method's own.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            help="Images in a batch, per device. Default 8; from patch labels 20.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            "--accumulate",
            help="Batches for one update; not with patch labels. Default 1, or the method's own.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            help="Highest learning rate; not with patch labels, whose is --set options.numbers.STAGE.lr=…. "
            "Default 0.0003, or the method's own.",
            rich_help_panel=LEARNING,
        ),
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
    device: Device = "auto",
    amp: Precision = None,
    num_workers: Annotated[
        int | None, typer.Option("--num-workers", help="Threads that cut images. Default 2.", rich_help_panel=RUN)
    ] = None,
    time_limit: TimeLimit = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew instead of going on.", rich_help_panel=RUN)
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Train a model on labelled patches, or go on with a training that was interrupted.

    The run holds the models best and last, log.csv, validation.csv, curves.png, and what each image was (split.csv);
    `wsiseg predict --model RUN` uses the best. Methods that learn from patch labels, and label-efficient, keep models
    and tables for each stage, and write report.html.
    Several GPUs: torchrun --nproc-per-node N -m wsiseg.cli.app train …
    """
    from wsiseg.config import load
    from wsiseg.tasks.train import train as run
    from wsiseg.tasks.train_job import TrainConfig, TrainJob

    options = {
        "method": method,
        "layer": layer,
        "labelled": labelled,
        "mpp": mpp,
        "crop_px": crop_px,
        "val_fraction": val_fraction,
        "epochs": epochs,
        "batch_size": batch_size,
        "stages": None if stages is None else [stage.strip() for stage in stages.split(",")],
    }
    nested = {
        "options.arch": arch,
        "options.encoder": encoder,
        "options.head": head,
        "options.backbone": backbone,
        "options.init": init,
        "options.rounds": rounds,
        "fit.steps": steps,
        "fit.accumulate": accumulate,
        "fit.lr": lr,
        "fit.ema": ema,
        "fit.seed": seed,
        "fit.amp": amp,
        "fit.num_workers": num_workers,
    }
    job = TrainJob(
        stores=tuple(stores),
        output=output,
        config=load(TrainConfig, file=config, options=options, overrides=as_overrides(nested, overrides)),
        device=device,
        overwrite=overwrite,
    )
    with console.progress_bar() as progress, console.graceful(seconds(time_limit)) as stop:
        report = run(job, progress, stop)
    if report.is_first:
        console.out.print(str(report), highlight=False, markup=False)
