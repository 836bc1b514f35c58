"""The job behind ``wsiseg predict``: slides in, masks, polygons, tables and pictures out."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg import checkpoint
from wsiseg.errors import ConfigError, SlideError, StoppedError, WsisegError
from wsiseg.inference.summary import WORK, plan_of, read_summary
from wsiseg.limits import cpu_limit, memory_limit
from wsiseg.lock import locked
from wsiseg.progress import SILENT
from wsiseg.slides.fingerprint import fingerprint
from wsiseg.stopping import Stop
from wsiseg.tasks.batch import BatchJob, entries_of, for_each, not_written
from wsiseg.tasks.predict_report import PredictReport, SlideReport
from wsiseg.tasks.predict_volumes import predict_volumes
from wsiseg.urls import url_of

if TYPE_CHECKING:
    from wsiseg.inference.forward import Network
    from wsiseg.inference.memory import Load
    from wsiseg.inference.settings import PredictSettings
    from wsiseg.inference.summary import Json
    from wsiseg.manifest import SlideEntry
    from wsiseg.progress import Progress
    from wsiseg.slides.base import Slide
    from wsiseg.tasks.predict_report import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictJob(BatchJob):
    """What to do.

    Parameters
    ----------
    settings
        What predictions look like.
    device
        ``auto``, ``cpu``, ``cuda:N`` or ``mps``.
    batch_size
        Tiles at once, or None to find out.
    num_workers
        Threads that read and that find objects; None for what suits the device.
    max_ram
        Bytes of memory to stay within, or None for what the process may use.
    is_compiled
        Whether to compile the network.
    """

    settings: PredictSettings
    device: str = "auto"
    batch_size: int | None = None
    num_workers: int | None = None
    max_ram: int | None = None
    is_compiled: bool = False


def predict(job: PredictJob, progress: Progress = SILENT, stop: Stop | None = None) -> PredictReport:
    """Predict slides: ``DIR/<slide_id>/`` gets the labels and all that is made of them.

    A slide that fails does not keep others from being done. Predictions that are complete are
    left alone; those that were interrupted go on where they ended.

    Raises
    ------
    ConfigError
        If the device, the pixel size or the memory cannot be what is asked for.
    NothingMatchedError
        If there is no slide.
    DataError
        If there is no such model.
    StoppedError
        If a stop was requested; what is done is on disk.
    """
    stop = stop or Stop()
    _check(job)
    card = checkpoint.read_card(job.settings.model)
    if card.volume is not None:
        return predict_volumes(job, card, progress, stop)
    if job.settings.largest_component:
        raise ConfigError("only of volumes the largest parts alone can be kept", where="largest_component")
    entries = entries_of(job)
    reports = for_each(entries, job, _Runner(job, progress, stop).report, progress=progress, stop=stop)
    return PredictReport(slides=reports, output=job.output)


def _check(job: PredictJob) -> None:
    """Refuse options that are wrong for any slide."""
    if job.max_ram is not None:
        from wsiseg.inference.memory import check_limit

        check_limit(job.max_ram)
    if job.device not in ("auto", "cpu"):
        # Only here: it takes a second to load what knows the devices.
        from wsiseg.nets.devices import choose_device

        choose_device(job.device)


class _Runner:
    """Predicts one slide after the other with one network, which is loaded when the first one needs it."""

    def __init__(self, job: PredictJob, progress: Progress, stop: Stop) -> None:
        self._job = job
        self._progress = progress
        self._stop = stop
        self._network: tuple[Network, Load] | None = None

    def report(self, entry: SlideEntry) -> SlideReport:
        """Return what became of one slide."""
        begun = time.monotonic()
        try:
            status, told = self._predict(entry)
        except StoppedError:
            raise
        except (WsisegError, OSError) as error:
            failure = error if isinstance(error, WsisegError) else not_written(error, self._job.output)
            return SlideReport(slide_id=entry.slide_id, path=str(entry.path), status="failed", error=failure)
        return SlideReport(
            slide_id=entry.slide_id, path=str(entry.path), status=status, told=told, seconds=time.monotonic() - begun
        )

    def _predict(self, entry: SlideEntry) -> tuple[Status, str]:
        job = self._job
        folder = job.output / entry.slide_id
        tissue = job.settings.tissue.for_slide(entry.slide_id, entry.mask_path)
        settings = job.settings.model_copy(update={"tissue": tissue})
        slide_mpp = job.slide_mpp if job.slide_mpp is not None else entry.mpp
        if url_of(entry.path) is None and not entry.path.exists():
            raise SlideError("there is no such file", where=entry.path)
        plan = plan_of(entry.path, settings, reader=job.reader, slide_mpp=slide_mpp)
        if tissue.method not in ("auto", "otsu", "none"):
            # The same name may hold another mask by now.
            plan["tissue_mask"] = fingerprint(Path(tissue.method))
        summary = None if job.overwrite else read_summary(folder, plan)
        is_tidy = job.dry_run or not (folder / WORK).exists()
        if summary is not None and summary["plan"] == plan and is_tidy:
            return _status(summary, "already done"), _told(summary)
        from wsiseg.inference.prediction import clear
        from wsiseg.slides.open import open_slide

        with open_slide(entry.path, reader=job.reader, slide_mpp=slide_mpp) as slide:
            if job.dry_run:
                return "planned", self._dry(slide, settings) if summary is None else "outputs only, from its labels"
            with locked(job.output / f".{entry.slide_id}.lock"):
                if job.overwrite:
                    clear(folder)
                # Another process may have finished it since.
                summary = read_summary(folder, plan)
                if summary is not None and summary["plan"] == plan:
                    # What a run leaves that is killed when all but this is done.
                    shutil.rmtree(folder / WORK, ignore_errors=True)
                    return _status(summary, "already done"), _told(summary)
                done: Status = "done" if summary is None else "outputs made"
                summary = self._run(slide, entry.slide_id, settings, plan, summary)
        return _status(summary, done), _told(summary)

    def _run(self, slide: Slide, slide_id: str, settings: PredictSettings, plan: Json, there: Json | None) -> Json:
        from wsiseg.inference.memory import Load
        from wsiseg.inference.prediction import Target, predict_slide, remake_outputs

        about = partial(
            Target,
            slide_id=slide_id,
            folder=self._job.output / slide_id,
            settings=settings,
            plan=plan,
            max_ram=self._max_ram,
        )
        if there is not None:
            # What is made of finished labels takes no network.
            target = about(load=Load(batch_size=1, readers=1, finders=1))
            return remake_outputs(slide, target, there, progress=self._progress, stop=self._stop)
        network, load = self._loaded()
        return predict_slide(slide, network, about(load=load), progress=self._progress, stop=self._stop)

    def _loaded(self) -> tuple[Network, Load]:
        if self._network is None:
            from wsiseg.inference.forward import Network
            from wsiseg.inference.memory import Load
            from wsiseg.methods.predictor import load_predictor
            from wsiseg.nets.devices import choose_device, choose_dtype

            job, settings = self._job, self._job.settings
            device = choose_device(job.device)
            network = Network(
                load_predictor(settings.model, device=device, has_gate=settings.gate),
                device=device,
                dtype=choose_dtype(settings.amp, device),
                tta=settings.tta,
                is_compiled=job.is_compiled,
            )
            # On a CPU the network itself keeps all processors busy.
            threads = 1 if device.type == "cpu" else max(1, cpu_limit() // 2)
            if job.num_workers is not None:
                threads = job.num_workers
            batch_size = job.batch_size or network.suggested_batch_size()
            self._network = network, Load(batch_size=batch_size, readers=threads, finders=threads)
        return self._network

    @property
    def _max_ram(self) -> int:
        return memory_limit() if self._job.max_ram is None else self._job.max_ram

    def _dry(self, slide: Slide, settings: PredictSettings) -> str:
        from wsiseg.inference.memory import estimate
        from wsiseg.inference.slide_plan import plan_slide

        network, load = self._loaded()
        spec = network.predictor.spec
        plan = plan_slide(slide, spec, settings)
        on_cpu = network.device.type == "cpu"
        with_probs = settings.probability
        memory = estimate(load, plan.walk, spec, on_cpu=on_cpu, with_probs=with_probs) / 2**30
        size, area = plan.canvas.size, plan.tissue.area_mm2
        tissue = "" if area is None else f" on {area:.3g} mm² of tissue"
        layers = 6 + with_probs if spec.task == "instance" else 2 + with_probs * spec.channels
        disk = plan.tiles * plan.walk.core_px**2 * layers / 8 / 1e6
        return (
            f"{plan.tiles:,} {'tile' if plan.tiles == 1 else 'tiles'} of {spec.tile_px} px{tissue}, canvas {size}, "
            f"about {memory:.1f} GiB of memory and {disk:,.0f} MB of disk on {network.device}"
        )


def _status(summary: Json, otherwise: Status) -> Status:
    if not summary["unreadable_percent"]:
        return otherwise
    return "already done, partly unreadable" if otherwise == "already done" else "partly unreadable"


def _told(summary: Json) -> str:
    area, mpp = summary["analysed_mm2"], summary["canvas"]["mpp"]
    where = (
        f"{area:.3g} mm² analysed at {mpp:.3g} µm/px" if area is not None else f"{summary['analysed_px']:,} px analysed"
    )
    found = "" if summary["objects"] is None else f"{summary['objects']:,} objects, "
    lost = summary["unreadable_percent"]
    return f"{found}{where}" + (f", {lost:.3g} % could not be read" if lost else "")
