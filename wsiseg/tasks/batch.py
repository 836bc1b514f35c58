"""Jobs over many slides: each slide in turn, what failed told at the end, and a summary on disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from wsiseg.atomic import write_bytes
from wsiseg.errors import BusyError, SlideError, SomeFailedError, StoreError, WsisegError
from wsiseg.manifest import find_slides, shard, which_shard
from wsiseg.slides.mpp import check_mpp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wsiseg.config import Config
    from wsiseg.manifest import SlideEntry
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop


class Batch(Protocol):
    """What a job over many slides is told, whatever it does with them."""

    @property
    def inputs(self) -> tuple[str, ...]: ...  # noqa: D102 - see TileJob
    @property
    def slide_dir(self) -> Path | None: ...  # noqa: D102
    @property
    def manifest(self) -> Path | None: ...  # noqa: D102
    @property
    def slide_mpp(self) -> float | None: ...  # noqa: D102
    @property
    def output(self) -> Path: ...  # noqa: D102
    @property
    def settings(self) -> Config: ...  # noqa: D102
    @property
    def num_shards(self) -> int | None: ...  # noqa: D102
    @property
    def shard_index(self) -> int | None: ...  # noqa: D102
    @property
    def fail_fast(self) -> bool: ...  # noqa: D102
    @property
    def dry_run(self) -> bool: ...  # noqa: D102


class Outcome(Protocol):
    """What became of one slide; its text is a line for people."""

    @property
    def slide_id(self) -> str: ...  # noqa: D102 - see SlideEntry
    @property
    def error(self) -> WsisegError | None: ...  # noqa: D102

    def as_json(self) -> dict[str, Any]:
        """Return what the summary says about it."""
        ...


O = TypeVar("O", bound=Outcome)  # noqa: E741 - as in Outcome


def entries_of(job: Batch) -> list[SlideEntry]:
    """Return the slides that fall to this job.

    Raises
    ------
    ConfigError
        If the pixel size that is given cannot be one; it would be wrong for each of them.
    NothingMatchedError
        If there is no slide.
    """
    if job.slide_mpp is not None:
        check_mpp(job.slide_mpp)
    found = find_slides(job.inputs, slide_dir=job.slide_dir, manifest=job.manifest)
    return shard(found, job.num_shards, job.shard_index)


def for_each(
    entries: Sequence[SlideEntry], job: Batch, work: Callable[[SlideEntry], O], *, progress: Progress, stop: Stop
) -> tuple[O, ...]:
    """Return what became of each slide; a summary of them is written however it ends.

    Parameters
    ----------
    entries
        The slides.
    job
        What was asked for.
    work
        Deals with one slide; a slide's failure is part of what it returns.
    progress
        Told one line for each slide.
    stop
        Looked at before each slide.

    Raises
    ------
    StoppedError
        If a stop was requested.
    """
    outcomes: list[O] = []
    try:
        for entry in entries:
            if stop.is_requested:
                raise stop.error()
            outcomes.append(work(entry))
            # The error that the only slide ends in says it all.
            if len(entries) > 1 or outcomes[-1].error is None:
                progress.say(str(outcomes[-1]))
            if job.fail_fast and outcomes[-1].error is not None:
                break
    finally:
        if outcomes and not job.dry_run:
            _write_summary(job, outcomes)
    return tuple(outcomes)


def raise_failures(outcomes: Sequence[Outcome], failed: Sequence[Outcome]) -> None:
    """Raise the error that fits the slides that failed, if any.

    Parameters
    ----------
    outcomes
        All slides.
    failed
        Those of them that failed, wholly or in parts.

    Raises
    ------
    BusyError
        If other processes are at work on all of them.
    SomeFailedError
        If others are done, or a part of a slide is.
    WsisegError
        The slide's own error if it was the only one.
    SlideError
        If there were several and none is done.
    """
    if not failed:
        return
    names = ", ".join(outcome.slide_id for outcome in failed)
    errors = [outcome.error for outcome in failed if outcome.error is not None]
    if len(outcomes) > 1 and len(errors) == len(failed) and all(isinstance(error, BusyError) for error in errors):
        raise BusyError(f"other processes are at work on {len(failed)} of {len(outcomes)} slides: {names}")
    if len(errors) < len(outcomes):
        parts = " at least in parts" if len(errors) < len(failed) else ""
        raise SomeFailedError(f"{len(failed)} of {len(outcomes)} slides failed{parts}: {names}")
    if len(errors) == 1:
        raise errors[0]
    raise SlideError(f"all {len(errors)} slides failed: {names}", mend=f"The first: {errors[0]}")


def counted(statuses: Sequence[str], kinds: Sequence[str]) -> str:
    """Return how many slides have which status, in the order of `kinds`."""
    counts = {kind: sum(status == kind for status in statuses) for kind in kinds}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "no slides in this shard"


def not_written(error: OSError, place: Path) -> StoreError:
    """Return what a full disk or a folder that cannot be written to means to a user."""
    failure = StoreError(f"cannot be written: {error.strerror or error}", where=error.filename or place)
    failure.__cause__ = error
    return failure


def _write_summary(job: Batch, outcomes: Sequence[Outcome]) -> None:
    count, index = which_shard(job.num_shards, job.shard_index)
    # Jobs that work side by side must not overwrite each other's.
    name = "summary.json" if count == 1 else f"summary-{index}-of-{count}.json"
    content = {
        "settings": job.settings.model_dump(mode="json"),
        "slides": [outcome.as_json() for outcome in outcomes],
    }
    try:
        write_bytes(job.output / name, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise not_written(error, job.output) from error
