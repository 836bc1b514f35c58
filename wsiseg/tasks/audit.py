"""The job behind ``wsiseg audit``: how far layers of labels can be trusted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.errors import ConfigError, DataError
from wsiseg.progress import SILENT, track
from wsiseg.stores.patches import confidence_layer
from wsiseg.tasks.audit_charts import draw_confidence
from wsiseg.tasks.audit_tallies import Tallies
from wsiseg.tasks.pictures import Panel, covered, encoded, keys, png, render
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.labels import LabelMap
    from wsiseg.progress import Progress
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.tasks.audit_tallies import Json

PAGE: Final = "audit.html"
FIGURES: Final = "audit.json"
# Runs of neighbours share shards on disk.
_RUN: Final = 64
_HALF: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditJob:
    """What to do.

    Parameters
    ----------
    store
        Patch store.
    output
        Folder of the page and the figures.
    layers
        Layers of classes to look at; None takes all but `truth`, and of pseudo-labels the newest.
    truth
        Layer of masks that are true; None takes the one that has the name of a layer of image labels, if any.
    """

    store: Path
    output: Path
    layers: tuple[str, ...] | None = None
    truth: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was found.

    Parameters
    ----------
    page
        HTML with all of it.
    figures
        The same as numbers; the content of `FIGURES`.
    """

    page: Path
    figures: Json

    def __str__(self) -> str:
        lines, parts = [], {one["layer"] for one in self.figures["parts"]}
        for name, one in self.figures["layers"].items():
            shares = ", ".join(f"{key} {share:.1%}" for key, share in one["shares"].items())
            lines.append(f"{name}: {one['coverage']:.1%} of {one['patches']} patches; {shares}")
            # Of parts it says how much they leave out.
            if one["truth"] and name not in parts:
                lines.append(f"  mIoU {_text(one['truth']['miou'])}, accuracy {_text(one['truth']['accuracy'])}")
            if one["confidence"]:
                half = next(row["accuracy"] for row in one["confidence"]["surest"] if row["share"] >= _HALF)
                error = one["confidence"]["ece"]
                lines.append(f"  accuracy of the surest half {half:.3f}, calibration error {error:.3f}")
        lines += [
            f"{' and '.join(pair['layers'])} agree on {_text(pair['pixels'])} of what both label"
            for pair in self.figures["agreement"]
        ]
        for one in self.figures["parts"]:
            line = f"{one['layer']} is {one['coverage']:.1%} of {one['of']}"
            if one["truth"]:
                part, rest = (_text(one["truth"][name]["accuracy"]) for name in ("part", "rest"))
                line += f": accuracy {part}, of the rest {rest}"
            lines.append(line)
        return "\n".join([*lines, f"Report: {self.page}"])


def audit(job: AuditJob, progress: Progress = SILENT) -> AuditReport:
    """Compare layers of classes with one another and with masks that are true, and show the worst patches.

    Raises
    ------
    ConfigError
        If there is no such layer.
    DataError
        If there is nothing to look at, or layers are of different classes.
    """
    patches = open_patches([job.store])
    layers, truth = _layers(patches, job, progress)
    labels = patches.layers[layers[0]].labels
    tallies, indices = Tallies(layers, classes=len(labels)), _labelled(patches, layers)
    # Where nothing is known to be true, nothing can be said of confidence.
    sure = {name: confidence_layer(name) for name in layers if truth and confidence_layer(name) in patches.layers}
    has = {name: patches.is_labelled(name) for name in (*layers, *sure.values(), *([truth] if truth else []))}
    runs = [indices[first : first + _RUN] for first in range(0, len(indices), _RUN)]
    for run in track(runs, progress, what="audit", total=len(runs), unit="runs of patches"):
        found = {name: patches.read_labels(name, run) for name, is_there in has.items() if is_there[run].any()}
        for place, index in enumerate(run.tolist()):
            width, height = patches.extents[index].tolist()
            given = {name: read[place, :height, :width] for name, read in found.items() if has[name][index]}
            tallies.add(
                index,
                {name: given[name] for name in layers},
                given.get(truth or ""),
                {name: given[layer] for name, layer in sure.items() if layer in given},
            )
    figures = {
        "store": str(job.store),
        "truth": None if tallies.is_blind else truth,
        **tallies.figures(labels),
    }
    shown = layers if truth is None or tallies.is_blind else (*layers, truth)
    worst = [_panel(patches, index, fault, shown, labels) for index, fault in tallies.worst()]
    rated = {name: one["confidence"] for name, one in figures["layers"].items() if one["confidence"]}
    page = render(
        "audit.html.j2",
        name=job.store.name,
        figures=figures,
        classes=keys(labels),
        rated=rated,
        chart=encoded(draw_confidence(rated)) if rated else "",
        fault="agreement of the layers" if tallies.is_blind else f"accuracy against {truth}",
        worst=worst,
    )
    write_bytes(job.output / FIGURES, json.dumps(figures, indent=1, allow_nan=False).encode() + b"\n")
    write_bytes(job.output / PAGE, page)
    return AuditReport(page=job.output / PAGE, figures=figures)


def _layers(patches: PatchSet, job: AuditJob, progress: Progress) -> tuple[tuple[str, ...], str | None]:
    """Return the layers to look at, and the true one."""
    known = [name for name, info in patches.layers.items() if info.kind == "classes"]
    truth = job.truth or next((name for name in known if name in patches.image_layers), None)
    layers = job.layers or _current(patches, [name for name in known if name != truth], progress)
    missing = [name for name in (*layers, *([truth] if truth else [])) if name not in known]
    if missing:
        raise ConfigError(
            f"there is no layer {missing[0]!r} of classes",
            where="--layer" if missing[0] in layers else "--truth",
            mend=f"There are: {', '.join(known) or 'none'}",
        )
    if not layers:
        raise DataError(
            "there is no layer to look at", where=job.store, mend="Make some with wsiseg pseudo-label or wsiseg train"
        )
    names = {name: patches.layers[name].labels.names for name in (*layers, *([truth] if truth else []))}
    if len(set(names.values())) > 1:
        raise DataError("the layers are of different classes", where=job.store, mend="Choose some with --layer")
    return layers, truth


def _current(patches: PatchSet, names: list[str], progress: Progress) -> tuple[str, ...]:
    """Return the layers without pseudo-labels of earlier trainings, which stay in the store."""
    made_by = {name: patches.layers[name].made_by for name in names}
    made = [name for name in names if made_by[name]]
    if not made:
        return tuple(names)
    made_at = {
        name: max(info.made_at for store in patches.stores if (info := store.layers.get(name)) is not None)
        for name in made
    }
    newest = made_by[max(made, key=made_at.__getitem__)]
    older = [name for name in made if made_by[name] != newest]
    if older:
        what = "older pseudo-labels are left out: "
        progress.say(
            what + f"{', '.join(older)}. Choose them with --layer, or delete their folders in labels/ of the store"
        )
    return tuple(name for name in names if name not in older)


def _labelled(patches: PatchSet, layers: tuple[str, ...]) -> NDArray[np.int64]:
    found = np.flatnonzero(np.all([patches.is_labelled(name) for name in layers], axis=0))
    if len(found) == 0:
        raise DataError("no patch has labels in all of these layers", mend="Choose other layers with --layer")
    return found


def _panel(patches: PatchSet, index: int, fault: float, shown: tuple[str, ...], labels: LabelMap) -> Panel:
    width, height = patches.extents[index].tolist()
    image = patches.read_images([index])[0, :height, :width]
    masks = [(name, patches.read_labels(name, [index])[0, :height, :width]) for name in shown]
    pictures = [("patch", png(image)), *((name, png(covered(image, mask, labels))) for name, mask in masks)]
    return Panel(title=f"{patches.parents[index]}: {fault:.1%}", pictures=pictures)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
