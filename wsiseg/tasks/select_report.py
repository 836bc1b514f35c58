"""The page and the pictures of a selection."""

from __future__ import annotations

import shlex
import shutil
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.errors import StoreError
from wsiseg.tasks.pictures import png, render
from wsiseg.tasks.select_files import PATCHES, ROIS, STANDING_BY, TABLE, file_name, is_table, write_pictures, write_rois
from wsiseg.tasks.select_pictures import cluster_colours, colours, contact_sheet, patch_map, uncertainty_colours

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.progress import Progress
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.stores.patch_store import PatchStore
    from wsiseg.tasks.select_files import Row

PAGE: Final = "selection.html"
SHEET: Final = "contact_sheet.png"
CLUSTER_MAP: Final = "cluster_map"
UNCERTAINTY_MAP: Final = "uncertainty_map"
# Pages are mailed about, and pixels of patches that stand by need not be counted.
_MOST_MAPS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """What there is to show.

    Parameters
    ----------
    rows
        Chosen patches, then those that stand by.
    cluster
        Of each patch of the stores, from 1; 0 for those that could not be chosen.
    uncertainty
        Of what was predicted of each patch that could be chosen, 0 … 1, and 0 for the others; None if it had no say.
    strategy, encoder
        Names; no encoder where none was needed.
    removed
        How many patches each rule left out.
    pool
        Patches that could be chosen.
    labelled_fraction
        Pixels of the chosen patches, over `tissue_px`.
    tissue_px
        Pixels of tissue.
    mpp
        Micrometres per pixel, or None.
    origin
        What boxes are counted from.
    """

    rows: tuple[Row, ...]
    cluster: NDArray[np.int32]
    uncertainty: NDArray[np.float32] | None
    strategy: str
    encoder: str
    removed: dict[str, int]
    pool: int
    labelled_fraction: float
    tissue_px: int
    mpp: float | None
    origin: str


def write_report(folder: Path, patches: PatchSet, selection: Selection, progress: Progress) -> None:
    """Write the page, the contact sheet, the maps, the chosen patches as PNG, and the boxes for QuPath."""
    chosen = [row for row in selection.rows if row.rank == 1]
    images = _images(patches, chosen)
    _clear(folder)
    write_pictures(folder, chosen, images)
    write_bytes(folder / SHEET, contact_sheet(chosen, images))
    boxes = write_rois(folder, patches, chosen, name=ROIS, origin=selection.origin)
    standing_by = [row for row in selection.rows if row.rank > 1]
    write_rois(folder, patches, standing_by, name=STANDING_BY, origin=selection.origin)
    maps = _maps(folder, patches, selection, chosen, progress)
    shades = colours(max(row.cluster for row in chosen))
    groups = []
    for row, image in zip(chosen, images, strict=True):
        rest = [one for one in selection.rows if one.cluster == row.cluster and one.rank > 1]
        pictures = [(_caption(row), png(image))]
        pictures += [(_caption(one), png(other)) for one, other in zip(rest, _images(patches, rest), strict=True)]
        title = f"{row.patch}" + (f", for {row.members:,} patches" if "score" in row.scores else "")
        colour = "#" + bytes(shades[row.cluster - 1]).hex()
        groups.append({"number": row.cluster, "colour": colour, "title": title, "pictures": pictures})
    extents = patches.extents[[row.index for row in chosen]].astype(np.int64)
    width, height = extents.max(axis=0).tolist()
    most = "" if (extents == extents[0]).all() else "up to "
    mpp = selection.mpp
    facts = [
        {"value": f"{len(chosen)}", "label": f"patches of {most}{width} × {height} px"},
        {"value": f"{selection.labelled_fraction:.2%}", "label": "of the tissue's pixels"},
        {"value": f"{selection.pool:,}", "label": "patches to choose from"},
    ]
    if mpp is not None:
        facts.insert(1, {"value": f"{extents.prod(axis=1).sum() * mpp**2 / 1e6:.3g} mm²", "label": "to annotate"})
    page = render(
        "select.html.j2",
        groups=groups,
        strategy=selection.strategy,
        encoder=selection.encoder,
        how=_how(chosen),
        facts=facts,
        maps=maps,
        map_title="Where the clusters lie" if selection.uncertainty is None else "Where the prediction is uncertain",
        map_note="each patch in the colour of its cluster, the chosen ones in boxes."
        if selection.uncertainty is None
        else "the darker a patch, the less certain; clear where none could be chosen. The chosen ones are in boxes.",
        total=len(patches),
        removed=[(rule, count) for rule, count in selection.removed.items() if count],
        pool=selection.pool,
        **_next(patches, chosen, boxes, folder),
    )
    write_bytes(folder / PAGE, page)


def _how(chosen: list[Row]) -> str:
    """Return what speaks for the chosen patches."""
    others = (
        f"What follows may take its place if it is of no use, such as for an artefact: give it the rank 1 in {TABLE} "
        f"instead, and its box, from {STANDING_BY}, the class Region*."
    )
    if any("uncertainty" in row.scores for row in chosen):
        return (
            "In each of them the prediction is less certain than around it. Uncertainty is the mean entropy of a "
            f"patch, 0 to 1. {others}"
        )
    if any(row.scores for row in chosen):
        return (
            "Each stands for the patches of its cluster. Scores say how far a patch is from what is typical of its "
            f"cluster, so lower is better. {others}"
        )
    return others


def check_own(folder: Path, *marks: str) -> None:
    """See that a folder which is not that of a selection holds nothing that a selection would take the place of.

    Parameters
    ----------
    folder
        Of the selection.
    marks
        Files that only selections have.

    Raises
    ------
    StoreError
        If it holds something.
    """
    if is_table(folder / TABLE) or any((folder / mark).exists() for mark in marks):
        return
    names = (TABLE, PAGE, SHEET)
    in_the_way = next((path for path in [folder / name for name in names] + _removed(folder) if path.exists()), None)
    if in_the_way is not None:
        raise StoreError(
            f"a selection would write its own {in_the_way.name} here, and what is there is none of a selection",
            where=in_the_way,
            mend="Choose another --output",
        )


def _removed(folder: Path) -> list[Path]:
    """Return what another selection may have that a new one does not write over."""
    boxes = [folder / f"{name}.geojson" for name in (ROIS, STANDING_BY)]
    return [*boxes, *(folder / name for name in (PATCHES, ROIS, STANDING_BY, CLUSTER_MAP, UNCERTAINTY_MAP))]


def _clear(folder: Path) -> None:
    """Remove the files of another selection that have names of their own."""
    for path in _removed(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _next(patches: PatchSet, chosen: list[Row], boxes: list[Path], folder: Path) -> dict[str, str]:
    """Return what to do with the selection, in words and as commands, one for each store with chosen patches."""
    words, commands = {}, []
    for store, rows in _by_store(patches, chosen):
        if store.meta.grid is None:
            words["images"] = (
                f"Draw label images of the pictures in {PATCHES}/, each a PNG of the same name in which an object has "
                "a number of its own, into labels/."
            )
            drawn = "labels/"
        else:
            where = boxes[0].relative_to(folder) if len(boxes) == 1 else f"each file in {boxes[0].parent.name}/"
            name = f"{file_name(rows[0][1].slide)}.geojson"
            words["slides"] = (
                f"Drag {where} onto its slide in QuPath, outline everything in the boxes, and export as GeoJSON to "
                "annotations/, under the name of the slide."
            )
            drawn = f"annotations/{name}"
        commands.append(shlex.join(("wsiseg", "label", str(store.path), "--from", drawn, "--as", "instances")))
    return {"next_step": f"{' '.join(words.values())} Then", "commands": "\n".join(commands)}


def _by_store(patches: PatchSet, chosen: list[Row]) -> Iterator[tuple[PatchStore, list[tuple[int, Row]]]]:
    """Yield stores with chosen patches, and these with their places in the store."""
    first = 0
    for store in patches.stores:
        rows = [(row.index - first, row) for row in chosen if first <= row.index < first + len(store)]
        first += len(store)
        if rows:
            yield store, rows


def _maps(
    folder: Path, patches: PatchSet, selection: Selection, chosen: list[Row], progress: Progress
) -> list[tuple[str, str]]:
    """Write a map of each slide with chosen patches, and return name and picture of each for the page."""
    maps, without = [], 0
    if not (selection.cluster > 0).any():
        return []
    if selection.uncertainty is None:
        place, shades = CLUSTER_MAP, cluster_colours(selection.cluster)
    else:
        place, shades = UNCERTAINTY_MAP, uncertainty_colours(selection.uncertainty)
    for store, rows in _by_store(patches, chosen):
        first = rows[0][1].index - rows[0][0]
        picture = patch_map(store, shades[first : first + len(store)], rows)
        if picture is None:
            without += 1
            continue
        name = rows[0][1].slide
        data = png(picture)
        write_bytes(folder / place / f"{file_name(name)}.png", b64decode(data))
        maps.append((name, data))
    if without:
        progress.say("no map of the patches: they are of images, not of a slide")
    return maps[:_MOST_MAPS]


def _images(patches: PatchSet, rows: list[Row]) -> list[NDArray[np.uint8]]:
    """Return what each patch has of its slide."""
    if not rows:
        return []
    found = patches.read_images(np.array([row.index for row in rows]))
    extents = patches.extents[[row.index for row in rows]].tolist()
    return [image[:height, :width] for image, (width, height) in zip(found, extents, strict=True)]


def _caption(row: Row) -> str:
    told = [f"{name} {row.scores[name]:.4g}" for name in ("score", "uncertainty") if name in row.scores]
    return ", ".join([f"{row.rank}: {row.patch}", *told[:1]])
