"""What became of the slides of a tile job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from wsiseg.tasks.batch import counted, raise_failures

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.errors import WsisegError

Status = Literal["done", "already done", "planned", "partly unreadable", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideReport:
    """What became of one slide.

    Parameters
    ----------
    slide_id
        Name in outputs.
    path
        The slide.
    status
        What was done.
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
    seconds
        Time taken.
    error
        Why it failed.
    """

    slide_id: str
    path: str
    status: Status
    patches: int = 0
    unreadable: int = 0
    tissue_mm2: float | None = None
    codec: str = ""
    size_bytes: int = 0
    seconds: float = 0.0
    error: WsisegError | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what the summary says about the slide."""
        return {
            "slide_id": self.slide_id,
            "path": self.path,
            "status": self.status,
            "patches": self.patches,
            "unreadable": self.unreadable,
            "tissue_mm2": self.tissue_mm2,
            "codec": self.codec,
            "size_bytes": self.size_bytes,
            "seconds": round(self.seconds, 2),
            "error": None if self.error is None else str(self.error),
        }

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.slide_id}: failed: {self.error}"
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
        return f"{self.slide_id}: {_counted(self.patches)}{lost}{tissue}, {rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TileReport:
    """What became of all slides.

    Parameters
    ----------
    slides
        One report each, in order.
    output
        Folder of the stores.
    """

    slides: tuple[SlideReport, ...]
    output: Path

    @property
    def failed(self) -> tuple[SlideReport, ...]:
        """Return the slides that failed, wholly or in parts."""
        return tuple(report for report in self.slides if report.status in {"failed", "partly unreadable"})

    def __str__(self) -> str:
        told = counted([report.status for report in self.slides], get_args(Status))
        patches = sum(report.patches for report in self.slides)
        size = sum(report.size_bytes for report in self.slides)
        lost = sum(report.unreadable for report in self.slides)
        left_out = f" ({lost:,} unreadable)" if lost else ""
        return f"{told}: {_counted(patches)}{left_out}, {size / 1e6:,.1f} MB in {self.output}"

    def raise_failures(self) -> None:
        """Raise the error that fits the slides that failed, if any; see `wsiseg.tasks.batch`."""
        raise_failures(self.slides, self.failed)


def _counted(patches: int) -> str:
    return f"{patches:,} {'patch' if patches == 1 else 'patches'}"
