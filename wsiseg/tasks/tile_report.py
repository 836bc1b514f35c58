"""What became of the slides of a tile job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from wsiseg.tasks.batch import BatchReport, Outcome

Status = Literal["done", "already done", "planned", "partly unreadable", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideReport(Outcome):
    """What became of one slide.

    Parameters
    ----------
    patches
        Number of patches.
    unreadable
        Further patches that are left out because the slide is damaged there.
    tissue_mm2
        Area of tissue, or None where unknown.
    codec
        How patches are stored.
    size_bytes
        Size on disk; estimated for plans.
    """

    status: Status
    patches: int = 0
    unreadable: int = 0
    tissue_mm2: float | None = None
    codec: str = ""
    size_bytes: int = 0

    def _findings(self) -> dict[str, Any]:
        return {
            "patches": self.patches,
            "unreadable": self.unreadable,
            "tissue_mm2": self.tissue_mm2,
            "codec": self.codec,
            "size_bytes": self.size_bytes,
        }

    def _line(self) -> str:
        tissue = "" if self.tissue_mm2 is None else f", {self.tissue_mm2:.3g} mm² of tissue"
        size = f"{self.size_bytes / 1e6:,.1f} MB ({self.codec})"
        match self.status:
            case "planned":
                rest = f"about {size}"
            case _ if not self.seconds:
                rest = f"already done, {size}"
            case _:
                rest = f"{self.seconds:.1f} s, {size}"
        lost = f", {self.unreadable:,} unreadable and left out" if self.unreadable else ""
        return f"{_counted(self.patches)}{lost}{tissue}, {rest}"


class TileReport(BatchReport[SlideReport]):
    """What became of all slides."""

    def __str__(self) -> str:
        told = self.counted(get_args(Status))
        patches = sum(report.patches for report in self.slides)
        size = sum(report.size_bytes for report in self.slides)
        lost = sum(report.unreadable for report in self.slides)
        left_out = f" ({lost:,} unreadable)" if lost else ""
        return f"{told}: {_counted(patches)}{left_out}, {size / 1e6:,.1f} MB in {self.output}"


def _counted(patches: int) -> str:
    return f"{patches:,} {'patch' if patches == 1 else 'patches'}"
