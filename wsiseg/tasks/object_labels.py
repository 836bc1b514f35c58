"""Pseudo-labels of objects in patches without labels: layers of the stores that are written once."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsiseg import checkpoint
from wsiseg.lock import locked
from wsiseg.methods.predictor import load_predictor
from wsiseg.training.pseudo_labels import PseudoLabeller, write_pseudo_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import torch

    from wsiseg.labels import LabelMap
    from wsiseg.methods.pseudo_objects import PseudoRules
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.tasks.train_pool import Pool
    from wsiseg.training.label_health import Health


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLabels:
    """What a model is to label, and what of it is believed.

    Parameters
    ----------
    model
        Folder of the teacher, or name of a shipped model.
    name
        Of the teacher, for people.
    labels
        Its classes.
    pool
        Patches to label, and the stores that they are in.
    rules, min_scores
        See `believed`.
    """

    model: Path | str
    name: str
    labels: LabelMap
    pool: Pool
    rules: PseudoRules
    min_scores: tuple[float, ...]

    @property
    def made_by(self) -> str:
        """Return a name that tells labels of other teachers, rules or patches apart."""
        pool = [(source.patches.fingerprint, source.indices.tolist(), source.scale) for _, source in self.pool]
        rules = self.rules.model_dump(mode="json")
        made_of = json.dumps([checkpoint.fingerprint(self.model), rules, self.min_scores, pool])
        mark = hashlib.blake2b(made_of.encode(), digest_size=4).hexdigest()
        # Models may have names that no layer can have.
        name = re.sub(r"[^\w.-]+", "-", self.name).lstrip(".-")
        return f"{name or 'model'}-{mark}"

    @property
    def patches(self) -> int:
        """Return how many patches there are to label."""
        return sum(len(source.indices) for _, source in self.pool)

    def are_in(self, layer: str) -> bool:
        """Tell whether all patches have labels in a layer."""
        return all(
            layer in patches.layers and bool(patches.is_labelled(layer)[source.indices].all())
            for patches, source in self.pool
        )

    def labeller(self, device: torch.device) -> PseudoLabeller:
        """Return the teacher on a device."""
        predictor = load_predictor(self.model, device=device)
        return PseudoLabeller(predictor, self.rules, min_scores=self.min_scores, device=device)

    def write(
        self,
        layer: str,
        *,
        before: Health,
        device: torch.device,
        workers: int,
        keep: Callable[[Health], None],
        progress: Progress,
        stop: Stop,
    ) -> Health:
        """Label all patches that have no labels in a layer, and return how sure the teacher was.

        See `write_pseudo_labels`.

        Raises
        ------
        BusyError
            If another process writes such a layer.
        StoppedError
            If `stop` was requested; what is labelled stays.
        """
        labeller = self.labeller(device)
        with ExitStack() as held:
            for path in sorted({store.path for patches, _ in self.pool for store in patches.stores}):
                held.enter_context(locked(path.with_name(f".{path.name}.{layer}.lock")))
            advance = held.enter_context(progress.task("pseudo-labels", total=self.patches, unit="patches"))
            return write_pseudo_labels(
                self.pool,
                labeller,
                layer,
                self.labels,
                made_by=self.made_by,
                before=before,
                workers=workers,
                advance=advance,
                keep=keep,
                stop=stop,
            )

    def remove(self, *layers: str) -> None:
        """Remove layers of pseudo-labels from the stores of the patches."""
        for layer in layers:
            remove_labels((patches for patches, _ in self.pool), layer)

    def find(self) -> None:
        """Look for layers that were written since the stores were opened, be it by another process."""
        for patches, _ in self.pool:
            for store in patches.stores:
                patches.layers.update(store.layers)


def remove_labels(stores: Iterable[PatchSet], layer: str) -> None:
    """Remove a layer of pseudo-labels from all stores that have it."""
    for patches in stores:
        if patches.layers.pop(layer, None) is not None:
            for store in patches.stores:
                store.remove_layer(layer)
