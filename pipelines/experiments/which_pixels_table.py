"""Write what ``which_pixels.sh`` has measured as a Markdown table: mean and standard deviation over the seeds.

    python which_pixels_table.py which_pixels_out/monuseg which_pixels_out/dsb2018 --csv which_pixels_results.csv

Scores are means over the test images, in points. What is added to the patches is compared with the stage before, from
the same patches; patches chosen by consistency with as many chosen by chance; all with all labels. Each seed is
compared with itself.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsiseg.atomic import write_bytes

POINTS = {"dice": "Dice", "aji": "AJI", "f1": "F1", "pq": "PQ"}
JUDGE = "aji"
FULL = "full"
# What is learnt from, each stage with all that the one before has.
STAGES = {"real": "chosen patches", "synthetic": "+ synthetic", "pseudo": "+ pseudo-labels"}
STRATEGIES = {"random": "chance", "cps": "consistency"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was learnt from; of all labels `patches` is 0."""

    patches: int
    strategy: str
    stage: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one training reached on the test images, 0 … 1, and the part of the pixels that had labels."""

    labelled: float
    scores: dict[str, float]


Results = dict[Row, dict[int, Result]]


def read(folder: Path) -> Results:
    """Return all results of one set of images, by row and seed."""
    found: Results = {}
    for path in sorted(folder.glob("seed*/*.json")):
        seed, name = int(path.parent.name.removeprefix("seed")), path.stem.split("-")
        scores = {key: one["value"] for key, one in json.loads(path.read_bytes())["mean"].items() if key in POINTS}
        labelled = 1.0
        if name == [FULL]:
            row = Row(patches=0, strategy="", stage=FULL)
        else:
            strategy, patches, stage = name
            row = Row(patches=int(patches), strategy=strategy, stage=stage)
            selection = path.parent / f"{strategy}-{patches}" / "selection" / "selection.json"
            labelled = json.loads(selection.read_bytes())["labelled_fraction"]
        found.setdefault(row, {})[seed] = Result(labelled=labelled, scores=scores)
    return found


def spread(values: list[float], *, digits: int = 1) -> str:
    """Return mean ± sd."""
    if not values:
        return "–"
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


def gains(found: Results, row: Row, base: Row) -> list[float]:
    """Return by how many points of AJI a row beats another, seed by seed."""
    own, other = found.get(row, {}), found.get(base, {})
    return [100 * (own[seed].scores[JUDGE] - other[seed].scores[JUDGE]) for seed in own.keys() & other.keys()]


def _place(row: Row) -> tuple[bool, int, int, int]:
    """Return what rows are sorted by: patches, strategy and stage, all labels last."""
    if not row.patches:
        return True, 0, 0, 0
    return False, row.patches, list(STRATEGIES).index(row.strategy), list(STAGES).index(row.stage)


def table(found: Results) -> list[str]:
    """Return the lines of the table of one set of images."""
    full, stages = Row(patches=0, strategy="", stage=FULL), list(STAGES)
    lines = [["patches", "labelled", "chosen by", "learnt from", *POINTS.values()]]
    lines[0] += ["AJI over the stage before", "AJI over chance", "of AJI from all labels", "n"]
    lines.append(["---"] * len(lines[0]))
    for row in sorted(found, key=_place):
        results = found[row]
        told = [spread([100 * result.scores[name] for result in results.values()]) for name in POINTS]
        before = stages[stages.index(row.stage) - 1] if row.stage in stages[1:] else ""
        stage = gains(found, row, Row(patches=row.patches, strategy=row.strategy, stage=before))
        chance = gains(found, row, Row(patches=row.patches, strategy="random", stage=row.stage))
        upper = found.get(full, {})
        shares = [
            100 * result.scores[JUDGE] / upper[seed].scores[JUDGE] for seed, result in results.items() if seed in upper
        ]
        labelled = f"{100 * np.mean([result.labelled for result in results.values()]):.1f} %"
        share = f"{spread(shares, digits=0)} %" if shares and row != full else "–"
        lines.append(
            [
                str(row.patches) if row.patches else "all",
                labelled,
                STRATEGIES.get(row.strategy, "–"),
                STAGES.get(row.stage, "all labels"),
                *told,
                spread(stage),
                spread(chance) if row.strategy == "cps" else "–",
                share,
                str(len(results)),
            ]
        )
    return ["| " + " | ".join(line) + " |" for line in lines]


def written(sets: dict[str, Results]) -> str:
    """Return every measurement as CSV."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["images", "patches", "labelled", "strategy", "stage", "seed", "score", "value"])
    lines.writerows(
        [name, row.patches or "all", f"{result.labelled:.4f}", row.strategy, row.stage, seed, score, f"{value:.4f}"]
        for name, found in sets.items()
        for row in sorted(found, key=_place)
        for seed, result in sorted(found[row].items())
        for score, value in result.scores.items()
    )
    return text.getvalue()


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--csv", type=Path, help="where to write every measurement")
    args = parser.parse_args()
    sets = {folder.resolve().name: read(folder) for folder in args.folders}
    if missing := [name for name, found in sets.items() if not found]:
        parser.error(f"{missing[0]} holds no scores")
    if args.csv is not None:
        write_bytes(args.csv, written(sets).encode())
    for name, found in sets.items():
        print("\n".join([f"#### {name}", "", *table(found), ""]))


if __name__ == "__main__":
    main()
