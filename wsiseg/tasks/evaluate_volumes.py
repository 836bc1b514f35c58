"""The job behind ``wsiseg evaluate --task volumes``: compare labels of volumes and report scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsiseg.atomic import write_bytes
from wsiseg.errors import DataError
from wsiseg.evaluation.pairs import LABEL_VOLUMES, find_pairs
from wsiseg.evaluation.volumes import Spread, VolumesReport, read_pair, score_case
from wsiseg.metrics import SURFACE_SCORES
from wsiseg.progress import SILENT, track

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.evaluation.config import EvaluateConfig
    from wsiseg.evaluation.pairs import LabelPair
    from wsiseg.progress import Progress


def evaluate_volumes(
    pred: Path,
    truth: Path,
    config: EvaluateConfig,
    *,
    output: Path | None = None,
    table: Path | None = None,
    progress: Progress = SILENT,
) -> VolumesReport:
    """Compare predicted with true labels of volumes.

    Parameters
    ----------
    pred, truth
        NIfTI volumes, or folders of them; see `wsiseg.evaluation.pairs.find_pairs`.
    config
        How to compare.
    output, table
        Files for the report as JSON and for the scores of each case as CSV.
    progress
        Told how far it is.

    Raises
    ------
    NothingMatchedError
        When no prediction has a truth.
    DataError
        When a volume has no partner, cannot be read, lies elsewhere than its partner or holds a class that there is
        not.
    """
    pairs = find_pairs(pred, truth, LABEL_VOLUMES)
    names = _class_names(config, pairs)
    cases = tuple(
        score_case(pair, names, ignore_index=config.ignore_index)
        for pair in track(pairs, progress, what="Comparing", total=len(pairs), unit="volumes")
    )
    report = VolumesReport(
        pred=str(pred),
        truth=str(truth),
        settings=config,
        mean={score: Spread.of([case.scores[score] for case in cases]) for score in SURFACE_SCORES},
        classes={
            name: {score: Spread.of([case.classes[name][score] for case in cases]) for score in SURFACE_SCORES}
            for name in names[1:]
        },
        cases=cases,
    )
    for path, text in ((output, report.to_json()), (table, report.to_csv())):
        if path is not None:
            _write(path, text)
    return report


def _class_names(config: EvaluateConfig, pairs: Sequence[LabelPair]) -> tuple[str, ...]:
    if config.classes:
        return config.classes
    if config.num_classes is not None:
        return tuple(map(str, range(config.num_classes)))
    highest = 1
    for pair in pairs:
        pred, truth, _ = read_pair(pair)
        is_counted = truth != config.ignore_index
        highest = max(highest, int(pred[is_counted].max(initial=0)), int(truth[is_counted].max(initial=0)))
    return tuple(map(str, range(highest + 1)))


def _write(path: Path, text: str) -> None:
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=path) from error
