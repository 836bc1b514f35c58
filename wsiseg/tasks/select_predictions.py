"""Which predictions belong to the patches of a selection, and how unsure they are of each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.errors import DataError, StoreError
from wsiseg.inference.prediction import PREDICTION
from wsiseg.inference.summary import SUMMARY, settled
from wsiseg.selection.uncertainty import mean_uncertainty
from wsiseg.stores.mask_store import MaskStore

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.inference.summary import Json
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.stores.patch_store import PatchStore

# Edges of canvases are rounded, and so are those of patches.
_BEYOND_PX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """The predictions of slides or images, each by its store and its name there.

    Parameters
    ----------
    folders
        Where each prediction lies, by number of the store and name of the slide or image.
    mark
        Hash of all that they depend on.
    """

    folders: dict[tuple[int, str], Path]
    mark: str

    def uncertainty(self, patches: PatchSet, progress: Progress, stop: Stop) -> NDArray[np.float32]:
        """Return how unsure a model was of each patch, 0 … 1, (N,); 0 where there is no prediction.

        Raises
        ------
        DataError
            If patches lie beyond their prediction.
        StoreError
            If a prediction is damaged.
        StoppedError
            If `stop` was requested.
        """
        found = np.zeros(len(patches), dtype=np.float32)
        first = 0
        with progress.task("uncertainty", total=len(patches), unit="patches") as advance:
            for at, store in enumerate(patches.stores):
                for parent in store.meta.parents:
                    own = np.flatnonzero(store.parents == parent)
                    if (at, parent) in self.folders:
                        found[first + own] = _uncertainty(self.folders[at, parent], store, own)
                    advance(len(own))
                    if stop.is_requested:
                        raise stop.error()
                first += len(store)
        return found


def find_predictions(patches: PatchSet, folder: Path) -> Predictions:
    """Return the predictions of the slides and images that patches were cut from.

    Parameters
    ----------
    patches
        All stores.
    folder
        Output of wsiseg predict, with a folder for each slide; or one of these.

    Raises
    ------
    DataError
        If there is none of any slide, or one is of another slide of the same name.
    """
    folders, plans = {}, {}
    for at, store in enumerate(patches.stores):
        for parent in store.meta.parents:
            name = parent.rpartition("/")[2]
            place = folder if folder.resolve().name == name and (folder / SUMMARY).exists() else folder / name
            if not (place / SUMMARY).exists():
                continue
            plan = _plan(place / SUMMARY)
            if store.meta.slide is not None and plan["slide"] != store.meta.slide.fingerprint:
                raise DataError(
                    "the prediction is of another slide than the patches", where=place, mend="Predict this one"
                )
            folders[at, parent] = place
            plans[f"{at} {parent}"] = plan
    if not folders:
        names = [parent for store in patches.stores for parent in store.meta.parents]
        raise DataError(
            f"there is no finished prediction of {names[0]}" + (f" or {len(names) - 1} others" if names[1:] else ""),
            where=folder,
            mend="Pass the output folder of wsiseg predict on the same slides",
        )
    digest = hashlib.blake2b(json.dumps(plans, sort_keys=True).encode(), digest_size=16)
    return Predictions(folders=folders, mark=digest.hexdigest())


def _plan(path: Path) -> Json:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))["plan"]
        return {**settled(plan), "slide": plan["slide"]}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError("the summary is damaged", where=path, mend="Predict the slide again") from error


def _uncertainty(folder: Path, store: PatchStore, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    prediction = MaskStore.open(folder / PREDICTION)
    downsample = 1.0 if store.meta.grid is None else store.meta.grid.downsample
    corners = store.windows[indices]
    ratio = downsample / prediction.canvas.scale.downsample
    boxes = np.concatenate((corners, corners + store.extents[indices]), axis=1) * ratio
    size = prediction.canvas.size
    if (boxes[:, 2:] > np.array((size.width, size.height)) + _BEYOND_PX * max(1, ratio)).any():
        raise DataError(f"patches lie beyond the prediction, which has {size} pixels", where=folder)
    return mean_uncertainty(prediction, boxes)
