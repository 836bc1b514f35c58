"""What ``wsiseg label`` tells of pixels that it has labelled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.stores.patch_store import PatchStore
    from wsiseg.stores.patches import LayerInfo
    from wsiseg.tasks.label_sheets import DrawnSheet


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts the labels that patches get.

    Parameters
    ----------
    labelled
        Number of patches with a label.
    set_aside
        Number of these that are to be ignored whole.
    kept
        Number of other patches that keep the labels that they had.
    pixels
        Number of pixels by class, the ignored last; of instances all are of class 1; int64 (256,).
    objects
        Instances, by file and id.
    """

    labelled: int = 0
    set_aside: int = 0
    kept: int = 0
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(IGNORE + 1, dtype=np.int64))
    objects: set[tuple[Path, int]] = field(default_factory=set)

    def add(self, labels: NDArray[np.int32], info: LayerInfo, path: Path) -> None:
        """Count the labels of a patch, (H, W), which come from a file."""
        self.labelled += 1
        if info.kind == "instances":
            self.objects.update((path, number) for number in np.unique(labels[labels > 0]).tolist())
            labels = np.where(labels < 0, IGNORE, labels > 0)
        self.set_aside += int((labels == IGNORE).all())
        self.pixels += np.bincount(labels.reshape(-1), minlength=IGNORE + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskReport:
    """What was labelled.

    Parameters
    ----------
    store
        The store.
    patches, labelled, set_aside, kept
        Numbers of all patches, of those with a label, of these that are to be ignored whole, and of others that keep
        the labels that they had.
    shares
        Share of each class of the known pixels; empty for instances.
    objects
        Number of objects with a pixel in a labelled part; for classes, of drawn ones. None for images of classes.
    elsewhere
        Number of drawn objects without one, as they lie elsewhere or are too small.
    covered
        Number of drawn objects that smaller ones hide in part.
    skipped
        Objects in the files that were left out.
    ignored
        Share of the pixels of labelled patches of which nothing is known.
    has_regions
        Whether boxes tell where everything was drawn.
    lacks_background
        Whether nothing tells which pixels are none of what was drawn.
    was_done
        Whether the store had these labels already.
    """

    store: Path
    patches: int
    labelled: int
    set_aside: int
    kept: int
    shares: dict[str, float]
    objects: int | None
    elsewhere: int
    covered: int
    skipped: int
    ignored: float
    has_regions: bool
    lacks_background: bool
    was_done: bool

    def __str__(self) -> str:
        found = [] if self.objects is None else [f"{self.objects:,} objects"]
        found += [f"{share:.1%} {name}" for name, share in self.shares.items()]
        notes = [f"{self.labelled:,} of {self.patches:,} patches labelled in {self.store}: {', '.join(found)}"]
        if self.set_aside:
            notes.append(f"{self.set_aside:,} of them to be ignored whole")
        if self.kept:
            notes.append(f"{self.kept:,} others keep their labels")
        if self.ignored:
            notes.append(f"{self.ignored:.1%} of their pixels ignored")
        if self.elsewhere:
            notes.append(f"{self.elsewhere:,} objects lie elsewhere or are too small")
        if self.covered:
            notes.append(f"{self.covered:,} objects lie partly under smaller ones, which count")
        if self.skipped:
            notes.append(f"{self.skipped:,} objects left out, without area or of no class")
        if self.objects == 0 and self.labelled > self.set_aside:
            notes.append("no object was drawn in any of them")
        if self.lacks_background:
            want = "for want of boxes of the class Region* or --undrawn background"
            notes.append(f"nothing is background, {'as objects fill the boxes' if self.has_regions else want}")
        return "; ".join(notes) + (", already done" if self.was_done else "")


def mask_report(
    store: PatchStore, info: LayerInfo, tally: Tally, drawn: Sequence[DrawnSheet], *, was_done: bool
) -> MaskReport:
    """Return what was labelled, and what was drawn and did not become a label.

    Parameters
    ----------
    store, info
        The store, and what its layer holds.
    tally
        The labels of its patches.
    drawn
        The sheets that they were cut from, if they were drawn.
    was_done
        Whether the store had these labels already.
    """
    total, ignored = int(tally.pixels.sum()), int(tally.pixels[IGNORE])
    seen = sum(len(sheet.seen) for sheet in drawn)
    # Without a class they are no labels of classes.
    unclassed = sum(int((sheet.values == sheet.ignore).sum()) for sheet in drawn)
    is_classes = info.kind == "classes"
    labels = info.labels.labels if is_classes else ()
    return MaskReport(
        store=store.path,
        patches=len(store),
        labelled=tally.labelled,
        set_aside=tally.set_aside,
        kept=tally.kept,
        shares={label.name: int(tally.pixels[label.index]) / max(total - ignored, 1) for label in labels},
        objects=(seen if drawn else None) if is_classes else len(tally.objects),
        elsewhere=sum(len(sheet.drawing.objects) for sheet in drawn) - seen - unclassed,
        covered=sum(len(sheet.covered) for sheet in drawn),
        skipped=sum(sheet.drawing.skipped for sheet in drawn) + unclassed,
        ignored=ignored / max(total, 1),
        has_regions=any(len(sheet.drawing.regions) for sheet in drawn),
        lacks_background=tally.labelled > tally.set_aside
        and bool(drawn)
        and not tally.pixels[0]
        and (not is_classes or info.labels.no_class == 0),
        was_done=was_done,
    )
