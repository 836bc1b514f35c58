"""The page that shows what teacher and students learnt, and what a teacher told its student."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.methods.pseudo_objects import IGNORED
from wsiseg.stores.patches import patch_names
from wsiseg.synthesis.sheets import outlined
from wsiseg.tasks.pictures import Panel, encoded, png, render, some
from wsiseg.tasks.train_job import PAGE
from wsiseg.training.log import CURVES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.tasks.object_labels import ObjectLabels
    from wsiseg.tasks.train_job import TrainReport
    from wsiseg.tasks.train_pool import Kinds
    from wsiseg.training.pseudo_labels import PseudoLabeller
    from wsiseg.training.sources import Source

_TEMPLATE: Final = "rounds_report.html.j2"
_PANELS: Final = 5
# Of so many patches it is looked up how much of them is ignored.
_MOST: Final = 200
_DROPPED: Final = (220, 40, 60)
_VEIL: Final = np.array((128, 128, 128), dtype=np.float32)
_COVER: Final = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a student was told.

    Parameters
    ----------
    labels, layer
        Its pseudo-labels, and the layer that they are in.
    health
        The fields of their `Health`, None where a number is none.
    """

    labels: ObjectLabels
    layer: str
    health: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A stage that is finished.

    Parameters
    ----------
    name
        Its folder in the run.
    report
        What became of it.
    told
        Pseudo-labels that it learnt from; None for the teacher.
    """

    name: str
    report: TrainReport
    told: Told | None


def compared(student: Trained, teacher: Trained) -> str:
    """Return whether a student is better than what taught it, in one line."""
    fit, before = student.report.fit, teacher.report.fit
    if math.isnan(fit.best) or math.isnan(before.best):
        return f"nobody knows whether {student.name} is better than {teacher.name}, as nothing is held out"
    said = f"{fit.metric} of {student.name} {fit.best:.4f}, of {teacher.name} {before.best:.4f}"
    if fit.best < before.best:
        return f"warning: {said}: pseudo-labels made it worse than {teacher.report.checkpoint}"
    return said


def write_rounds_report(
    folder: Path, trained: Sequence[Trained], kinds: Kinds, *, method: str, device: torch.device
) -> None:
    """Write `PAGE` into the folder of a run.

    Parameters
    ----------
    folder
        Of the run.
    trained
        Its stages in order.
    kinds
        What was learnt from.
    method
        Its name.
    device
        Where teachers look at some patches again.
    """
    students = [(stage.name, stage.told) for stage in trained if stage.told is not None]
    page = render(
        _TEMPLATE,
        name=folder.resolve().name,
        method=method,
        facts=[
            {"value": f"{_count(kinds.real):,}", "label": "annotated patches"},
            {"value": f"{_count(kinds.synthetic):,}", "label": "synthetic patches"},
            {"value": f"{_count([source for _, source in kinds.pool]):,}", "label": "patches without labels"},
            {"value": len(students), "label": "rounds"},
        ],
        stages=[(stage.name, stage.report.fit) for stage in trained],
        health=[(name, told.health) for name, told in students],
        curves=[
            (stage.name, encoded((folder / stage.name / CURVES).read_bytes()))
            for stage in trained
            if (folder / stage.name / CURVES).exists()
        ],
        # Of a student that is finished nobody needs them any more.
        audits=[(name, _audited(told, device)) for name, told in students if told.labels.are_in(told.layer)],
    )
    write_bytes(folder / PAGE, page)


def _audited(told: Told, device: torch.device) -> list[Panel]:
    """Return pictures of some patches, from that of which least is ignored to that of which most is."""
    items = [(patches, source, int(index)) for patches, source in told.labels.pool for index in source.indices]
    looked_at = [items[at] for at in some(np.arange(len(items)), _MOST)]
    shares = np.array([_ignored(patches, told.layer, index) for patches, _, index in looked_at])
    order = np.argsort(shares, kind="stable")
    labeller = told.labels.labeller(device)
    return [_panel(labeller, *looked_at[at]) for at in some(order, _PANELS)]


def _ignored(patches: PatchSet, layer: str, index: int) -> float:
    """Return the part of a patch that nothing is learnt from."""
    width, height = patches.extents[index].tolist()
    return float((patches.read_labels(layer, [index])[0, :height, :width] == IGNORED).mean())


def _panel(labeller: PseudoLabeller, patches: PatchSet, source: Source, index: int) -> Panel:
    image = source.whole(index).image
    (told,) = labeller.label([image], workers=0)
    is_ignored = told.labels == IGNORED
    title = (
        f"{patch_names(patches)[index]}: {len(told.scores)} believed, {told.rejected} dropped, "
        f"{is_ignored.mean():.0%} ignored"
    )
    veiled = outlined(_veiled(image, is_ignored), told.dropped, colour=_DROPPED)
    pictures = [("patch", image), ("believed", outlined(image, told.labels)), ("dropped and ignored", veiled)]
    return Panel(title=title, pictures=[(caption, png(pixels)) for caption, pixels in pictures])


def _veiled(image: NDArray[np.uint8], is_ignored: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) in which grey lies over what is ignored."""
    cover = _COVER * is_ignored[..., None]
    veiled: NDArray[np.uint8] = (image * (1 - cover) + _VEIL * cover).round().astype(np.uint8)
    return veiled


def _count(sources: Sequence[Source]) -> int:
    return sum(len(source.indices) for source in sources)
