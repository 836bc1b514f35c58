"""Masks of patches made of what they show: written into the stores, counted, and looked over."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg import checkpoint
from wsiseg.atomic import write_bytes
from wsiseg.errors import DataError
from wsiseg.lock import locked
from wsiseg.training.annotation import annotate, pixel_counts

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from wsiseg.methods.stages import Labeller
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.tasks.patch_data import PatchData

# Share of the pixels that are labelled, and share of each class among those, by layer.
Balance = dict[str, dict[str, float]]

BALANCE: Final = "pseudo-labels.json"
COVERAGE: Final = "coverage"
_BATCH: Final = 8
# Of the pixels that a class would have if patches were shared out evenly among the classes that they show, it has fewer
# than this part only where something went wrong.
_COLLAPSED: Final = 0.02


def layer_names(data: PatchData, model: Path, layers: tuple[str, ...]) -> dict[str, str]:
    """Return the name in the stores of each layer that a model makes.

    Part of it is a hash of the model and of what is known of the patches, so that masks of an
    older classifier, or of other labels, are never taken for new ones.
    """
    made_of = f"{checkpoint.fingerprint(model)} {data.fingerprint}"
    mark = hashlib.blake2b(made_of.encode(), digest_size=4).hexdigest()
    # Models may have names that no layer can have.
    name = re.sub(r"[^\w.-]+", "-", checkpoint.read_card(model).name).lstrip(".-")
    return {layer: f"{name or 'model'}-{mark}-{layer}" for layer in layers}


def write_masks(
    data: PatchData,
    labeller: Labeller,
    names: dict[str, str],
    *,
    device: torch.device,
    with_confidence: bool = False,
    overwrite: bool = False,
    progress: Progress,
    stop: Stop,
) -> int:
    """Label the training patches, and return how many were not labelled before; see `annotate`.

    Raises
    ------
    BusyError
        If another process writes the same layers.
    """
    # The same of all layers.
    (made_by,) = {name.removesuffix(f"-{layer}") for layer, name in names.items()}
    with ExitStack() as locks:
        for store in data.patches.stores:
            # Of these layers alone: trainings that run side by side write layers of their own.
            locks.enter_context(locked(store.path.with_name(f".{store.path.name}.{min(names.values())}.lock")))
        return annotate(
            data.known,
            labeller,
            names,
            data.info.labels,
            white=data.info.white,
            made_by=made_by,
            batch_size=_BATCH,
            device=device,
            with_confidence=with_confidence,
            overwrite=overwrite,
            progress=progress,
            stop=stop,
        )


def check_masks(data: PatchData, names: dict[str, str], *, where: Path, stage: str) -> None:
    """See that all training patches have masks, which another process may have written.

    Raises
    ------
    DataError
        If some have none.
    """
    for store in data.patches.stores:
        data.patches.layers.update(store.layers)
    for name in names.values():
        if name not in data.patches.layers or not data.patches.is_labelled(name)[data.known.indices].all():
            raise DataError(
                f"the stage {stage} has not been run, or with other options",
                where=where,
                mend=f"Add {stage} to --stages",
            )


def balance(data: PatchData, names: dict[str, str], progress: Progress, stop: Stop) -> Balance:
    """Return how often each class is labelled, and warn of classes that have gone.

    Raises
    ------
    StoppedError
        If `stop` was requested.
    """
    labels, present = data.info.labels.labels, data.known.present
    shown, even = present.mean(axis=0), (present / present.sum(axis=1, keepdims=True)).mean(axis=0)
    told: Balance = {}
    for layer, name in names.items():
        counts = pixel_counts(data.known, name, stop)
        labelled = counts[: len(labels)]
        with np.errstate(invalid="ignore"):
            shares = labelled / labelled.sum()
        told[layer] = {COVERAGE: float(labelled.sum() / counts.sum())}
        told[layer] |= {label.name: float(share) for label, share in zip(labels, shares, strict=True)}
        progress.say(f"{layer}: " + ", ".join(f"{key} {share:.1%}" for key, share in told[layer].items()))
        for label, share, part, expected in zip(labels, shares, shown, even, strict=True):
            # Written so that no number at all counts as too few.
            if part > 0 and not share >= _COLLAPSED * expected:
                found = f"is in {part:.0%} of the patches and has {share:.2%} of the labelled pixels in {layer}"
                progress.say(f"warning: {label.name} {found}")
    return told


def write_balance(told: Balance, folder: Path) -> None:
    """Write what `balance` found into the folder of a run."""
    write_bytes(folder / BALANCE, json.dumps(told, indent=1).encode() + b"\n")
