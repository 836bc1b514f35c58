"""The job behind ``wsiseg synth fit``: a GAN for each of some annotated patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.config import save
from wsiseg.errors import BusyError, DataError, MethodError, NothingMatchedError, SomeFailedError
from wsiseg.lock import locked
from wsiseg.nets.devices import choose_device
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.patches import patch_names
from wsiseg.synthesis.gan_card import find_gans, read_card
from wsiseg.synthesis.gan_files import is_trained
from wsiseg.synthesis.gan_fit import fit
from wsiseg.synthesis.layouts import layouts
from wsiseg.synthesis.settings import GanSettings
from wsiseg.tasks.synth_begin import begin_gans, remove_stale
from wsiseg.tasks.synth_patches import chosen_patches
from wsiseg.tasks.synth_report import PAGE, told, warn_of, write_quality
from wsiseg.tasks.train_data import common_layer
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from wsiseg.progress import Progress
    from wsiseg.synthesis.quality import Quality
    from wsiseg.tasks.synth_patches import Chosen

CONFIG: Final = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthFitJob:
    """What to do.

    Parameters
    ----------
    stores
        Patch stores, or folders of them, with instances.
    output
        Gets a folder for the GAN of each patch.
    patches
        Names of patches.
    selection
        Table of wsiseg select, whose first choices are taken, in the place of names.
    layer
        Layer of instances; may be left out where there is only one.
    settings
        How GANs are trained.
    device
        ``auto``, ``cpu``, ``cuda:N`` or ``mps``.
    overwrite
        Train from the start.
    """

    stores: tuple[Path, ...]
    output: Path
    patches: tuple[str, ...] = ()
    selection: Path | None = None
    layer: str | None = None
    settings: GanSettings
    device: str = "auto"
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthFitReport:
    """What was trained.

    Parameters
    ----------
    output
        Folder of the GANs.
    patches
        Names of the patches.
    page
        What says how good they are.
    quality
        How good each of them is, by patch.
    refused
        Patches that cannot be learnt from, and why.
    busy
        Names of those whose GANs another process trains.
    was_done
        Whether all of it was there already.
    """

    output: Path
    patches: tuple[str, ...]
    page: Path
    quality: Mapping[str, Quality]
    refused: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    was_done: bool = False

    def __str__(self) -> str:
        count = len(self.patches)
        done = ", already done" if self.was_done else ""
        head = f"{count} GAN{'s' * (count > 1)} in {self.output}: {', '.join(self.patches)}{done}"
        return "\n".join((head, *told(self.quality), f"quality: {self.page}"))

    def check(self) -> None:
        """Raise if a patch could not be learnt from.

        Raises
        ------
        BusyError
            If another process still trains the GAN of one.
        SomeFailedError
            If one cannot be learnt from.
        """
        total = len(self.patches) + len(self.refused) + len(self.busy)
        if self.busy:
            raise _busy(self.output, self.busy, total)
        if self.refused:
            raise SomeFailedError(
                f"{len(self.refused)} of {total} patches cannot be learnt from: {'; '.join(self.refused)}",
                where=self.output,
            )


def synth_fit(job: SynthFitJob, progress: Progress = SILENT, stop: Stop | None = None) -> SynthFitReport:
    """Train a GAN for each patch, and write how good they are; goes on where an earlier run stopped.

    A patch whose training diverges does not keep the others from theirs, nor does one that another process is at.
    GANs that paint too unlike their patches are warned of.

    Raises
    ------
    ConfigError, DataError
        If a patch is not there, one that is named cannot be learnt from, or the folder holds GANs of something else.
    NothingMatchedError
        If none of the selection can be learnt from.
    StoreError
        If a store cannot be read.
    BusyError
        If another process trains all of them, or writes the page.
    MethodError
        If all trainings diverge.
    StoppedError
        If `stop` was requested; what is done is saved.
    """
    stop = stop or Stop()
    device = choose_device(job.device)
    store = open_patches(job.stores)
    layer, info = common_layer([store], job.layer)
    if info.kind != "instances":
        raise DataError(
            f"the layer {layer!r} holds classes, and nuclei are to be told apart",
            where=", ".join(map(str, job.stores)),
            mend="Pass --layer with a layer of instances, or label with --as instances",
        )
    if (job.output / CONFIG).exists() and not _holds_settings(job.output / CONFIG):
        raise DataError(
            "the settings of the GANs would be here, and what is there are none",
            where=job.output / CONFIG,
            mend="Choose another --output",
        )
    chosen, refused = chosen_patches(store, layer, job.patches, job.selection, job.settings)
    begun = begin_gans(job.output, store, layer, chosen, job.settings, is_anew=job.overwrite)
    names = patch_names(store)
    remove_stale(job.output, store, layer, [(names[index], index) for index in refused])
    if not chosen:
        raise NothingMatchedError(
            f"none of {len(refused)} patches can be learnt from",
            where=job.selection,
            mend=f"The first: {next(iter(refused.values()))}",
        )
    if not begun:
        raise _busy(job.output, [one.name for one in chosen], len(chosen))
    if len(begun) == len(chosen):
        # Only now are these the settings of all of them.
        save(job.settings, job.output / CONFIG)
    done: list[str] = []
    failed: dict[str, MethodError] = {}
    for one in begun:
        try:
            with locked(job.output / f".{one.name}.lock"):
                _fit(job, one, device, progress, stop)
            done.append(one.name)
        except BusyError:
            # Another process has come to it meanwhile.
            continue
        except MethodError as error:
            failed[one.name] = error
    if len(failed) == len(chosen):
        raise next(iter(failed.values()))
    with locked(job.output / f".{PAGE}.lock"):
        # Also those of earlier runs, but for what is still being trained by another one.
        trained = [folder for folder in find_gans(job.output) if is_trained(folder)]
        found, has_measured = write_quality(job.output, trained, device, progress=progress)
    quality = {name: one for name, one in found.items() if name in done}
    warn_of(quality, job.output / PAGE)
    return SynthFitReport(
        output=job.output,
        patches=tuple(done),
        page=job.output / PAGE,
        quality=quality,
        refused=tuple(map(str, (*refused.values(), *failed.values()))),
        busy=tuple(one.name for one in chosen if one.name not in done and one.name not in failed),
        was_done=not has_measured,
    )


def _holds_settings(path: Path) -> bool:
    try:
        GanSettings.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _busy(output: Path, names: Sequence[str], total: int) -> BusyError:
    return BusyError(
        f"another process trains the GANs of {len(names)} of {total} patches: {', '.join(names)}",
        where=output,
        mend="Run this again once it is done",
    )


def _fit(job: SynthFitJob, one: Chosen, device: torch.device, progress: Progress, stop: Stop) -> None:
    """Train the GAN of a patch, unless that was done."""
    folder, settings = job.output / one.name, job.settings
    if is_trained(folder):
        return
    density = read_card(folder).density
    masks = layouts(one.bank, settings.layout, density, range(settings.masks), patch=one.name, seed=settings.seed)
    fit(folder, one.example, np.stack(masks), settings, device=device, progress=progress, stop=stop)
