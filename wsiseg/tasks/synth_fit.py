"""The job behind ``wsiseg synth fit``: a GAN for each of some annotated patches."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.config import save
from wsiseg.errors import BusyError, DataError, MethodError, SomeFailedError
from wsiseg.lock import locked
from wsiseg.nets.devices import choose_device
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.synthesis.gan_files import GanCard, begin, changes, find_gans, is_begun, is_trained, read_card
from wsiseg.synthesis.gan_fit import fit
from wsiseg.synthesis.layouts import layouts
from wsiseg.tasks.synth_patches import chosen_patches, densities_of
from wsiseg.tasks.synth_report import PAGE, write_quality
from wsiseg.tasks.train_data import common_layer
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from wsiseg.progress import Progress
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.synthesis.settings import GanSettings
    from wsiseg.tasks.synth_patches import Chosen

logger = logging.getLogger(__name__)

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
    refused: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    was_done: bool = False

    def __str__(self) -> str:
        count = len(self.patches)
        done = ", already done" if self.was_done else ""
        return f"{count} GAN{'s' * (count > 1)} in {self.output}: {', '.join(self.patches)}{done}\nquality: {self.page}"

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
            raise BusyError(
                f"another process trains the GANs of {len(self.busy)} of {total} patches: {', '.join(self.busy)}",
                where=self.output,
                mend="Run this again once it is done",
            )
        if self.refused:
            raise SomeFailedError(
                f"{len(self.refused)} of {total} patches cannot be learnt from: {'; '.join(self.refused)}",
                where=self.output,
            )


def synth_fit(job: SynthFitJob, progress: Progress = SILENT, stop: Stop | None = None) -> SynthFitReport:
    """Train a GAN for each patch, and write how good they are; goes on where an earlier run stopped.

    A patch whose training diverges does not keep the others from theirs, nor does one that another process is at.

    Raises
    ------
    ConfigError, DataError
        If a patch is not there, one that is named or all of the selection cannot be learnt from, or the folder holds
        GANs of something else.
    StoreError
        If a store cannot be read.
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
    chosen, refused = chosen_patches(store, layer, job.patches, job.selection, job.settings)
    begun = _begin(job, store, layer, chosen)
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
    if failed and not done:
        raise next(iter(failed.values()))
    with locked(job.output / f".{PAGE}.lock"):
        # Also those of earlier runs, but for what is still being trained by another one.
        trained = [folder for folder in find_gans(job.output) if is_trained(folder)]
        has_measured = write_quality(job.output, trained, device, progress=progress)
    return SynthFitReport(
        output=job.output,
        patches=tuple(done),
        page=job.output / PAGE,
        refused=tuple(map(str, (*refused, *failed.values()))),
        busy=tuple(one.name for one in chosen if one.name not in done and one.name not in failed),
        was_done=not has_measured,
    )


def _begin(job: SynthFitJob, store: PatchSet, layer: str, chosen: Sequence[Chosen]) -> list[Chosen]:
    """Begin the GANs of patches, or see that those that are there were begun alike; return those that are not busy.

    What was begun keeps its density, whatever else is fitted now. Where a patch has other labels now, its GAN is begun
    anew.
    """
    densities = densities_of(chosen, job.settings.layout)
    folders = [job.output / one.name for one in chosen]
    # Those that are there first: where one of them is refused, none is begun.
    parts = sorted(zip(chosen, folders, densities, strict=True), key=lambda part: not is_begun(part[1]))
    free = set()
    for one, folder, density in parts:
        card = GanCard(
            patch=one.name,
            parent=str(store.parents[one.index]),
            group=str(store.groups[one.index]),
            position=(int(store.positions[one.index, 0]), int(store.positions[one.index, 1])),
            offset_px=one.offset_px,
            mpp=store.mpp,
            layer=layer,
            labels=store.layers[layer].labels,
            density=density,
            source=one.example.fingerprint,
            settings=job.settings,
        )
        try:
            with locked(job.output / f".{one.name}.lock"):
                _begin_one(folder, card, one, is_anew=job.overwrite)
        except BusyError:
            continue
        free.add(one.name)
    return [one for one in chosen if one.name in free]


def _begin_one(folder: Path, card: GanCard, one: Chosen, *, is_anew: bool) -> None:
    if is_begun(folder) and not is_anew:
        before = read_card(folder)
        kept = card.model_copy(update={"density": before.density})
        changed = changes(before, kept)
        is_anew = bool(changed) and set(changed) <= {"source", "offset_px"}
        if is_anew:
            logger.warning("%s: the patch has other labels now, and its GAN begins anew", one.name)
        elif card.settings.layout.density == "auto":
            card = kept
    if is_anew:
        shutil.rmtree(folder, ignore_errors=True)
    begin(folder, card, one.example)


def _fit(job: SynthFitJob, one: Chosen, device: torch.device, progress: Progress, stop: Stop) -> None:
    """Train the GAN of a patch, unless that was done."""
    folder, settings = job.output / one.name, job.settings
    if is_trained(folder):
        return
    density = read_card(folder).density
    masks = layouts(one.bank, settings.layout, density, range(settings.masks), patch=one.name, seed=settings.seed)
    fit(folder, one.example, np.stack(masks), settings, device=device, progress=progress, stop=stop)
