"""Write what ``which_pixels.sh`` has measured as a Markdown table: mean and standard deviation over the seeds.

    python which_pixels_table.py which_pixels_out/monuseg which_pixels_out/dsb2018 --csv which_pixels_results.csv
    python which_pixels_table.py --csv which_pixels_results.csv

The CSV keeps what it has of other images and seeds, so these may be measured one after another, and it makes the same
tables alone. Scores are means over the test images, in points. What is added to the patches is compared with the stage
before, from the same patches; patches chosen by consistency with as many chosen by chance; all with all labels. Each
seed is compared with itself.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsiseg.atomic import write_bytes
from wsiseg.stores.patch_meta import PatchMeta

POINTS = {"dice": "Dice", "aji": "AJI", "f1": "F1", "pq": "PQ"}
JUDGE = "aji"
FULL = "full"
ALL = "all"
# What is learnt from, each stage with all that the one before has.
STAGES = {"real": "chosen patches", "synthetic": "+ synthetic", "pseudo": "+ pseudo-labels"}
STRATEGIES = {"random": "chance", "kcenter": "k-center", "cps": "consistency"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was learnt from; of all labels `patches` is 0."""

    patches: int
    strategy: str
    stage: str


EVERYTHING = Row(patches=0, strategy="", stage=FULL)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one training reached on the test images, 0 … 1, the labelled part of the pixels, and the number of GANs."""

    labelled: float
    gans: int = 0
    scores: dict[str, float]


Results = dict[Row, dict[int, Result]]

# As many as are written of each number; tables are made from these, whether they were written or are about to be.
DIGITS = 4


def read(folder: Path) -> Results:
    """Return what was measured on one set of images, by row and seed, as exactly as it is written down."""
    found: Results = {}
    for path in sorted(folder.glob("seed*/*.json")):
        seed, name = int(path.parent.name.removeprefix("seed")), path.stem.split("-")
        mean = json.loads(path.read_bytes())["mean"]
        scores = {key: round(one["value"], DIGITS) for key, one in mean.items() if key in POINTS}
        labelled, gans = 1.0, 0
        if name == [FULL]:
            row = EVERYTHING
        else:
            strategy, patches, stage = name
            row = Row(patches=int(patches), strategy=strategy, stage=stage)
            cell = path.parent / f"{strategy}-{patches}"
            labelled = json.loads((cell / "selection" / "selection.json").read_bytes())["labelled_fraction"]
            # Patches without a whole nucleus have none.
            gans = 0 if stage == next(iter(STAGES)) else len(PatchMeta.read(cell / "synthetic.zarr").config["gans"])
        found.setdefault(row, {})[seed] = Result(labelled=round(labelled, DIGITS), gans=gans, scores=scores)
    return found


def add_written(sets: dict[str, Results], table: Path) -> None:
    """Add what a CSV of ``written`` has of other images, rows and seeds."""
    known = {(name, row, seed) for name, found in sets.items() for row, results in found.items() for seed in results}
    with table.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            patches = 0 if line["patches"] == ALL else int(line["patches"])
            row, seed = Row(patches=patches, strategy=line["strategy"], stage=line["stage"]), int(line["seed"])
            if (line["images"], row, seed) in known:
                continue
            result = Result(labelled=float(line["labelled"]), gans=int(line["gans"]), scores={})
            result = sets.setdefault(line["images"], {}).setdefault(row, {}).setdefault(seed, result)
            result.scores[line["score"]] = float(line["value"])


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


def gains_of(found: Results, row: Row) -> list[float]:
    """Return by how many points a stage beats the one before, from the same patches."""
    stages = list(STAGES)
    if row.stage not in stages[1:]:
        return []
    return gains(found, row, replace(row, stage=stages[stages.index(row.stage) - 1]))


def shares_of(found: Results, row: Row) -> list[float]:
    """Return the AJI of a row as percentages of the one from all labels."""
    upper = found.get(EVERYTHING, {})
    return [
        100 * result.scores[JUDGE] / upper[seed].scores[JUDGE]
        for seed, result in found[row].items()
        if seed in upper and row != EVERYTHING
    ]


def labelled(found: Results, row: Row) -> str:
    """Return the part of the pixels that had labels, in words."""
    return f"{100 * np.mean([result.labelled for result in found[row].values()]):.1f} %"


def as_markdown(lines: list[list[str]]) -> list[str]:
    """Return the lines of a table."""
    lines.insert(1, ["---"] * len(lines[0]))
    return ["| " + " | ".join(line) + " |" for line in lines]


def in_short(found: Results) -> list[str]:
    """Return the lines of a table of AJI alone, a line for each selection.

    With each stage, in brackets, its gain over the one before; of the last one, the gain over the patches alone and
    what it is of that from all labels. Of stages that were not measured for the same seeds, the fewest are counted.
    """
    lines = [["patches", "labelled", "chosen by", *STAGES.values(), "over the patches", "of all labels", "n"]]
    for first in (row for row in sorted(found, key=_place) if row.stage in (next(iter(STAGES)), FULL)):
        told = []
        rows = [replace(first, stage=stage) for stage in STAGES] if first.patches else [first]
        for row in rows:
            gained = gains_of(found, row)
            gain = f" ({np.mean(gained):+.1f})" if gained else ""
            told.append(_points(found, row, JUDGE) + gain)
        told += ["–"] * (len(STAGES) - len(rows))
        over = spread(gains(found, rows[-1], first) if len(rows) > 1 else [])
        share = _percent(shares_of(found, rows[-1])) if rows[-1] in found else "–"
        name = STRATEGIES.get(first.strategy, "all labels")
        seeds = min(len(found[row]) for row in rows if row in found)
        lines.append([str(first.patches or ALL), labelled(found, first), name, *told, over, share, str(seeds)])
    return as_markdown(lines)


def table(found: Results) -> list[str]:
    """Return the lines of the table of one set of images."""
    titles = ["patches", "labelled", "chosen by", "learnt from", "GANs", *POINTS.values()]
    lines = [[*titles, "AJI over the stage before", "AJI over chance", "of AJI from all labels", "n"]]
    for row in sorted(found, key=_place):
        chance = gains(found, row, replace(row, strategy="random")) if row.strategy == "cps" else []
        lines.append(
            [
                str(row.patches or ALL),
                labelled(found, row),
                STRATEGIES.get(row.strategy, "–"),
                STAGES.get(row.stage, "all labels"),
                f"{np.mean([result.gans for result in found[row].values()]).round(1):g}",
                *(_points(found, row, name) for name in POINTS),
                spread(gains_of(found, row)),
                spread(chance),
                _percent(shares_of(found, row)),
                str(len(found[row])),
            ]
        )
    return as_markdown(lines)


def _points(found: Results, row: Row, name: str) -> str:
    return spread([100 * result.scores[name] for result in found.get(row, {}).values()])


def _percent(values: list[float]) -> str:
    return f"{spread(values, digits=0)} %" if values else "–"


def _told(value: float) -> str:
    return f"{value:.{DIGITS}f}"


def written(sets: dict[str, Results]) -> str:
    """Return every measurement as CSV."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["images", "patches", "labelled", "strategy", "stage", "gans", "seed", "score", "value"])
    lines.writerows(
        [
            name,
            row.patches or ALL,
            _told(result.labelled),
            row.strategy,
            row.stage,
            result.gans,
            seed,
            score,
            _told(value),
        ]
        for name, found in sorted(sets.items())
        for row in sorted(found, key=_place)
        for seed, result in sorted(found[row].items())
        for score, value in result.scores.items()
    )
    return text.getvalue()


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument("--csv", type=Path, help="where every measurement is, and is to be written")
    args = parser.parse_args()
    sets = {folder.resolve().name: read(folder) for folder in args.folders}
    if missing := [name for name, found in sets.items() if not found]:
        parser.error(f"{missing[0]} holds no scores")
    if args.csv is not None and args.csv.exists():
        add_written(sets, args.csv)
    if not sets:
        parser.error("name a folder of scores, or with --csv what was written of them")
    if args.folders and args.csv is not None:
        write_bytes(args.csv, written(sets).encode())
    for name, found in sorted(sets.items()):
        print("\n".join([f"#### {name}", "", *in_short(found), "", *table(found), ""]))


if __name__ == "__main__":
    main()
