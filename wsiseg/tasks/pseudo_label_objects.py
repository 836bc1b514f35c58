"""What ``wsiseg pseudo-label`` does with a model of objects: instances, and zones that say nothing, in new layers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.checkpoint import locate, read_card
from wsiseg.config import load
from wsiseg.errors import DataError
from wsiseg.limits import cpu_limit
from wsiseg.methods.label_efficient import NAME, LabelEfficientOptions
from wsiseg.methods.pseudo_objects import PseudoRules
from wsiseg.nets.devices import choose_device
from wsiseg.stores.patch_meta import SYNTHETIC
from wsiseg.tasks.object_labels import ObjectLabels
from wsiseg.tasks.train_job import CONFIG
from wsiseg.tasks.train_pool import apart
from wsiseg.tiling.reading import open_patches
from wsiseg.training.label_health import Health, doubt
from wsiseg.training.sources import Source, UnlabelledSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.tasks.train_pool import Pool

# RUN/STAGE/best/model.json: the run is at most so far above the model.
_DEPTH: Final = 3
_TEACHER: Final = "teacher"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLabelReport:
    """What was labelled.

    Parameters
    ----------
    stores
        As they were named.
    layer
        Its name in the stores.
    patches
        Patches that are labelled now.
    health
        How sure the model was of those that were not labelled before; None where all were.
    """

    stores: tuple[Path, ...]
    layer: str
    patches: int
    health: Health | None

    def __str__(self) -> str:
        told = "already done" if self.health is None else str(self.health)
        return f"{self.patches} patches labelled in {', '.join(map(str, self.stores))}\nlabels/{self.layer}: {told}"


def finds_objects(model: Path) -> bool:
    """Tell whether `model`, the folder of a model, or its run, or the name of a shipped one, finds objects."""
    try:
        return read_card(str(model)).task == "instance"
    except DataError:
        return False


def label_objects(
    stores: tuple[Path, ...],
    model: Path,
    *,
    min_score: float | None,
    device: str,
    overwrite: bool,
    progress: Progress,
    stop: Stop,
) -> ObjectLabelReport:
    """Label the objects of patches that nobody has annotated.

    Patches that show what is annotated in these stores, synthetic ones, and those marked ``val`` or ``test`` are left
    alone.

    Parameters
    ----------
    stores
        Patch stores, or folders of them; get the layer.
    model
        See `finds_objects`. Of a stage of ``label-efficient`` as much is believed as in its run.
    min_score
        Lowest score of objects that are believed; None for that of the run, else the usual one.
    device
        ``auto``, ``cpu``, ``cuda:N`` or ``mps``.
    overwrite
        Label patches again that are done.
    progress
        Told of patches.
    stop
        Looked at after each patch.

    Raises
    ------
    DataError
        If no patch is left to label.
    BusyError
        If another process writes the same layer.
    StoppedError
        If `stop` was requested; what is labelled stays.
    """
    card = read_card(str(model))
    rules, is_first = _rules_of(model)
    if min_score is not None:
        rules = PseudoRules.model_validate(
            {**rules.model_dump(), "min_score": min_score, "later_min_score": min_score, "class_min_score": {}}
        )
    pool = _pool([open_patches([path]) for path in stores], card.mpp)
    if not pool:
        raise DataError(
            "there is no patch left to label",
            where=", ".join(map(str, stores)),
            mend="Name a store with patches that are neither annotated nor marked val or test",
        )
    found = ObjectLabels(
        model=str(model),
        name=card.name,
        labels=card.labels,
        pool=pool,
        rules=rules,
        min_scores=rules.min_scores(card.labels, is_first=is_first),
    )
    layer = found.made_by
    health = None
    if overwrite or not found.are_in(layer):
        if overwrite:
            found.remove(layer)
        health = found.write(
            layer,
            before=Health.of_nothing(),
            device=choose_device(device),
            workers=cpu_limit(),
            keep=_nowhere,
            progress=progress,
            stop=stop,
        )
        if doubted := doubt(health, None):
            progress.say(f"warning: {doubted}")
    return ObjectLabelReport(stores=stores, layer=layer, patches=found.patches, health=health)


def _nowhere(health: Health) -> None:
    """Keep nothing: only this call tells of it."""


def _rules_of(model: Path) -> tuple[PseudoRules, bool]:
    """Return what of a model is believed, and whether it has not learnt from pseudo-labels itself."""
    # Not the name of a shipped one, which would lie in the folder that this is called from.
    folder = locate(str(model)).resolve()
    # Stages have settings of their own, which say nothing of that, beside those of the run.
    for run in reversed((folder, *folder.parents[: _DEPTH - 1])):
        try:
            settings = json.loads((run / CONFIG).read_bytes())
        except (OSError, ValueError):
            # There is none, or it is something else's.
            continue
        if isinstance(settings, dict) and settings.get("method") == NAME:
            options = load(LabelEfficientOptions, options=settings["options"])
            return options.pseudo, _TEACHER in folder.relative_to(run).parts
    return PseudoRules(), True


def _pool(stores: Sequence[PatchSet], mpp: float | None) -> Pool:
    """Return the patches to label."""
    used: list[Source] = []
    free = []
    for store in stores:
        given = [name for name, info in store.layers.items() if info.kind == "instances" and not info.made_by]
        is_labelled = np.zeros(len(store), dtype=np.bool_)
        for name in given:
            used.append(Source(patches=store, layer=name, indices=np.flatnonzero(store.is_labelled(name))))
            is_labelled |= store.is_labelled(name)
        is_marked = np.isin(store.splits, ["val", "test", SYNTHETIC])
        rest = np.flatnonzero(is_marked & ~is_labelled), np.flatnonzero(~is_marked & ~is_labelled)
        marked, own = (UnlabelledSource(patches=store, layer="", indices=indices, mpp=mpp) for indices in rest)
        used.append(marked)
        free.append(own)
    return apart(stores, free, used)
