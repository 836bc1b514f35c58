"""The job behind ``wsiseg select``: which patches of a pool are worth a person's annotation."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.errors import ConfigError, DataError, NothingMatchedError, StoreError
from wsiseg.lock import locked
from wsiseg.progress import SILENT
from wsiseg.selection.features import PoolFeatures, fingerprint_of, look_at
from wsiseg.selection.groups import pick
from wsiseg.selection.pool import PoolReport, boxes_of, chosen_px, filter_pool, tissue_px
from wsiseg.selection.strategies import Pool, get_strategy
from wsiseg.stopping import Stop
from wsiseg.stores.patches import patch_names
from wsiseg.tasks.patch_places import are_repeats
from wsiseg.tasks.select_features import features_of
from wsiseg.tasks.select_files import TABLE, Row, find_rows, read_chosen, write_table
from wsiseg.tasks.select_job import SelectReport
from wsiseg.tasks.select_predictions import find_predictions
from wsiseg.tasks.select_report import Selection, check_own, write_report
from wsiseg.tiling.reading import open_patches
from wsiseg.training.sources import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.progress import Progress
    from wsiseg.selection.groups import Choice
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.tasks.select_job import SelectConfig, SelectJob

logger = logging.getLogger(__name__)

RECORD: Final = "selection.json"


def select(job: SelectJob, progress: Progress = SILENT, stop: Stop | None = None) -> SelectReport:
    """Choose patches and write everything that is needed to annotate them.

    Labels are never looked at, but for which patches have some where these are to be left out, and of which part of
    them where such patches overlap.

    Raises
    ------
    ConfigError, MethodError
        If a setting is wrong, or the encoder's weights cannot be had.
    DataError
        If weights do not fit, the encoder gives no numbers, or predictions are missing or of other slides.
    NothingMatchedError
        If fewer patches are left than are to be chosen.
    StoreError
        If a store cannot be used, the folder holds another selection or what is none, or features are others.
    StoppedError
        If `stop` was requested; features so far stay.
    """
    stop, config = stop or Stop(), job.config
    strategy = get_strategy(config.strategy)
    if strategy.needs_prediction != (job.prediction is not None):
        raise ConfigError(
            f"the strategy {config.strategy} needs " + ("one" if strategy.needs_prediction else "none"),
            where="--prediction",
            mend="Pass what wsiseg predict made with --strategy uncertainty, and with no other",
        )
    with open_patches(job.stores) as patches, locked(job.output / ".select.lock"):
        # Stores that do not go together are refused before anything is made.
        mpp = patches.mpp
        exclude = config.exclude or (_given(patches) if strategy.needs_prediction else ())
        is_taken, is_touched = _annotated(patches, exclude)
        predictions = None if job.prediction is None else find_predictions(patches, job.prediction)
        # Where annotated patches may be overlapped, those that only reach into them are as good as any.
        marks = np.stack((is_taken, is_touched)) if config.no_overlap else is_taken
        asked = _asked(patches, config, marks, "" if predictions is None else predictions.mark)
        if not job.overwrite and (before := _read_report(job.output, asked)) is not None:
            return before
        check_own(job.output, RECORD)
        if strategy.needs_features:
            store = features_of(job, patches, progress, stop)
            looks = store.read("appearance", np.arange(len(patches)))
        else:
            store = None
            looks = look_at(patches, workers=job.num_workers, progress=progress, stop=stop)
        uncertainty = None if predictions is None else predictions.uncertainty(patches, progress, stop)
        pool = filter_pool(patches, looks, config, is_taken=is_taken, uncertainty=uncertainty)
        _log(pool, len(patches))
        if len(pool.indices) < config.count:
            raise _too_few(pool, config)
        progress.say(f"choosing {config.count} of {len(pool.indices):,} patches")
        choice = strategy.choose(
            Pool(
                boxes=boxes_of(patches)[pool.indices],
                features=None if store is None else PoolFeatures(store, pool.indices),
                uncertainty=None if uncertainty is None else uncertainty[pool.indices],
            ),
            config.count,
            config.cps,
            seed=config.seed,
        )
        rows = _rows(patches, pool, choice, config, is_touched)
        area = tissue_px(patches)
        chosen = [row.index for row in rows if row.rank == 1]
        report = SelectReport(
            output=job.output,
            chosen=len(chosen),
            pool=len(pool.indices),
            patches=len(patches),
            removed=pool.removed,
            labelled_fraction=chosen_px(patches, chosen) / max(1, area),
        )
        cluster = np.zeros(len(patches), dtype=np.int32)
        cluster[pool.indices] = choice.cluster + 1
        is_in_pool = np.isin(np.arange(len(patches)), pool.indices)
        (job.output / RECORD).unlink(missing_ok=True)
        write_table(job.output / TABLE, rows)
        selection = Selection(
            rows=tuple(rows),
            cluster=cluster,
            uncertainty=None if uncertainty is None else np.where(is_in_pool, uncertainty, 0),
            strategy=config.strategy,
            encoder=config.encoder if strategy.needs_features else "",
            removed=pool.removed,
            pool=len(pool.indices),
            labelled_fraction=report.labelled_fraction,
            tissue_px=area,
            mpp=mpp,
            origin=config.qupath_origin,
        )
        write_report(job.output, patches, selection, progress)
        # Last, since it says that all else is there.
        found = {"chosen": report.chosen, "pool": report.pool, "patches": report.patches, "removed": report.removed}
        record = {"asked": asked, **found, "tissue_px": area, "labelled_fraction": report.labelled_fraction}
        write_bytes(job.output / RECORD, json.dumps(record, indent=1).encode() + b"\n")
        return report


def _given(patches: PatchSet) -> tuple[str, ...]:
    """Return the layers of labels that people gave."""
    return tuple(name for name, info in patches.layers.items() if info.kind != "confidence" and not info.made_by)


def _annotated(patches: PatchSet, exclude: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which patches are annotated already, by layers and tables, and which have pixels that are, (N,) each."""
    is_taken, is_touched = np.zeros((2, len(patches)), dtype=np.bool_)
    for one in exclude:
        if one in patches.layers:
            source = Source(patches=patches, layer=one, indices=np.flatnonzero(patches.is_labelled(one)))
            # Of a patch that reaches into the box of another a part is known, which says nothing of the rest.
            is_taken[source.indices[~are_repeats([(patches, source)])]] = True
            is_touched[source.indices] = True
            continue
        path = Path(one)
        try:
            rows = read_chosen(path)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{one!r} is neither a layer of labels nor a table with a column patch",
                where="--exclude",
                mend=f"Layers are: {', '.join(patches.layers) or 'none'}",
            ) from error
        found = find_rows(rows, patches)
        if unknown := [row["patch"] for row, indices in zip(rows, found, strict=True) if not indices]:
            raise DataError(
                f"{len(unknown)} of {len(rows)} patches are in none of the stores, such as {unknown[0]}", where=path
            )
        is_taken[[index for indices in found for index in indices]] = True
    return is_taken, is_taken | is_touched


def _rows(
    patches: PatchSet, pool: PoolReport, choice: Choice, config: SelectConfig, is_touched: NDArray[np.bool_]
) -> list[Row]:
    boxes = boxes_of(patches)
    taken = boxes[is_touched] if config.no_overlap else None
    picks = pick(choice, boxes[pool.indices], runners_up=config.runners_up, taken=taken)
    names = patch_names(patches)
    chosen = sum(one.rank == 1 for one in picks)
    if chosen == 0:
        raise NothingMatchedError(
            "every patch overlaps annotated ones", mend="Give more stores, or leave --no-overlap out"
        )
    if chosen < config.count:
        logger.warning("%d patches are chosen, not %d: no other is left", chosen, config.count)
    indices = [int(pool.indices[one.place]) for one in picks]
    if doubles := len(indices) - len({names[index] for index in indices}):
        raise DataError(
            f"{doubles} patches have the name of another one",
            where=names[indices[0]],
            mend="Choose from stores of different slides, or rename them",
        )
    return [
        Row(
            index=index,
            patch=names[index],
            slide=str(patches.parents[index]),
            x=int(patches.positions[index, 0]),
            y=int(patches.positions[index, 1]),
            cluster=one.group + 1,
            members=one.members,
            rank=one.rank,
            scores=one.scores,
        )
        for index, one in zip(indices, picks, strict=True)
    ]


def _asked(
    patches: PatchSet, config: SelectConfig, is_annotated: NDArray[np.bool_], prediction: str
) -> dict[str, Any]:  # Any: JSON
    """Return all that a selection depends on."""
    asked = {
        "config": config.model_dump(mode="json", exclude={"batch_size", "download", "exclude"}),
        "patches": fingerprint_of(patches),
        "annotated": hashlib.blake2b(np.packbits(is_annotated).tobytes(), digest_size=16).hexdigest(),
    }
    return {**asked, "prediction": prediction} if prediction else asked


def _read_report(output: Path, asked: dict[str, Any]) -> SelectReport | None:
    """Return the report of a selection that is there; None if there is none."""
    path = output / RECORD
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if record.pop("asked") != asked:
        raise StoreError(
            "the folder holds another selection, which may be in use",
            where=output,
            mend="Choose another --output (--features takes the features along), or --overwrite",
        )
    del record["tissue_px"]
    return SelectReport(output=output, was_done=True, **record)


def _log(pool: PoolReport, count: int) -> None:
    for rule, removed in pool.removed.items():
        logger.info("%d of %d patches are left out: %s", removed, count, rule)


def _too_few(pool: PoolReport, config: SelectConfig) -> NothingMatchedError:
    told = ", ".join(f"{count:,} {rule}" for rule, count in pool.removed.items() if count)
    return NothingMatchedError(
        f"{len(pool.indices)} patches are left to choose {config.count} from"
        + (f" (left out: {told})" if told else ""),
        mend="Give more stores, lower --min-tissue or --min-nuclei, or cut images with --patch-size",
    )
