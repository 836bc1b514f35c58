"""What methods that know patches by their classes are trained and validated on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wsiseg.errors import ConfigError, DataError
from wsiseg.methods.base import TrainingFacts
from wsiseg.training.patch_batches import Known, known_patches, masked_patches
from wsiseg.training.sources import Source

if TYPE_CHECKING:
    from wsiseg.stores.image_labels import ImageLayerInfo
    from wsiseg.stores.patch_set import PatchSet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PatchData:
    """What is trained and validated on.

    Parameters
    ----------
    patches
        All stores.
    known
        Training patches.
    info
        Classes and white rule of the image labels.
    validation
        Patches with masks by which models are judged, or None.
    facts
        The same, as stages want it.
    """

    patches: PatchSet
    known: Known
    info: ImageLayerInfo
    validation: Source | None
    facts: TrainingFacts

    @property
    def fingerprint(self) -> str:
        """Return a hash of what is known of the training patches."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.known.indices.tobytes(), self.known.present.tobytes(), repr(self.info).encode()):
            digest.update(part)
        return digest.hexdigest()


def validated(data: PatchData) -> PatchData:
    """Return the validation patches as if they were to be trained on: they show what their masks hold.

    Raises
    ------
    DataError
        If there is none whose mask holds a class.
    """
    source = data.validation
    if source is None:
        raise DataError("no patch of the split val has a mask", mend="Leave --val out")
    known = masked_patches(source, len(data.info.labels))
    if len(known.indices) == 0:
        raise DataError("no mask of the split val holds a class", mend="Leave --val out")
    return replace(data, known=known)


def patch_data(patches: PatchSet, *, name: str, layer: str | None, training_data: dict[str, str]) -> PatchData:
    """Return what to train and to validate on.

    Patches of the split ``val`` that have masks, in a layer of the same name, judge models; those of ``train`` and
    of no split are learnt from.

    Raises
    ------
    ConfigError
        If there are several layers of image labels.
    DataError
        If there is none, or no training patch has labels.
    """
    known_layers = sorted(patches.image_layers)
    if not known_layers:
        raise DataError(
            "the stores do not tell which classes their patches show",
            mend="Make them with wsiseg ingest, or label patches with wsiseg label --as image",
        )
    if layer is None and len(known_layers) > 1:
        raise ConfigError(
            "the stores have several layers of image labels", mend=f"Pass --layer with one of {', '.join(known_layers)}"
        )
    chosen = layer or known_layers[0]
    if chosen not in patches.image_layers:
        raise ConfigError(
            f"there is no layer {chosen!r} of image labels",
            where="--layer",
            mend=f"There are: {', '.join(known_layers)}",
        )
    info = patches.image_layers[chosen]
    known = known_patches(patches, chosen, ("train", ""))
    mpp = patches.mpp
    validation = None
    if chosen in patches.layers and patches.layers[chosen].kind == "classes":
        held_out = np.flatnonzero((patches.splits == "val") & patches.is_labelled(chosen))
        if len(held_out):
            validation = Source(patches=patches, layer=chosen, indices=held_out, mpp=mpp)
    facts = TrainingFacts(
        name=name,
        kind="classes",
        labels=info.labels,
        mpp=mpp,
        crop_px=patches.patch_px,
        training_data=training_data,
        patches=len(patches),
        held_out=() if validation is None else tuple(validation.indices.tolist()),
        white=info.white,
    )
    return PatchData(patches=patches, known=known, info=info, validation=validation, facts=facts)
