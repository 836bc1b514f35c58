"""Write what studies of few masks have measured as Markdown tables: mean and standard deviation over the seeds.

    python few_masks_table.py glands nuclei hippocampus --csv few_masks_results.csv

Each argument is a folder that ``wsiseg budget`` has made. The gain of a method is that over the same training from the
labels alone, on the same labelled images: the variant NAME-alone of the method NAME, or else supervised learning.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# What is shown of each score, the first of which are in points, and the title of its column.
POINTS = {
    "dice": "Dice",
    "object_f1": "object F1",
    "object_dice": "object Dice",
    "aji": "AJI",
    "f1": "F1",
    "pq": "PQ",
    "jaccard": "Jaccard",
}
LENGTHS = {"object_hausdorff": "object Hausdorff, µm", "hd95": "95HD, mm", "asd": "ASD, mm", "assd": "ASSD, mm"}
FIRST = "dice"
ALONE = "-alone"
SUPERVISED = "supervised"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one training reached on the test images; scores of objects and classes are 0 … 1."""

    method: str
    images: float
    seed: int
    scores: dict[str, float]


def read(study: Path) -> dict[str, list[Cell]]:
    """Return what was measured, by how much was labelled, from the least."""
    found: defaultdict[str, list[Cell]] = defaultdict(list)
    for path in sorted(study.glob("cells/*/*/seed*/scores.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        found[cell["size"]].append(
            Cell(method=cell["method"], images=cell["images"], seed=cell["seed"], scores=cell["scores"])
        )
    return dict(sorted(found.items(), key=lambda item: np.mean([cell.images for cell in item[1]])))


def floor_of(method: str, methods: set[str]) -> str | None:
    """Return what a method is to be compared with; None for what learns from labels alone."""
    if method == SUPERVISED or method.endswith(ALONE):
        return None
    return next((name for name in (method + ALONE, SUPERVISED) if name in methods), None)


def by_method(cells: list[Cell]) -> dict[str, dict[int, dict[str, float]]]:
    """Return the scores of trainings by method and seed."""
    found: defaultdict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for cell in cells:
        found[cell.method][cell.seed] = cell.scores
    return dict(found)


def ordered(methods: set[str]) -> list[str]:
    """Return methods in their order: supervised learning, then each method after its labels alone."""
    return sorted(methods, key=lambda name: (name != SUPERVISED, name.removesuffix(ALONE), not name.endswith(ALONE)))


def gains_of(method: str, methods: dict[str, dict[int, dict[str, float]]]) -> list[float]:
    """Return how many points a method gains over labels alone with each seed that both have."""
    base = methods.get(floor_of(method, set(methods)) or "", {})
    own = methods.get(method, {})
    return [100 * (scores[FIRST] - base[seed][FIRST]) for seed, scores in own.items() if seed in base]


def labelled(size: str, cells: list[Cell]) -> str:
    """Return how much was labelled, in words."""
    share = f" ({size.replace('%', ' %')})" if size.endswith("%") else ""
    return f"{np.mean([cell.images for cell in cells]):g}{share}"


def as_markdown(lines: list[list[str]]) -> list[str]:
    """Return the lines of a table."""
    return ["| " + " | ".join(line) + " |" for line in lines]


def spread(values: list[float], *, factor: float = 1.0) -> str:
    """Return mean ± sd of what is known."""
    known = factor * np.array([value for value in values if value is not None and not np.isnan(value)])
    if len(known) == 0:
        return "–"
    return f"{known.mean():.1f} ± {known.std(ddof=1):.1f}" if len(known) > 1 else f"{known[0]:.1f}"


def in_short(found: dict[str, list[Cell]]) -> list[str]:
    """Return the lines of a table of the first score of a study: a method a line, with its gain over labels alone."""
    by_size = {size: by_method(cells) for size, cells in found.items()}
    lines = [["method", *(labelled(size, cells) for size, cells in found.items())]]
    lines.append(["---"] * len(lines[0]))
    for method in ordered({method for methods in by_size.values() for method in methods}):
        told = []
        for methods in by_size.values():
            own, gains = methods.get(method, {}), gains_of(method, methods)
            gain = f" ({np.mean(gains):+.1f})" if gains else ""
            told.append(spread([scores[FIRST] for scores in own.values()], factor=100) + gain)
        lines.append([method, *told])
    return as_markdown(lines)


def table(found: dict[str, list[Cell]]) -> list[str]:
    """Return the lines of the table of one study."""
    names = [
        name for name in (*POINTS, *LENGTHS) if any(name in cell.scores for cells in found.values() for cell in cells)
    ]
    titles = [(POINTS | LENGTHS)[name] for name in names]
    lines = [["labelled", "method", titles[0], f"{titles[0]} over labels alone", *titles[1:], "n"]]
    lines.append(["---"] * len(lines[0]))
    for size, cells in found.items():
        methods = by_method(cells)
        for method in ordered(set(methods)):
            own = methods[method]
            told = [
                spread([scores[name] for scores in own.values()], factor=100 if name in POINTS else 1) for name in names
            ]
            gain = spread(gains_of(method, methods))
            lines.append([labelled(size, cells), method, told[0], gain, *told[1:], str(len(own))])
    return as_markdown(lines)


def written(studies: dict[str, dict[str, list[Cell]]]) -> str:
    """Return every measurement as CSV."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["study", "labelled", "images", "method", "seed", "score", "value"])
    lines.writerows(
        [study, size, f"{cell.images:g}", cell.method, cell.seed, name, f"{value:.6f}"]
        for study, found in studies.items()
        for size, cells in found.items()
        for cell in sorted(cells, key=lambda cell: (cell.method, cell.seed))
        for name, value in cell.scores.items()
        if value is not None
    )
    return text.getvalue()


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--csv", type=Path, help="where to write every measurement")
    args = parser.parse_args()
    studies = {study.resolve().name: read(study) for study in args.studies}
    if missing := [name for name, found in studies.items() if not found]:
        parser.error(f"{missing[0]} holds no scores")
    if args.csv is not None:
        args.csv.write_text(written(studies), encoding="utf-8")
    for name, found in studies.items():
        print("\n".join([f"#### {name}", "", *in_short(found), "", *table(found), ""]))


if __name__ == "__main__":
    main()
