"""One volume predicted: labels, and probabilities if asked for, where the volume lies."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from wsiseg import checkpoint
from wsiseg.atomic import sweep, sync_names
from wsiseg.errors import ConfigError, PredictionError
from wsiseg.grid import overlap_px
from wsiseg.inference.summary import SCHEMA_VERSION, SUMMARY, peak_ram, software, write_summary
from wsiseg.methods.windows import window_means, window_starts
from wsiseg.nifti import read_volume, write_volume
from wsiseg.slides.fingerprint import fingerprint
from wsiseg.volumes import prepare

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from wsiseg.inference.settings import PredictSettings
    from wsiseg.inference.summary import Json
    from wsiseg.methods.base import Predictor
    from wsiseg.nifti import VolumeGrid
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.volumes import Prepared, VolumeInput

logger = logging.getLogger(__name__)

LABELS_FILE: Final = "labels.nii.gz"
PROBABILITIES_FILE: Final = "probabilities.nii.gz"
# Settings that a prediction of a volume depends on, beside the model.
USED: Final = frozenset(("model", "overlap", "amp", "probability", "largest_component"))
# A voxel that is so much larger or smaller than in training is worth a word.
_OTHER_SPACING: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeNetwork:
    """A predictor of volumes, and how it computes.

    Parameters
    ----------
    predictor
        On `device`.
    device, dtype
        Where it computes, and its number format in mixed precision, or None.
    """

    predictor: Predictor
    device: torch.device
    dtype: torch.dtype | None

    @property
    def about(self) -> VolumeInput:
        """Return what the network is given.

        Raises
        ------
        PredictionError
            If that is no volume.
        """
        about = self.predictor.spec.volume
        if about is None:
            raise PredictionError("the model is one of images, not of volumes")
        return about


def volume_plan(path: Path, settings: PredictSettings) -> Json:
    """Return all that a prediction depends on, to tell whether one on disk is the one that is asked for."""
    return {
        "schema_version": SCHEMA_VERSION,
        "volume": fingerprint(path),
        "model": checkpoint.fingerprint(settings.model),
        "settings": settings.model_dump(mode="json", include=set(USED - {"model"})),
    }


def stride_of(about: VolumeInput, settings: PredictSettings) -> tuple[int, ...]:
    """Return by how many voxels windows move along each axis.

    Raises
    ------
    ConfigError
        If windows are to overlap by more than they can.
    """
    if "overlap" not in settings.model_fields_set:
        return about.stride
    try:
        return tuple(side - overlap_px(settings.overlap, side) for side in about.patch)
    except ValueError as error:
        raise ConfigError(str(error), where="--overlap") from error


def count_windows(shape: tuple[int, ...], about: VolumeInput, stride: tuple[int, ...]) -> int:
    """Return how many windows cover a volume."""
    return math.prod(len(window_starts(*sides)) for sides in zip(shape, about.patch, stride, strict=True))


def predict_volume(
    path: Path,
    network: VolumeNetwork,
    folder: Path,
    settings: PredictSettings,
    plan: Json,
    *,
    progress: Progress,
    stop: Stop,
) -> Json:
    """Predict a volume and write what was found to `folder`; return the summary, which is written last.

    Parameters
    ----------
    path
        NIfTI file.
    network
        What predicts.
    folder
        Gets ``labels.nii.gz``, in the axes and the place of the volume, and ``summary.json``. What is there is replaced
        once there is something to replace it; the caller holds its lock.
    settings
        What is asked for.
    plan
        See `volume_plan`; kept in the summary.
    progress
        Told of every window.
    stop
        Looked at after each window.

    Raises
    ------
    DataError
        If the volume cannot be read or prepared.
    StoppedError
        If `stop` was requested; nothing is written.
    """
    begun = time.monotonic()
    about, spec = network.about, network.predictor.spec
    stride = stride_of(about, settings)
    voxels, grid = read_volume(path)
    _compare_spacing(path, grid, about)
    whole = voxels.shape
    prepared = prepare(voxels, about.intensities, where=path)
    del voxels
    windows = count_windows(prepared.voxels.shape, about, stride)
    with progress.task(path.name, total=windows, unit="windows") as advance:

        def step() -> None:
            if stop.is_requested:
                raise stop.error()
            advance()

        means = window_means(
            network.predictor,
            prepared.voxels,
            patch=about.patch,
            stride=stride,
            device=network.device,
            dtype=network.dtype,
            advance=step,
        )
    labels = np.zeros(whole, dtype=np.uint8)
    labels[prepared.box] = _most_probable(means)
    if settings.largest_component:
        labels = largest_components(labels)
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    write_volume(folder / LABELS_FILE, labels, grid)
    if settings.probability:
        write_volume(folder / PROBABILITIES_FILE, _in_place(means, prepared, whole), grid)
    voxel_ml = math.prod(grid.spacing_mm) / 1000
    counts = np.bincount(labels.ravel(), minlength=spec.channels).tolist()
    summary: dict[str, Any] = {
        "plan": plan,
        "shape": list(whole),
        "spacing_mm": list(grid.spacing_mm),
        "windows": windows,
        "classes": {
            label.name: {"voxels": counts[label.index], "volume_ml": counts[label.index] * voxel_ml}
            for label in spec.labels.labels
        },
        "run": {"seconds": round(time.monotonic() - begun, 2), "peak_ram": peak_ram(), "device": str(network.device)},
        "software": software(),
    }
    write_summary(folder, summary)
    return summary


def clear(folder: Path) -> None:
    """Remove what an earlier prediction left in a folder: first what says that it is whole."""
    sweep(folder)
    for name in (SUMMARY, LABELS_FILE, PROBABILITIES_FILE):
        (folder / name).unlink(missing_ok=True)
        # A power failure must not bring back the summary alone.
        sync_names(folder)


def largest_components(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return labels in which of each class but the background only the largest connected part is left.

    Voxels are connected across faces, edges and corners.
    """
    kept = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]).tolist():
        parts, count = ndimage.label(labels == label, structure=np.ones((3,) * labels.ndim))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        kept[parts == sizes.argmax()] = label
    return kept


def _most_probable(means: NDArray[np.float32]) -> NDArray[np.uint8]:
    labels = np.empty(means.shape[1:], dtype=np.uint8)
    # Slice by slice: the indices of all at once take twice the memory of a class.
    for z in range(len(labels)):
        labels[z] = means[:, z].argmax(axis=0)
    return labels


def _in_place(means: NDArray[np.float32], prepared: Prepared, whole: tuple[int, ...]) -> NDArray[np.float32]:
    """Return probabilities for the whole volume: what was left out of it is background."""
    probabilities = np.zeros((len(means), *whole), dtype=np.float32)
    probabilities[0] = 1
    probabilities[:, *prepared.box] = means
    return probabilities


def _compare_spacing(path: Path, grid: VolumeGrid, about: VolumeInput) -> None:
    if about.spacing_mm is None:
        return
    ratios = [ours / theirs for ours, theirs in zip(grid.spacing_mm, about.spacing_mm, strict=True)]
    if any(abs(ratio - 1) > _OTHER_SPACING for ratio in ratios):
        ours, theirs = (" x ".join(f"{side:.3g}" for side in sides) for sides in (grid.spacing_mm, about.spacing_mm))
        logger.warning(
            "%s: voxels of %s mm, and the model was trained on %s mm; volumes are not resampled", path, ours, theirs
        )
