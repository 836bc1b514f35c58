"""What ``wsiseg select`` is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsiseg.selection.encoders import EncoderSpec
from wsiseg.selection.patch_scores import ConsistencyOptions
from wsiseg.selection.pool import PoolSettings
from wsiseg.tasks.select_files import TABLE
from wsiseg.tasks.select_report import PAGE

if TYPE_CHECKING:
    from pathlib import Path


class SelectConfig(EncoderSpec, PoolSettings):
    """How patches are chosen.

    Parameters
    ----------
    count
        How many, and into how many clusters the pool is parted.
    strategy
        ``cps`` (consistency-based patch selection), ``kcenter``, ``random`` or ``uncertainty`` (of a prediction).
    runners_up
        At most so many patches of each cluster are named that may take the place of the chosen one.
    no_overlap
        Chosen patches share no pixel with one another, or with annotated ones.
    exclude
        What is annotated already: layers of labels, or tables of patches as this command writes them. Patches that only
        reach into annotated ones are not. Where nothing is said, the strategy ``uncertainty`` leaves out what has
        labels that a person gave.
    seed
        Decides everything random.
    cps
        Numbers of consistency-based patch selection.
    batch_size
        Patches that the encoder takes at once.
    amp
        Its number format.
    qupath_origin
        What boxes are counted from: ``bounds``, the scanned part of slides that name one, or ``level0``.
    """

    count: int = Field(default=6, ge=1)
    strategy: str = "cps"
    runners_up: int = Field(default=4, ge=0)
    no_overlap: bool = False
    exclude: tuple[str, ...] = ()
    seed: int = Field(default=42, ge=0)
    cps: ConsistencyOptions = ConsistencyOptions()
    batch_size: int = Field(default=32, ge=1)
    amp: Literal["auto", "fp16", "bf16", "off"] = "auto"
    qupath_origin: Literal["bounds", "level0"] = "bounds"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectJob:
    """What to do.

    Parameters
    ----------
    stores
        Patch stores, or folders of them; all are one pool.
    output
        Folder of the selection.
    config
        How patches are chosen.
    features
        Where features are kept, and found again; ``features.zarr`` in the output where None.
    prediction
        What `wsiseg predict` made of the same slides, for the strategy ``uncertainty``.
    device
        ``auto``, ``cpu``, ``cuda:N`` or ``mps``.
    num_workers
        Threads that read.
    overwrite
        Replace another selection, and features of other patches or of another encoder.
    """

    stores: tuple[Path, ...]
    output: Path
    config: SelectConfig
    features: Path | None = None
    prediction: Path | None = None
    device: str = "auto"
    num_workers: int = 2
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectReport:
    """What was chosen.

    Parameters
    ----------
    output
        The folder.
    chosen, pool, patches
        Numbers of patches that are chosen, that could have been, and of all.
    removed
        How many each rule left out.
    labelled_fraction
        Pixels of the chosen patches, glass in them included, over those of all tissue that there is to choose from.
    was_done
        Whether the folder had this selection already.
    """

    output: Path
    chosen: int
    pool: int
    patches: int
    removed: dict[str, int]
    labelled_fraction: float
    was_done: bool = False

    def __str__(self) -> str:
        left_out = ", ".join(f"{count:,} {rule}" for rule, count in self.removed.items() if count)
        done = ", already done" if self.was_done else ""
        share = f"{self.labelled_fraction:.3%} of the pixels of tissue"
        lines = [
            f"{self.chosen} of {self.pool:,} patches chosen, {share}{done}",
            f"{self.output / TABLE}",
            f"{self.output / PAGE}",
        ]
        if left_out:
            lines.insert(1, f"left out of {self.patches:,} before: {left_out}")
        return "\n".join(lines)
