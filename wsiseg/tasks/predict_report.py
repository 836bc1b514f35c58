"""What became of the slides of a predict job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from wsiseg.tasks.batch import counted, raise_failures

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.errors import WsisegError
    from wsiseg.inference.summary import Json

Status = Literal[
    "done", "outputs made", "already done", "planned", "partly unreadable", "already done, partly unreadable", "failed"
]

_INCOMPLETE: Final = frozenset(("failed", "partly unreadable", "already done, partly unreadable"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideReport:
    """What became of one slide.

    Parameters
    ----------
    slide_id, path
        The slide.
    status
        What was done.
    told
        The findings in a few words.
    seconds
        Time taken.
    error
        Why it failed.
    """

    slide_id: str
    path: str
    status: Status
    told: str = ""
    seconds: float = 0.0
    error: WsisegError | None = None

    def as_json(self) -> Json:
        """Return what the summary says about the slide."""
        return {
            "slide_id": self.slide_id,
            "path": self.path,
            "status": self.status,
            "seconds": round(self.seconds, 2),
            "error": None if self.error is None else str(self.error),
        }

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.slide_id}: failed: {self.error}"
        took = f", {self.seconds:.1f} s" if self.status in {"done", "outputs made", "partly unreadable"} else ""
        return f"{self.slide_id}: {self.status}{took}: {self.told}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictReport:
    """What became of all slides.

    Parameters
    ----------
    slides
        One report each, in order.
    output
        Folder of the predictions.
    """

    slides: tuple[SlideReport, ...]
    output: Path

    @property
    def failed(self) -> tuple[SlideReport, ...]:
        """Return the slides that failed or could not be read everywhere."""
        return tuple(report for report in self.slides if report.status in _INCOMPLETE)

    def __str__(self) -> str:
        told = counted([report.status for report in self.slides], get_args(Status))
        return f"{told}, in {self.output}"

    def raise_failures(self) -> None:
        """Raise the error that fits the slides that failed, if any; see `wsiseg.tasks.batch`."""
        raise_failures(self.slides, self.failed)
