"""The trainings of a study that are done, as they lie on disk."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.checkpoint import CARD, read_card
from wsiseg.config import flattened
from wsiseg.heads.registry import head_options
from wsiseg.methods.cards import SEMANTIC
from wsiseg.nets.factory import OURS
from wsiseg.tasks.train_job import CONFIG, LABELLED, ROLES
from wsiseg.training.training_run import BEST, LAST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wsiseg.checkpoint import ModelCard

CELLS: Final = "cells"
SCORES: Final = "scores.json"
FAILED: Final = "failed.json"
_DIGITS: Final = 6
# What does not change what is learnt.
FREE: Final = frozenset({"fit.num_workers", "fit.save_interval_s"})
# That, and what differs from draw to draw.
_OWN: Final = FREE | {"labelled", "split_seed", "name", "baseline", "fit.seed", "fit.log_every"}
# What the model of a training tells better than its settings, which may have left it open.
_BY_CARD: Final = re.compile(r"options\.(arch|encoder|head|head_options|normalisation|tile_px|halo_px)(\..+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training.

    Parameters
    ----------
    method, size, images, seed
        How, with what share of the labels, which are so many images (or what else is the `unit`) that it learnt from,
        and with which draw.
    steps
        Updates behind the model.
    scores
        On the test patches, by name, 0 … 1 but for distances; NaN where unknown.
    held_out
        Labelled images by which the model was chosen, beside those that it learnt from.
    unit
        What is drawn and counted: patients, slides, images, volumes or patches.
    lacks_unlabelled
        Whether the method learns from images without labels, and none were left.
    """

    method: str
    size: str
    images: int
    seed: int
    steps: int
    scores: dict[str, float]
    held_out: int = 0
    unit: str = "images"
    lacks_unlabelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A training that failed.

    Parameters
    ----------
    method, size, seed
        See `Cell`.
    why
        What went wrong.
    """

    method: str
    size: str
    seed: int
    why: str


def cell_folder(output: Path, method: str, size: str, seed: int) -> Path:
    """Return where a training of a study lies."""
    return output / CELLS / method / size.replace("%", "pc") / f"seed{seed}"


def counted(folder: Path, unit: str) -> tuple[int, int]:
    """Return from how many labelled images, or what else is drawn, a training learnt, and by how many it was judged.

    Parameters
    ----------
    folder
        Of the training.
    unit
        See `Cell`.
    """
    drawn = len((folder / LABELLED).read_text(encoding="utf-8").splitlines())
    if not (folder / ROLES).exists():
        # Begun with a version that did not tell of volumes, which are all learnt from.
        return drawn, 0
    with (folder / ROLES).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    learnt, judges = (
        sum(int(row["patches"]) for row in rows if row["role"] == role)
        if unit == "patches"
        else len({row["image" if unit == "images" else "group"] for row in rows if row["role"] == role})
        for role in ("train-labelled", "val")
    )
    # Of what was drawn some may judge, and synthetic patches, which nobody has labelled, may be added to it.
    return min(drawn, learnt), judges


def write_failure(folder: Path, failure: Failure) -> None:
    """Write down why a training failed, until it is made."""
    write_bytes(folder / FAILED, json.dumps(asdict(failure), indent=2, ensure_ascii=False).encode() + b"\n")


def read_failures(output: Path, methods: Sequence[str]) -> tuple[Failure, ...]:
    """Return the trainings of some methods that failed and were not made since, method by method."""
    paths = [path for method in methods for path in sorted((output / CELLS / method).glob(f"*/seed*/{FAILED}"))]
    return tuple(Failure(**json.loads(path.read_bytes())) for path in paths if not (path.parent / SCORES).exists())


def write_cell(folder: Path, cell: Cell) -> None:
    """Write down what a training came to."""
    scores = {name: None if math.isnan(value) else round(value, _DIGITS) for name, value in cell.scores.items()}
    content = {**asdict(cell), "scores": scores}
    write_bytes(folder / SCORES, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")


def read_cells(output: Path, methods: Sequence[str]) -> tuple[Cell, ...]:
    """Return all trainings of some methods that are done: method by method, by images and seed.

    Of those that a method made twice, with one draw of as many images under two sizes, one is returned.
    """
    found: dict[tuple[str, int, int], Cell] = {}
    for method in methods:
        cells = [_read(path) for path in sorted((output / CELLS / method).glob(f"*/seed*/{SCORES}"))]
        for cell in sorted(cells, key=lambda cell: (cell.images, cell.seed, float(cell.size.rstrip("%")))):
            found.setdefault((method, cell.images, cell.seed), cell)
    return tuple(found.values())


def differences(output: Path, cells: Sequence[Cell], each: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the settings that were not the same for all methods, as their models have them.

    Options that only some methods have are left out, unless they were asked for.

    Parameters
    ----------
    output
        Folder of the study.
    cells
        Its trainings.
    each
        What was asked for of single methods.

    Returns
    -------
    dict[str, list[str]]
        For each setting what it was for each method, in their order; several values are parted by commas.
    """
    methods = list(dict.fromkeys(cell.method for cell in cells))
    used = [_settings(output, [cell for cell in cells if cell.method == method]) for method in methods]
    shared = set.intersection(*map(set, used)) if used else set()
    asked = {key for name, own in each.items() if name in methods for key in flattened(own)}
    table = {
        key: [", ".join(sorted(settings.get(key, "–"))) for settings in used] for key in sorted(shared | asked - _OWN)
    }
    if table.get("method") == methods:
        del table["method"]
    return {key: row for key, row in table.items() if len(set(row)) > 1}


def _settings(output: Path, cells: Sequence[Cell]) -> dict[str, set[str]]:
    """Return the values of each setting of the trainings of a method, as JSON."""
    found: dict[str, set[str]] = {}
    for cell in cells:
        folder = cell_folder(output, cell.method, cell.size, cell.seed)
        if not (folder / CONFIG).exists():
            continue
        settings = flattened(json.loads((folder / CONFIG).read_bytes()))
        settings = {key: value for key, value in settings.items() if not _BY_CARD.fullmatch(key)} | _of_model(folder)
        for key in settings.keys() - _OWN:
            value = settings[key]
            found.setdefault(key, set()).add(value if isinstance(value, str) else json.dumps(value))
    return found


def _of_model(folder: Path) -> dict[str, Any]:
    """Return what settings came to in a trained model, also those that were left to its method."""
    model = next((folder / kind for kind in (BEST, LAST) if (folder / kind / CARD).exists()), None)
    if model is None:
        return {}
    card = read_card(model)
    head = {} if card.head is None else head_options(card.head.kind, **card.head.options).model_dump(mode="json")
    options = {
        "head": SEMANTIC if card.head is None else card.head.kind,
        "head_options": head,
        "normalisation": card.normalisation.model_dump(mode="json"),
        "tile_px": card.tile_px,
        "halo_px": card.halo_px,
    }
    return {"network": _network(card), **flattened({"options": options})}


def _network(card: ModelCard) -> str:
    inner = card.net.get("net")
    # A network that was taught a second task has the one that a user chose inside.
    described = inner if isinstance(inner, dict) else card.net
    arch, encoder = str(described["arch"]), str(described.get("encoder") or "")
    return f"{arch} ({encoder})" if encoder and arch != OURS else arch


def _read(path: Path) -> Cell:
    content = json.loads(path.read_bytes())
    scores = {name: np.nan if value is None else float(value) for name, value in content["scores"].items()}
    return Cell(**{**content, "scores": scores})
