"""The job behind ``wsiseg synth fit``: a GAN for each of some annotated patches."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.config import save
from wsiseg.errors import DataError, SomeFailedError
from wsiseg.lock import locked
from wsiseg.nets.devices import choose_device
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.synthesis.gan_files import GanCard, begin, find_gans, is_begun, is_trained, read_card
from wsiseg.synthesis.gan_fit import fit
from wsiseg.synthesis.layouts import layouts
from wsiseg.tasks.synth_patches import chosen_patches, densities_of
from wsiseg.tasks.synth_report import PAGE, write_quality
from wsiseg.tasks.train_data import common_layer
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.progress import Progress
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.synthesis.settings import GanSettings
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
    refused
        Patches of the selection that cannot be learnt from, and why.
    was_done
        Whether all of it was there already.
    """

    output: Path
    patches: tuple[str, ...]
    page: Path
    refused: tuple[str, ...] = ()
    was_done: bool = False

    def __str__(self) -> str:
        count = len(self.patches)
        done = ", already done" if self.was_done else ""
        return f"{count} GAN{'s' * (count > 1)} in {self.output}: {', '.join(self.patches)}{done}\nquality: {self.page}"

    def check(self) -> None:
        """Raise if a patch of the selection could not be learnt from.

        Raises
        ------
        SomeFailedError
            If one could not.
        """
        if self.refused:
            total = len(self.patches) + len(self.refused)
            raise SomeFailedError(
                f"{len(self.refused)} of {total} patches cannot be learnt from: {'; '.join(self.refused)}",
                where=self.output,
            )


def synth_fit(job: SynthFitJob, progress: Progress = SILENT, stop: Stop | None = None) -> SynthFitReport:
    """Train a GAN for each patch, and write how good they are; goes on where an earlier run stopped.

    Raises
    ------
    ConfigError, DataError
        If a patch is not there, one that is named or all of the selection cannot be learnt from, or the folder holds
        GANs of something else.
    StoreError
        If a store cannot be read.
    BusyError
        If another process trains the GAN of the same patch.
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
    cards = _begin(job, store, layer, chosen)
    # Only now are these the settings of all of them.
    save(job.settings, job.output / CONFIG)
    for one, card in zip(chosen, cards, strict=True):
        with locked(job.output / f".{one.name}.lock"):
            if is_trained(job.output / one.name):
                continue
            masks = layouts(
                one.bank,
                job.settings.layout,
                card.density,
                range(job.settings.masks),
                patch=one.name,
                seed=job.settings.seed,
            )
            fit(
                job.output / one.name,
                one.example,
                np.stack(masks),
                job.settings,
                device=device,
                progress=progress,
                stop=stop,
            )
    with locked(job.output / f".{PAGE}.lock"):
        # Also those of earlier runs, but for what is still being trained by another one.
        trained = [folder for folder in find_gans(job.output) if is_trained(folder)]
        has_measured = write_quality(job.output, trained, device, progress=progress)
    return SynthFitReport(
        output=job.output,
        patches=tuple(one.name for one in chosen),
        page=job.output / PAGE,
        refused=tuple(map(str, refused)),
        was_done=not has_measured,
    )


def _begin(job: SynthFitJob, store: PatchSet, layer: str, chosen: Sequence[Chosen]) -> list[GanCard]:
    """Begin the GANs of all patches, or see that those that are there were begun alike."""
    folders = [job.output / one.name for one in chosen]
    begun = {} if job.overwrite else {folder.name: read_card(folder).density for folder in folders if is_begun(folder)}
    cards = [
        GanCard(
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
        for one, density in zip(chosen, densities_of(chosen, job.settings.layout, begun), strict=True)
    ]
    # Those that are there first: where one of them is refused, none is begun.
    parts = sorted(zip(chosen, folders, cards, strict=True), key=lambda part: part[0].name not in begun)
    for one, folder, card in parts:
        with locked(job.output / f".{one.name}.lock"):
            if job.overwrite:
                shutil.rmtree(folder, ignore_errors=True)
            begin(folder, card, one.example)
    return cards
