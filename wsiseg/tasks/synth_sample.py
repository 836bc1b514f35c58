"""The job behind ``wsiseg synth sample``: images and their labels, made by GANs, as a patch store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from pydantic import Field

from wsiseg import __version__
from wsiseg.config import Config
from wsiseg.errors import DataError, NothingMatchedError, SomeFailedError, StoreError
from wsiseg.lock import locked
from wsiseg.nets.devices import choose_device
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.patch_meta import PatchMeta
from wsiseg.stores.patch_set import common_mpp
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patch_writer import PatchTable, PatchWriter, new_folder
from wsiseg.stores.patches import LayerInfo
from wsiseg.stores.shard_writer import ShardWriter
from wsiseg.synthesis.gan_card import find_gans
from wsiseg.synthesis.gan_files import is_trained, read_gan
from wsiseg.synthesis.layouts import layouts
from wsiseg.synthesis.nucleus_bank import bank_of
from wsiseg.synthesis.sampling import sample
from wsiseg.tasks.synth_patches import chosen_gans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.progress import Progress
    from wsiseg.synthesis.gan_files import Gan

_BACKGROUND: Final = (255, 255, 255)


class SampleSettings(Config):
    """What is sampled.

    Parameters
    ----------
    count
        Pairs of image and labels from each GAN. (Published: 50.)
    seed
        Decides masks and noise; a pair depends on it, its number and its GAN alone. With the seed of the GAN, 0 by
        default for both, the first masks are those that it was trained with, as published; with any other all are new.
    noise
        Scales that get noise; see `sample`.
    """

    count: int = Field(default=50, ge=1)
    seed: int = Field(default=0, ge=0)
    noise: Literal["ends", "all"] = "ends"


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthSampleJob:
    """What to do.

    Parameters
    ----------
    gans
        Folder of wsiseg synth fit, or that of one GAN in it.
    output
        Store to make.
    selections
        Tables of wsiseg select; of their first choices alone GANs are taken, as far as there are; of all without any.
    settings
        What is sampled.
    device
        ``auto``, ``cpu``, ``cuda:N`` or ``mps``.
    overwrite
        Replace what is there, unless it is the same.
    """

    gans: Path
    output: Path
    selections: tuple[Path, ...] = ()
    settings: SampleSettings
    device: str = "auto"
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthSampleReport:
    """What was sampled.

    Parameters
    ----------
    output
        The store.
    patches, nuclei
        Numbers of images, and of nuclei on them.
    gans
        Number of GANs.
    unfinished
        Names of those whose training has not come to its end, of which there are no patches.
    was_done
        Whether the store was there already.
    """

    output: Path
    patches: int
    nuclei: int
    gans: int
    unfinished: tuple[str, ...] = ()
    was_done: bool = False

    def __str__(self) -> str:
        gans, done = f"{self.gans} GAN{'s' * (self.gans > 1)}", ", already done" if self.was_done else ""
        return f"{self.patches:,} synthetic patches with {self.nuclei:,} nuclei of {gans} in {self.output}{done}"

    def check(self) -> None:
        """Raise if a GAN was left out.

        Raises
        ------
        SomeFailedError
            If one was.
        """
        if self.unfinished:
            raise SomeFailedError(
                f"{len(self.unfinished)} of {self.gans + len(self.unfinished)} GANs are not trained to their end and "
                f"left out: {', '.join(self.unfinished)}",
                where=self.output,
                mend="Run wsiseg synth fit again",
            )


def synth_sample(job: SynthSampleJob, progress: Progress = SILENT, stop: Stop | None = None) -> SynthSampleReport:
    """Make a store of synthetic patches, which only training may use, unless the same is there.

    Its patches belong to the slides or images, and to the patients, of the patches that GANs learnt from, so that none
    of them is trained on where these are held out.

    Raises
    ------
    DataError
        If there is no trained GAN, none of the selection, or GANs differ in layer, classes or resolution.
    StoreError
        If there is another store.
    StoppedError
        If `stop` was requested; the store is not made.
    """
    stop, device = stop or Stop(), choose_device(job.device)
    folders = find_gans(job.gans)
    if not folders:
        raise NothingMatchedError("there is no GAN", where=job.gans, mend="Make one with wsiseg synth fit")
    if job.selections:
        folders = chosen_gans(folders, job.selections)
    unfinished = [] if len(folders) == 1 else [folder for folder in folders if not is_trained(folder)]
    gans = [read_gan(folder, device) for folder in folders if folder not in unfinished]
    if not gans:
        raise DataError("no GAN is trained to its end", where=job.gans, mend="Run wsiseg synth fit again")
    meta = _meta(job, gans, _common(gans, job.gans))
    with locked(job.output.with_name(f".{job.output.name}.lock")):
        was_done = _is_there(job, meta)
        nuclei = _nuclei_in(job.output, gans[0].card.layer) if was_done else _make(job, gans, meta, progress, stop)
    return SynthSampleReport(
        output=job.output,
        patches=len(gans) * job.settings.count,
        nuclei=nuclei,
        gans=len(gans),
        unfinished=tuple(folder.name for folder in unfinished),
        was_done=was_done,
    )


def _is_there(job: SynthSampleJob, meta: PatchMeta) -> bool:
    """Tell whether the store was made before; what else is there may only be replaced if it shall be."""
    try:
        is_there = job.output.exists() and PatchMeta.read(job.output).fingerprint == meta.fingerprint
    except StoreError:
        is_there = False
    if job.output.exists() and not is_there and not job.overwrite:
        raise StoreError(
            "what is there is another store, of other GANs or otherwise made",
            where=job.output,
            mend="Choose another name, or --overwrite",
        )
    return is_there


def _nuclei_in(path: Path, layer: str) -> int:
    store = PatchStore.open(path)
    return sum(int(store.read_labels(layer, [index]).max()) for index in range(len(store)))


def _make(job: SynthSampleJob, gans: Sequence[Gan], meta: PatchMeta, progress: Progress, stop: Stop) -> int:
    """Make the store, and return how many nuclei are in it."""
    first, nuclei = gans[0].card, 0
    with new_folder(job.output) as folder:
        side = max(gan.sides[-1] for gan in gans)
        writer = PatchWriter(folder, meta, _table(gans, job.settings.count), (side, side))
        info = LayerInfo(kind="instances", labels=first.labels)
        known = writer.layer(first.layer, info)
        images, labels = ShardWriter(writer.images), ShardWriter(known)
        with progress.task("sample", total=len(gans) * job.settings.count, unit="patches") as advance:
            for image, mask in _pairs(gans, job.settings):
                if stop.is_requested:
                    raise stop.error()
                images.add([writer.codec.encode(_padded(image, side, _BACKGROUND[0]))])
                labels.add([known.codec.encode(_padded(mask, side, info.fill))])
                nuclei += int(mask.max())
                advance()
        images.close()
        labels.close()
    return nuclei


def _common(gans: Sequence[Gan], where: Path) -> float | None:
    """Return the resolution that GANs share; they must share layer and classes, too, in whatever colours."""
    first = gans[0].card
    if any((gan.card.layer, gan.card.labels.classes) != (first.layer, first.labels.classes) for gan in gans):
        raise DataError("the GANs learnt from other layers or classes", where=where, mend="Sample them apart")
    try:
        return common_mpp([gan.card.mpp for gan in gans])
    except ValueError as error:
        raise DataError(
            f"the GANs learnt from other resolutions ({error})", where=where, mend="Sample them apart"
        ) from error


def _pairs(gans: Sequence[Gan], settings: SampleSettings) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
    """Yield images and their nuclei, GAN by GAN."""
    for gan in gans:
        bank = bank_of(gan.example.labels)
        for index in range(settings.count):
            (mask,) = layouts(
                bank,
                gan.card.settings.layout,
                gan.card.density,
                [index],
                patch=gan.card.patch,
                seed=settings.seed,
            )
            yield sample(gan, mask, seed=settings.seed, index=index, noise=settings.noise), mask


def _padded(array: NDArray[np.generic], side: int, fill: int) -> NDArray[np.generic]:
    missing = side - array.shape[0]
    if not missing:
        return array
    return np.pad(array, [(0, missing), (0, missing), *[(0, 0)] * (array.ndim - 2)], constant_values=fill)


def _table(gans: Sequence[Gan], count: int) -> PatchTable:
    owner = np.repeat(np.arange(len(gans)), count)
    # The place of the whole patch, by which what was made from it is found, whichever part of it was learnt from.
    positions = np.array([gan.card.position for gan in gans], dtype=np.int64)[owner]
    sides = np.array([gan.sides[-1] for gan in gans], dtype=np.int32)[owner]
    return PatchTable(
        positions=positions,
        windows=positions,
        extents=np.stack((sides, sides), axis=1),
        tissue=np.ones(len(owner), dtype=np.float32),
        parent=owner.astype(np.int32),
        split=np.zeros(len(owner), dtype=np.uint8),
    )


def _meta(job: SynthSampleJob, gans: Sequence[Gan], mpp: float | None) -> PatchMeta:
    made_from = {gan.card.patch: gan.fingerprint for gan in gans}
    digest = hashlib.blake2b(repr((sorted(made_from.items()), job.settings)).encode(), digest_size=16)
    return PatchMeta(
        codec="zstd",
        mpp=mpp,
        background=_BACKGROUND,
        parents=tuple(gan.card.parent for gan in gans),
        groups=tuple(gan.card.group for gan in gans),
        fingerprint=digest.hexdigest(),
        origin="synthetic",
        config={**job.settings.model_dump(mode="json"), "gans": made_from},
        provenance={"tool": "wsiseg synth sample", "version": __version__},
    )
