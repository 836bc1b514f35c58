"""The files of a selection: the table, the boxes to annotate in QuPath, and the patches as pictures."""

from __future__ import annotations

import csv
import io
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from wsiseg import __version__
from wsiseg.atomic import write_bytes
from wsiseg.errors import DataError
from wsiseg.rasters import png_bytes
from wsiseg.stores.patch_meta import SYNTHETIC
from wsiseg.stores.patches import patch_names, patch_places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.stores.patches import Place

TABLE: Final = "selection.csv"
PATCHES: Final = "patches"
ROIS: Final = "rois"
GEOJSON: Final = f"{ROIS}.geojson"
STANDING_BY: Final = "runners-up"
SCORES: Final = ("representativeness", "dominance", "spread", "score", "uncertainty")
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/wsiseg/wsiseg/select")
# QuPath's own class of regions, in which `wsiseg label` takes everything to be drawn, and its colour.
_REGION: Final = "Region*"
_BLUE: Final = (0, 0, 180)
# A class that is none, as its star says: boxes that nobody chose must not seem to be annotated.
_STANDING_BY: Final = "Runner-up*"
_GREY: Final = (120, 120, 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A patch that is chosen, or stands by.

    Parameters
    ----------
    index
        Of the patch in all stores.
    patch
        Its name.
    slide
        The slide or image that it was cut from.
    x, y
        Level-0 pixels of its upper left corner.
    cluster, members
        The group that it stands for, from 1, and how many patches that has.
    rank
        1 if it is chosen; those that follow may take the place of the first.
    scores
        By name; lower is better, but for ``uncertainty``.
    """

    index: int
    patch: str
    slide: str
    x: int
    y: int
    cluster: int
    members: int
    rank: int
    scores: Mapping[str, float]


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as CSV; scores that a strategy does not have stay empty."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("patch", "slide", "x", "y", "cluster", "members", *SCORES, "rank"))
    for row in rows:
        scores = [f"{row.scores[name]:.6g}" if name in row.scores else "" for name in SCORES]
        writer.writerow((row.patch, row.slide, row.x, row.y, row.cluster, row.members, *scores, row.rank))
    write_bytes(path, file.getvalue().encode())


def is_table(path: Path) -> bool:
    """Tell whether a file is a table of `write_table`, whatever a spreadsheet has made of it."""
    try:
        # The names of its columns are readable in other encodings, too, whatever slides are called.
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            title = file.readline()
    except OSError:
        return False
    return {"patch", "cluster", "members", "rank"} <= set(re.split(r"[,;\t\s]", title))


def write_rois(folder: Path, patches: PatchSet, rows: Sequence[Row], *, name: str, origin: str) -> list[Path]:
    """Write boxes around patches as GeoJSON that QuPath opens, a file for each slide, and return these.

    Boxes are locked annotations, named after their patches, in level-0 pixels. Those of chosen patches are of the class
    ``Region*``; those of others are of ``Runner-up*``, which means nothing until somebody changes it.

    Parameters
    ----------
    folder
        Gets ``<name>.geojson``, or ``<name>/<slide>.geojson`` where there are several slides.
    patches
        All stores.
    rows
        The patches.
    name
        What the files are called.
    origin
        ``bounds`` to count from the scanned part of slides that name one, as QuPath does, or ``level0``.
    """
    slides = dict.fromkeys(row.slide for row in rows)
    written = []
    for slide in slides:
        path = folder / f"{name}.geojson" if len(slides) == 1 else folder / name / f"{file_name(slide)}.geojson"
        features = [
            _feature(row, box_of(patches, row.index, origin=origin), origin) for row in rows if row.slide == slide
        ]
        content = {
            "type": "FeatureCollection",
            "metadata": {"tool": f"wsiseg {__version__}", "origin": origin},
            "features": features,
        }
        write_bytes(path, orjson.dumps(content) + b"\n")
        written.append(path)
    return written


def box_of(patches: PatchSet, index: int, *, origin: str) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of what a patch has of its slide or image, in level-0 pixels."""
    starts = np.cumsum([0, *(len(store) for store in patches.stores)])
    owner = int(np.searchsorted(starts, index, side="right")) - 1
    store, local = patches.stores[owner], index - int(starts[owner])
    downsample = 1.0 if store.meta.grid is None else store.meta.grid.downsample
    corner = np.zeros(2)
    if origin == "bounds" and store.meta.slide is not None and store.meta.slide.bounds is not None:
        corner = np.array(store.meta.slide.bounds[:2])
    left, top = (store.windows[local] * downsample - corner).tolist()
    right, bottom = ((store.windows[local] + store.extents[local]) * downsample - corner).tolist()
    return left, top, right, bottom


def write_pictures(folder: Path, rows: Sequence[Row], images: Sequence[NDArray[np.uint8]]) -> None:
    """Write each patch as ``patches/<patch>.png``."""
    for row, image in zip(rows, images, strict=True):
        write_bytes(folder / PATCHES / f"{file_name(row.patch)}.png", png_bytes(image))


def file_name(name: str) -> str:
    """Return a name without what may not stand in the name of a file."""
    return re.sub(r'[\\/:*?"<>|]', "_", name)


def read_chosen(path: Path) -> list[dict[str, str]]:
    """Return the rows of the chosen patches in a table of selections, or all rows of one without ranks.

    Raises
    ------
    DataError
        If it is not in UTF-8.
    OSError
        If there is none.
    ValueError
        If it has no column ``patch``.
    """
    # Who takes another patch than the first does so in a spreadsheet, and these have habits of their own.
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        # Names of slides would be others in a wrong encoding, and nothing says which is right.
        raise DataError(
            "the file is not in UTF-8", where=path, mend='Save it as UTF-8, in a spreadsheet as "CSV UTF-8"'
        ) from error
    first = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    if "patch" not in (rows.fieldnames or ()):
        raise ValueError("it has no column patch")
    return [row for row in rows if row.get("rank", "1") == "1"]


def row_place(row: Mapping[str, str]) -> Place:
    """Return where a row of a table says that its patch lies; empty where it does not say."""
    return row.get("slide") or "", _whole(row.get("x") or ""), _whole(row.get("y") or "")


def _whole(number: str) -> str:
    """Return a number as it was written, whatever a spreadsheet has made of it, such as 1024.0."""
    try:
        return str(int(float(number)))
    except (ValueError, OverflowError):
        return number


def find_rows(rows: Sequence[Mapping[str, str]], patches: PatchSet) -> list[list[int]]:
    """Return the real patches that each row of a table means; see `match_rows`."""
    real = np.flatnonzero(patches.splits != SYNTHETIC).tolist()
    places, names = patch_places(patches), patch_names(patches)
    found = match_rows(rows, [places[index] for index in real], [names[index] for index in real])
    return [[real[at] for at in one] for one in found]


def match_rows(rows: Sequence[Mapping[str, str]], places: Sequence[Place], names: Sequence[str]) -> list[list[int]]:
    """Return which of some patches each row of a table means: by place if one lies there, else by name on its slide.

    Names alone would not do: they depend on what else was chosen from, and images in several folders may share one.
    Nor would places: a spreadsheet makes 1 of a slide that is called 001.
    """
    placed: dict[Place, list[int]] = {}
    named: dict[str, list[int]] = {}
    for at, (place, name) in enumerate(zip(places, names, strict=True)):
        placed.setdefault(place, []).append(at)
        named.setdefault(name, []).append(at)
    found = []
    for row in rows:
        place = row_place(row)
        by_name = [at for at in named.get(row["patch"], []) if _is_slide(place[0], places[at][0])]
        found.append(placed.get(place) or by_name)
    return found


def _is_slide(told: str, slide: str) -> bool:
    """Tell whether a table means a slide: by its name, by one that is the same number, or by none."""
    return told in ("", slide) or (told.isdecimal() and slide.isdecimal() and int(told) == int(slide))


def _feature(row: Row, box: tuple[float, float, float, float], origin: str) -> dict[str, Any]:  # Any: JSON
    # QuPath keeps hundredths of a pixel.
    left, top, right, bottom = (round(edge, 2) for edge in box)
    label, colour = (_REGION, _BLUE) if row.rank == 1 else (_STANDING_BY, _GREY)
    rank = "" if row.rank == 1 else f", rank {row.rank}"
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, f"{row.slide}/{row.patch}")),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "annotation",
            "name": f"{row.cluster}{rank}: {row.patch}",
            "classification": {"name": label, "color": list(colour)},
            "isLocked": True,
            "metadata": {
                "tool": f"wsiseg {__version__}",
                "origin": origin,
                "patch": row.patch,
                "cluster": str(row.cluster),
            },
        },
    }
