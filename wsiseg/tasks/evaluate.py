"""The job behind ``wsiseg evaluate``: compare label images and report scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.errors import DataError
from wsiseg.evaluation.pairs import common_mpp, find_pairs
from wsiseg.evaluation.report import Estimate, EvaluateReport, ImageResult
from wsiseg.evaluation.scorers import DISTANCES, InstanceScorer, Scorer, SemanticScorer
from wsiseg.labels import IGNORE, NO_CLASS
from wsiseg.metrics import percentile_interval, resample_images, resampled_means
from wsiseg.progress import SILENT, track

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.evaluation.config import EvaluateConfig
    from wsiseg.evaluation.pairs import LabelPair
    from wsiseg.progress import Progress


class _Estimates(TypedDict):
    mean: dict[str, Estimate]
    pooled: dict[str, Estimate]


def evaluate(
    pred: Path,
    truth: Path,
    config: EvaluateConfig,
    *,
    output: Path | None = None,
    table: Path | None = None,
    progress: Progress = SILENT,
) -> EvaluateReport:
    """Compare predicted with true label images.

    Parameters
    ----------
    pred, truth
        Label images, or folders of them; see `wsiseg.evaluation.pairs.find_pairs`.
    config
        How to compare; without its `mpp`, that of predictions of ``wsiseg predict`` counts.
    output, table
        Files for the report as JSON and for the scores of each image as CSV.
    progress
        Told how far it is.

    Raises
    ------
    NothingMatchedError
        When no prediction has a truth.
    DataError
        When an image has no partner, cannot be read, differs in size from its
        partner or holds a class that there is not.
    """
    pairs = find_pairs(pred, truth)
    if config.mpp is None:
        config = config.model_copy(update={"mpp": common_mpp(pairs)})
    names = _class_names(config, pairs) if config.task == "semantic" else ()
    scorer = _scorer(config, names)
    for pair in track(pairs, progress, what="Comparing", total=len(pairs), unit="images"):
        scorer.add(*_read(pair, config, names))
    report = EvaluateReport(
        pred=str(pred),
        truth=str(truth),
        settings=config,
        units=_units(config, scorer),
        classes=_by_class(scorer.pooled_class_scores(), names),
        images=_images(pairs, scorer, names),
        **_estimates(config, scorer, len(pairs)),
    )
    for path, text in ((output, report.to_json()), (table, report.to_csv())):
        if path is not None:
            _write(path, text)
    return report


def _write(path: Path, text: str) -> None:
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=path) from error


def _scorer(config: EvaluateConfig, names: Sequence[str]) -> Scorer:
    pixel_size = 1.0 if config.mpp is None else config.mpp
    if config.task == "instance":
        return InstanceScorer(pixel_size=pixel_size, tolerance_px=config.tolerance_px)
    return SemanticScorer(
        classes=len(names),
        ignore_index=config.ignore_index,
        pixel_size=pixel_size,
        tolerance_px=config.tolerance_px,
    )


def _class_names(config: EvaluateConfig, pairs: Sequence[LabelPair]) -> tuple[str, ...]:
    if config.classes:
        return config.classes
    if config.num_classes is not None:
        return tuple(map(str, range(config.num_classes)))
    highest = 0
    for pair in pairs:
        pred, truth = pair.read()
        for path, labels in ((pair.pred, _unanswered(pred, config, classes=0)), (pair.truth, truth)):
            found = int(labels[labels != config.ignore_index].max(initial=0))
            if found >= IGNORE:
                raise DataError(
                    f"holds the value {found}, which is no class index",
                    where=path,
                    mend="Use --task instance if pixels hold object ids, or --ignore-index",
                )
            highest = max(highest, found)
    return tuple(map(str, range(highest + 1)))


def _read(
    pair: LabelPair, config: EvaluateConfig, names: Sequence[str]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    pred: NDArray[np.integer]
    pred, truth = pair.read()
    if config.task == "semantic":
        pred = _unanswered(pred, config, classes=len(names))
        for path, labels in ((pair.pred, pred), (pair.truth, truth)):
            highest = int(labels[labels != config.ignore_index].max(initial=0))
            if highest >= len(names):
                raise DataError(
                    f"holds class {highest}, but the classes are 0 to {len(names) - 1}",
                    where=path,
                    mend="Give --num-classes or --classes in full, or --ignore-index",
                )
    return pred, truth


def _unanswered(pred: NDArray[np.integer], config: EvaluateConfig, *, classes: int) -> NDArray[np.integer]:
    """Return a class map in which what `wsiseg predict` leaves without a class has no answer, whatever is ignored."""
    is_none = np.isin(pred, (NO_CLASS, IGNORE)) & (pred >= classes)
    # The ignored index may be larger than what predictions are kept in.
    dtype = np.result_type(pred.dtype, np.min_scalar_type(config.ignore_index))
    return np.where(is_none, dtype.type(config.ignore_index), pred)


def _units(config: EvaluateConfig, scorer: Scorer) -> dict[str, str]:
    distance = "px" if config.mpp is None else "µm"
    return {name: distance if name in DISTANCES else "1" for name in scorer.image_scores()}


def _estimates(config: EvaluateConfig, scorer: Scorer, images: int) -> _Estimates:
    once = np.ones(images, dtype=np.int64)
    # One image resamples to itself, which says nothing about others.
    repeats = config.bootstrap if images > 1 else 0
    weights = resample_images(images, repeats=repeats, seed=config.seed)
    pooled, resampled = scorer.pooled_scores(once), scorer.pooled_scores(weights)
    return {
        "mean": {
            name: _estimate(resampled_means(values, once[None])[0], resampled_means(values, weights))
            for name, values in scorer.image_scores().items()
        },
        "pooled": {name: _estimate(value, resampled[name]) for name, value in pooled.items()},
    }


def _images(pairs: Sequence[LabelPair], scorer: Scorer, names: Sequence[str]) -> tuple[ImageResult, ...]:
    scores, in_classes = scorer.image_scores(), scorer.image_class_scores()
    counts = scorer.object_counts() if isinstance(scorer, InstanceScorer) else None
    return tuple(
        ImageResult(
            name=pair.name,
            pred=str(pair.pred),
            truth=str(pair.truth),
            pred_objects=None if counts is None else int(counts[0][index]),
            truth_objects=None if counts is None else int(counts[1][index]),
            scores={name: _known(values[index]) for name, values in scores.items()},
            classes=_by_class({name: values[index] for name, values in in_classes.items()}, names),
        )
        for index, pair in enumerate(pairs)
    )


def _by_class(scores: dict[str, NDArray[np.float64]], names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    return {
        name: {score: _known(values[index]) for score, values in scores.items()} for index, name in enumerate(names)
    }


def _estimate(value: np.float64 | NDArray[np.float64], resampled: NDArray[np.float64]) -> Estimate:
    low, high = percentile_interval(resampled)
    return Estimate(value=_known(value), low=_known(low), high=_known(high))


def _known(value: float | np.float64 | NDArray[np.float64]) -> float | None:
    """Return a plain number, or None in place of NaN, which JSON does not know."""
    return None if np.isnan(value) else float(value)
