"""``wsiseg synth fit`` and ``wsiseg synth sample``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from wsiseg.cli import console
from wsiseg.cli.options import LABELS, RUN, ConfigFile, Device, Overrides, TimeLimit, seconds

LEARNING = "Learning"

synth = typer.Typer(
    no_args_is_help=True, help="Make more images of nuclei, with their labels, out of single annotated patches."
)


class Preset(StrEnum):
    """How long GANs are trained, and how large they are."""

    PAPER = "paper"
    GPU = "gpu"
    CPU = "cpu"
    SMOKE = "smoke"


class NoiseScales(StrEnum):
    """Scales that get noise when images are made."""

    ENDS = "ends"
    ALL = "all"


@synth.command()
def fit(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE...", help="Patch stores with instances, or folders of them.", show_default=False),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the GANs, one for each patch.", show_default=False)
    ],
    patches: Annotated[
        list[str] | None,
        typer.Option(
            "--patch",
            help="Name of a patch that is annotated to its border; may be repeated. Its image's, or "
            "IMAGE-X-Y where an image has several.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    selection: Annotated[
        Path | None,
        typer.Option(
            "--selection",
            help="selection.csv of wsiseg select: its first choices, instead of --patch. Those that cannot be learnt "
            "from are left out and named.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer of instances. Default: the only one there is.", rich_help_panel=LABELS),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(
            "--preset",
            help="paper (long) or gpu, both for a GPU, cpu (under half an hour on two cores) or smoke (a first "
            "look), for each patch. Default cpu.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Decides masks, weights and noise. Default 0.", rich_help_panel=LEARNING),
    ] = None,
    device: Device = "auto",
    time_limit: TimeLimit = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train from the start.", rich_help_panel=RUN)] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Train a GAN (CSinGAN) on each of some annotated patches, and tell how good its images are.

    A GAN learns from one patch alone to paint nuclei where a mask has them. quality.html shows its images beside the
    patch, with numbers: colours, whether they obey their masks, how much they differ, whether anything was copied.
    Pictures of each scale are written while it trains. Run it again to go on.
    """
    from wsiseg.config import load
    from wsiseg.synthesis.settings import GanSettings
    from wsiseg.tasks.synth_fit import SynthFitJob, synth_fit

    job = SynthFitJob(
        stores=tuple(stores),
        output=output,
        patches=tuple(patches or ()),
        selection=selection,
        layer=layer,
        settings=load(GanSettings, file=config, options={"preset": preset, "seed": seed}, overrides=overrides or ()),
        device=device,
        overwrite=overwrite,
    )
    with console.progress_bar() as progress, console.graceful(seconds(time_limit)) as stop:
        report = synth_fit(job, progress, stop)
    console.out.print(str(report), highlight=False, markup=False)
    report.check()


@synth.command()
def sample(
    gans: Annotated[
        Path,
        typer.Argument(metavar="GAN", help="Folder of wsiseg synth fit, or of one GAN in it.", show_default=False),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Store to make, NAME.zarr.", show_default=False)],
    count: Annotated[
        int | None, typer.Option("--count", "-n", help="Pairs of image and labels from each GAN. Default 50.")
    ] = None,
    selections: Annotated[
        list[Path] | None,
        typer.Option(
            "--selection",
            help="selection.csv of wsiseg select: the GANs of its first choices alone, as far as there are. May be "
            "repeated.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            help="Decides masks and noise. Default 0: with the seed of fit, the masks are those that GANs were trained "
            "with, as far as these go; with any other they are new.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    noise: Annotated[
        NoiseScales | None,
        typer.Option(
            "--noise",
            help="Scales that get noise: ends, the lowest and the highest, as in training; or all. Default ends.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    device: Device = "auto",
    time_limit: TimeLimit = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there, unless it is the same.", rich_help_panel=RUN)
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Make a patch store of new images with their labels, to train on beside real ones.

    Its patches are marked as synthetic for good: wsiseg never validates or tests by them, and does not train on them
    where the images, slides or patients that they were made from are held out.
    """
    from wsiseg.config import load
    from wsiseg.tasks.synth_sample import SampleSettings, SynthSampleJob, synth_sample

    options = {"count": count, "seed": seed, "noise": noise}
    job = SynthSampleJob(
        gans=gans,
        output=output,
        selections=tuple(selections or ()),
        settings=load(SampleSettings, file=config, options=options, overrides=overrides or ()),
        device=device,
        overwrite=overwrite,
    )
    with console.progress_bar() as progress, console.graceful(seconds(time_limit)) as stop:
        report = synth_sample(job, progress, stop)
    console.out.print(str(report), highlight=False, markup=False)
    report.check()
