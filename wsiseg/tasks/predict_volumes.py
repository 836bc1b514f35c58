"""The job behind ``wsiseg predict`` with a model of volumes: NIfTI files in, labels in the same place out."""

from __future__ import annotations

import glob
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wsiseg.errors import ConfigError, DataError, NothingMatchedError, StoppedError, WsisegError
from wsiseg.inference.summary import read_summary
from wsiseg.lock import locked
from wsiseg.manifest import SlideEntry, shard
from wsiseg.nifti import is_nifti, nifti_stem
from wsiseg.tasks.batch import for_each, not_written
from wsiseg.tasks.predict_report import PredictReport, SlideReport

if TYPE_CHECKING:
    from wsiseg.checkpoint import ModelCard
    from wsiseg.inference.summary import Json
    from wsiseg.inference.volumes import VolumeNetwork
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.tasks.predict import PredictJob
    from wsiseg.tasks.predict_report import Status

# What a job may say that means nothing to volumes, and what it is called on the command line.
_UNUSED: Final = {
    "slide_dir": "--slide-dir",
    "manifest": "--manifest",
    "reader": "--reader",
    "slide_mpp": "--slide-mpp",
    "batch_size": "--batch-size",
    "num_workers": "--num-workers",
    "max_ram": "--max-ram",
}
_CHANNEL: Final = "_0000"


def predict_volumes(job: PredictJob, card: ModelCard, progress: Progress, stop: Stop) -> PredictReport:
    """Predict volumes: ``DIR/<name>/`` gets the labels; see `predict`.

    Raises
    ------
    ConfigError
        If settings mean nothing to volumes.
    NothingMatchedError
        If there is no volume.
    StoppedError
        If a stop was requested; what is done is on disk.
    """
    _check(job)
    entries = shard(_find(job.inputs), job.num_shards, job.shard_index)
    reports = for_each(entries, job, _Runner(job, card, progress, stop).report, progress=progress, stop=stop)
    return PredictReport(slides=reports, output=job.output)


def _check(job: PredictJob) -> None:
    from wsiseg.inference.volumes import USED

    given = [option for name, option in _UNUSED.items() if getattr(job, name) is not None]
    given += sorted(job.settings.model_fields_set - USED) + ["--compile"] * job.is_compiled
    if given:
        raise ConfigError(
            "the model is one of volumes, to which this means nothing",
            where=", ".join(given),
            mend="Leave it out; there are --overlap, --amp, --probability and --set largest_component=true",
        )


def _find(inputs: tuple[str, ...]) -> list[SlideEntry]:
    paths = [path for text in inputs for path in _expand(text)]
    found: dict[str, Path] = {}
    for path in paths:
        name = nifti_stem(path).removesuffix(_CHANNEL)
        if found.setdefault(name, path) != path:
            raise ConfigError(f"the same name as {found[name]}", where=path, mend="Predict them into two folders")
    if not found:
        raise NothingMatchedError("no volume was named", mend="Name NIfTI files, folders of them, or a glob")
    return [SlideEntry(path=path, slide_id=name) for name, path in found.items()]


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if is_nifti(file) and not file.name.startswith("."))
        if not inside:
            raise NothingMatchedError("the folder holds no volume", where=path, mend="Volumes end in .nii.gz or .nii")
        return inside
    if path.exists() or not glob.has_magic(text):
        return [path]
    return [Path(match) for match in sorted(glob.glob(text, recursive=True)) if is_nifti(Path(match))]  # noqa: PTH207 - any root


class _Runner:
    """Predicts one volume after the other with one network, which is loaded when the first one needs it."""

    def __init__(self, job: PredictJob, card: ModelCard, progress: Progress, stop: Stop) -> None:
        self._job, self._card = job, card
        self._progress, self._stop = progress, stop
        self._network: VolumeNetwork | None = None

    def report(self, entry: SlideEntry) -> SlideReport:
        """Return what became of one volume."""
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
        from wsiseg.inference.volumes import predict_volume, volume_plan

        job = self._job
        if not entry.path.exists():
            raise DataError("there is no such volume", where=entry.path)
        folder = job.output / entry.slide_id
        plan = volume_plan(entry.path, job.settings)
        summary = None if job.overwrite else read_summary(folder, plan)
        if summary is not None:
            return "already done", _told(summary)
        if job.dry_run:
            return "planned", self._dry(entry.path)
        with locked(job.output / f".{entry.slide_id}.lock"):
            # Another process may have finished it since.
            summary = None if job.overwrite else read_summary(folder, plan)
            if summary is not None:
                return "already done", _told(summary)
            network = self._loaded()
            summary = predict_volume(
                entry.path, network, folder, job.settings, plan, progress=self._progress, stop=self._stop
            )
        return "done", _told(summary)

    def _loaded(self) -> VolumeNetwork:
        if self._network is None:
            from wsiseg.inference.volumes import VolumeNetwork
            from wsiseg.methods.predictor import load_predictor
            from wsiseg.nets.devices import choose_device, choose_dtype

            device = choose_device(self._job.device)
            predictor = load_predictor(self._job.settings.model, device=device)
            self._network = VolumeNetwork(
                predictor=predictor, device=device, dtype=choose_dtype(self._job.settings.amp, device)
            )
        return self._network

    def _dry(self, path: Path) -> str:
        from wsiseg.inference.volumes import count_windows, stride_of
        from wsiseg.nifti import read_volume

        about = self._card.volume
        if about is None:
            raise DataError("the model is none of volumes", where=self._job.settings.model)
        voxels, _ = read_volume(path)
        windows = count_windows(voxels.shape, about, stride_of(about, self._job.settings))
        shape = " x ".join(map(str, voxels.shape))
        return f"up to {windows:,} {'window' if windows == 1 else 'windows'} in {shape} voxels"


def _told(summary: Json) -> str:
    sizes = [f"{name} {found['volume_ml']:.3g} ml" for name, found in list(summary["classes"].items())[1:]]
    return ", ".join(sizes)
