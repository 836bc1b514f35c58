"""The job behind ``wsiseg tile``: patches of many slides, one store each."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg.errors import StoppedError, StoreError, WsisegError
from wsiseg.geometry import Size
from wsiseg.limits import cpu_limit
from wsiseg.lock import locked
from wsiseg.progress import SILENT
from wsiseg.slides.fingerprint import fingerprint
from wsiseg.slides.mpp import scale_warnings
from wsiseg.slides.open import open_slide
from wsiseg.stopping import Stop
from wsiseg.stores.patch_meta import PatchMeta
from wsiseg.stores.patch_store import PatchStore
from wsiseg.tasks.batch import BatchJob, entries_of, for_each, not_written
from wsiseg.tasks.tile_report import SlideReport, TileReport
from wsiseg.tiling.plan import TileSettings, estimated_bytes, plan_patches
from wsiseg.tiling.writing import Overview, SlideWork, is_done, write_patches
from wsiseg.tissue import TissueSettings, find_tissue, read_thumbnail

if TYPE_CHECKING:
    from wsiseg.manifest import SlideEntry
    from wsiseg.progress import Progress
    from wsiseg.tasks.tile_report import Status
    from wsiseg.tiling.plan import TilePlan

logger = logging.getLogger(__name__)


class TileConfig(TileSettings):
    """Settings of `wsiseg tile`: how slides are cut, and how tissue is found.

    Parameters
    ----------
    tissue
        How tissue is found.
    """

    tissue: TissueSettings = TissueSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class TileJob(BatchJob):
    """What to do.

    Parameters
    ----------
    settings
        How slides are cut.
    num_workers
        Threads that read; None for as many as there are processors, 0 for none.
    """

    settings: TileConfig
    num_workers: int | None = None


def tile(job: TileJob, progress: Progress = SILENT, stop: Stop | None = None) -> TileReport:
    """Cut slides into patches and write a store for each, and ``summary.json``.

    A slide that fails does not keep others from being done, nor do damaged tiles cost a slide more than
    the patches on them. Stores that are complete are left
    alone, so a second run does nothing.

    Raises
    ------
    ConfigError
        If the pixel size cannot be what is given.
    NothingMatchedError
        If there is no slide.
    StoppedError
        If a stop was requested; finished stores stay.
    """
    stop = stop or Stop()
    entries = entries_of(job)
    if not job.dry_run:
        _make_folder(job.output)
    reports = for_each(entries, job, lambda entry: _tile_one(entry, job, progress, stop), progress=progress, stop=stop)
    return TileReport(slides=reports, output=job.output)


def _tile_one(entry: SlideEntry, job: TileJob, progress: Progress, stop: Stop) -> SlideReport:
    begun = time.monotonic()
    try:
        return _cut(entry, job, progress, stop, begun)
    except StoppedError:
        raise
    except WsisegError as error:
        failure = error
    except OSError as error:
        failure = not_written(error, job.output)
    return SlideReport(slide_id=entry.slide_id, path=str(entry.path), status="failed", error=failure)


def _cut(entry: SlideEntry, job: TileJob, progress: Progress, stop: Stop, begun: float) -> SlideReport:
    tissue = job.settings.tissue.for_slide(entry.slide_id, entry.mask_path)
    work = _work(entry, job, tissue)
    store = job.output / f"{entry.slide_id}.zarr"
    if not job.overwrite and is_done(work, store):
        return _report(entry, "already done", store)
    with open_slide(entry.path, reader=job.reader, slide_mpp=work.slide_mpp) as slide:
        thumbnail = read_thumbnail(slide, tissue.mpp)
        mask = find_tissue(slide, tissue, thumbnail=thumbnail)
        plan = plan_patches(slide, job.settings, mask)
        if job.dry_run:
            return _planned(entry, plan, mask.area_mm2)
        for warning in scale_warnings(slide.info, plan.canvas.scale.downsample):
            logger.warning("%s", warning)
        height, width = thumbnail.pixels.shape[:2]
        overview = Overview(
            thumbnail=thumbnail.pixels, tissue_mask=mask.on(Size(width, height)), area_mm2=mask.area_mm2
        )
        workers = cpu_limit() if job.num_workers is None else job.num_workers
        with locked(job.output / f".{entry.slide_id}.zarr.lock"):
            # Another process may have finished it since.
            if not job.overwrite and is_done(work, store):
                return _report(entry, "already done", store)
            write_patches(slide, plan, work, store, overview=overview, workers=workers, progress=progress, stop=stop)
    return _report(entry, "done", store, seconds=time.monotonic() - begun)


def _work(entry: SlideEntry, job: TileJob, tissue: TissueSettings) -> SlideWork:
    noted = tissue.model_dump(mode="json")
    if tissue.method not in ("otsu", "none"):
        noted["mask"] = fingerprint(Path(tissue.method))
    return SlideWork(
        slide_id=entry.slide_id,
        path=entry.path,
        settings=TileSettings.model_validate(job.settings.model_dump(exclude={"tissue"})),
        tissue=noted,
        reader=job.reader,
        slide_mpp=job.slide_mpp if job.slide_mpp is not None else entry.mpp,
        split=entry.split,
        patient_id=entry.patient_id,
    )


def _report(entry: SlideEntry, status: Status, store: Path, *, seconds: float = 0.0) -> SlideReport:
    meta = PatchMeta.read(store)
    area = meta.tissue.get("area_mm2")
    return SlideReport(
        slide_id=entry.slide_id,
        path=str(entry.path),
        status="partly unreadable" if meta.unreadable else status,
        unreadable=meta.unreadable,
        patches=PatchStore.count(store),
        tissue_mm2=area if isinstance(area, float) else None,
        codec=meta.codec,
        size_bytes=sum(file.stat().st_size for file in store.rglob("*") if file.is_file()),
        seconds=seconds,
    )


def _planned(entry: SlideEntry, plan: TilePlan, tissue_mm2: float | None) -> SlideReport:
    return SlideReport(
        slide_id=entry.slide_id,
        path=str(entry.path),
        status="planned",
        patches=len(plan),
        tissue_mm2=tissue_mm2,
        codec=plan.codec,
        size_bytes=estimated_bytes(plan),
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot be the output folder: {error.strerror}", where=folder) from error
