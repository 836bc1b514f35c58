"""What became of the slides of a predict job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from wsiseg.tasks.batch import BatchReport, Outcome

Status = Literal[
    "done", "outputs made", "already done", "planned", "partly unreadable", "already done, partly unreadable", "failed"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideReport(Outcome):
    """What became of one slide.

    Parameters
    ----------
    told
        The findings in a few words.
    """

    status: Status
    told: str = ""

    def _line(self) -> str:
        took = f", {self.seconds:.1f} s" if self.status in {"done", "outputs made", "partly unreadable"} else ""
        return f"{self.status}{took}: {self.told}"


class PredictReport(BatchReport[SlideReport]):
    """What became of all slides."""

    def __str__(self) -> str:
        return f"{self.counted(get_args(Status))}, in {self.output}"
