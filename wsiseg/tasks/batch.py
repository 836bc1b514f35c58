"""Jobs over many slides: each slide in turn, what failed told at the end, and a summary on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from wsiseg.atomic import write_bytes
from wsiseg.errors import BusyError, SlideError, SomeFailedError, StoreError
from wsiseg.manifest import find_slides, shard, which_shard
from wsiseg.slides.mpp import check_mpp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wsiseg.config import Config
    from wsiseg.errors import WsisegError
    from wsiseg.manifest import SlideEntry
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop


# Statuses of slides that the exit code tells of.
INCOMPLETE: Final = frozenset(("failed", "partly unreadable", "already done, partly unreadable"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """What a job over many slides is told, whatever it does with them.

    Parameters
    ----------
    inputs, slide_dir, manifest
        Slides; see `find_slides`.
    output
        Folder for what is made of them.
    settings
        How it is made.
    reader
        Reader that is forced, or None.
    slide_mpp
        Micrometres per level-0 pixel that beat the manifest and the files, or None.
    num_shards, shard_index
        The part of the slides that is ours; see `shard`.
    overwrite
        Make again what is there.
    fail_fast
        Stop at the first slide that fails.
    dry_run
        Only plan.
    """

    inputs: tuple[str, ...]
    output: Path
    settings: Config
    slide_dir: Path | None = None
    manifest: Path | None = None
    reader: str | None = None
    slide_mpp: float | None = None
    num_shards: int | None = None
    shard_index: int | None = None
    overwrite: bool = False
    fail_fast: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one slide; its text is a line for people.

    Parameters
    ----------
    slide_id, path
        The slide.
    status
        What was done.
    seconds
        Time taken.
    error
        Why it failed.
    """

    slide_id: str
    path: str
    status: str
    seconds: float = 0.0
    error: WsisegError | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what the summary says about the slide."""
        return {
            "slide_id": self.slide_id,
            "path": self.path,
            "status": self.status,
            **self._findings(),
            "seconds": round(self.seconds, 2),
            "error": None if self.error is None else str(self.error),
        }

    def _findings(self) -> dict[str, Any]:
        return {}

    def __str__(self) -> str:
        return f"{self.slide_id}: " + (self._line() if self.error is None else f"failed: {self.error}")

    def _line(self) -> str:
        return self.status


O = TypeVar("O", bound=Outcome)  # noqa: E741 - as in Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport(Generic[O]):
    """What became of all slides.

    Parameters
    ----------
    slides
        One report each, in order.
    output
        Folder of what was made.
    """

    slides: tuple[O, ...]
    output: Path

    @property
    def failed(self) -> tuple[O, ...]:
        """Return the slides that failed or could not be read everywhere."""
        return tuple(slide for slide in self.slides if slide.status in INCOMPLETE)

    def counted(self, kinds: Sequence[str]) -> str:
        """Return how many slides have which status, in the order of `kinds`."""
        counts = {kind: sum(slide.status == kind for slide in self.slides) for kind in kinds}
        return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "no slides in this shard"

    def raise_failures(self) -> None:
        """Raise the error that fits the slides that failed, if any.

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
        slides, failed = self.slides, self.failed
        if not failed:
            return
        names = ", ".join(slide.slide_id for slide in failed)
        errors = [slide.error for slide in failed if slide.error is not None]
        if len(slides) > 1 and len(errors) == len(failed) and all(isinstance(error, BusyError) for error in errors):
            raise BusyError(f"other processes are at work on {len(failed)} of {len(slides)} slides: {names}")
        if len(errors) < len(slides):
            parts = " at least in parts" if len(errors) < len(failed) else ""
            raise SomeFailedError(f"{len(failed)} of {len(slides)} slides failed{parts}: {names}")
        if len(errors) == 1:
            raise errors[0]
        raise SlideError(f"all {len(errors)} slides failed: {names}", mend=f"The first: {errors[0]}")


def entries_of(job: BatchJob) -> list[SlideEntry]:
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
    entries: Sequence[SlideEntry], job: BatchJob, work: Callable[[SlideEntry], O], *, progress: Progress, stop: Stop
) -> tuple[O, ...]:
    """Return what became of each slide; a summary of all is written however it ends.

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
    begun = 0
    try:
        for entry in entries:
            if stop.is_requested:
                raise stop.error()
            begun += 1
            outcomes.append(work(entry))
            # The error that the only slide ends in says it all.
            if len(entries) > 1 or outcomes[-1].error is None:
                progress.say(str(outcomes[-1]))
            if job.fail_fast and outcomes[-1].error is not None:
                break
    finally:
        if entries and not job.dry_run:
            _write_summary(job, [*outcomes, *_left(entries, done=len(outcomes), begun=begun)])
    return tuple(outcomes)


def _left(entries: Sequence[SlideEntry], *, done: int, begun: int) -> list[Outcome]:
    """Return what there is to say of slides that the job has not done."""
    return [
        Outcome(slide_id=entry.slide_id, path=str(entry.path), status="stopped" if number < begun else "not begun")
        for number, entry in enumerate(entries[done:], start=done)
    ]


def not_written(error: OSError, place: Path) -> StoreError:
    """Return what a full disk or a folder that cannot be written to means to a user."""
    failure = StoreError(f"cannot be written: {error.strerror or error}", where=error.filename or place)
    failure.__cause__ = error
    return failure


def _write_summary(job: BatchJob, outcomes: Sequence[Outcome]) -> None:
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
