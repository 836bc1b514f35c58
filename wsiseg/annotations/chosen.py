"""Boxes around patches that `wsiseg select` has chosen, which say what they were drawn on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wsiseg.annotations.features import is_region
from wsiseg.annotations.files import load_geojson, metadata_of
from wsiseg.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def check_slide(path: Path, slide: str) -> None:
    """Raise if boxes around patches are in a file, and none of them is of this slide.

    Boxes of the class ``Region*`` name their patches in metadata, whatever an annotator calls them. Of the names only
    the slide counts: where patches lie on it differs between stores.

    Parameters
    ----------
    path
        See `wsiseg.annotations.features.read_features`.
    slide
        Slide or image; without its folders, as `wsiseg.stores.patches.patch_names` calls it.

    Raises
    ------
    DataError
        If the file is missing, no GeoJSON, or of another slide.
    """
    patches, slide = _patches(path), slide.rpartition("/")[2]
    if not patches or any(_is_of(patch, slide) for patch in patches):
        return
    raise DataError(
        f"its boxes are of patches such as {patches[0]}, none of {slide}: they were drawn on another slide",
        where=path,
        mend="Name the store of that slide, or say --set other_slide=true if it was renamed since",
    )


def _patches(path: Path) -> list[str]:
    """Return the names of the patches whose boxes are in a file."""
    named = [(metadata_of(feature).get("patch"), feature) for feature in load_geojson(path).features]
    try:
        return [patch for patch, feature in named if isinstance(patch, str) and is_region(feature["properties"])]
    except (TypeError, AttributeError):
        # A broken class; whoever reads the features tells which one.
        return []


def _is_of(patch: str, slide: str) -> bool:
    # A name has a place if its slide has several patches, and these may have been others than now.
    return patch == slide or re.fullmatch(rf"{re.escape(slide)}-\d+-\d+", patch) is not None
