"""Write the table of a grid as Markdown: mean and standard deviation over pairs of a fold and a seed, in points.

    python luad_table.py luad --csv luad_results.csv

The last columns compare each row with the first of its method, and with full masks, on the same test images.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROWS = {
    "mlps-cam": "MLPS: CAM alone",
    "mlps-pda": "+ dropout attention",
    "mlps-layers": "+ multi-layer pseudo-supervision",
    "mlps": "+ gate = **MLPS**",
    "craanet-cam": "CRAANet: CAM alone",
    "craanet-cra": "+ class residual attention",
    "craanet-aa": "+ attention accumulation",
    "craanet-energy": "+ dense energy",
    "craanet": "+ pixel contrast = **CRAANet + PFSCNet**",
    "mlps-maps": "CAM of the classifier, no segmentation network",
    "full": "full masks",
}
BASES = {"mlps": "mlps-cam", "craanet": "craanet-cam"}
UPPER = "full"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of one row on the test images of one fold, 0 … 1; None for a class that is not there."""

    miou: float
    fw_iou: float
    classes: dict[str, float | None]

    @classmethod
    def read(cls, path: Path) -> Scores:
        """Return what ``wsiseg evaluate`` wrote; pixels of all images count alike."""
        report = json.loads(path.read_text())
        pooled, classes = report["pooled"], report["classes"]
        return cls(
            miou=pooled["miou"]["value"],
            fw_iou=pooled["fw_iou"]["value"],
            classes={name: scores["iou"] for name, scores in classes.items()},
        )


def read(folder: Path) -> dict[str, dict[str, Scores]]:
    """Return scores by row, then by the name of the pair of a fold and a seed."""
    found: dict[str, dict[str, Scores]] = {row: {} for row in ROWS}
    for path in sorted(folder.glob("fold*-seed*/*.json")):
        if path.stem in found:
            found[path.stem][path.parent.name] = Scores.read(path)
    return found


def spread(values: list[float] | list[float | None]) -> str:
    """Return mean ± sd, in points."""
    points = 100 * np.array([value for value in values if value is not None])
    if len(points) == 0:
        return "–"
    return f"{points.mean():.1f} ± {points.std(ddof=1):.1f}" if len(points) > 1 else f"{points[0]:.1f}"


def table(found: dict[str, dict[str, Scores]]) -> list[str]:
    """Return the lines of the table."""
    classes = next((list(scores.classes) for row in found.values() for scores in row.values()), [])
    head = ["", "mIoU", "FwIoU", *classes, "mIoU over CAM alone", "of full masks", "n"]
    lines = [head, ["---"] * len(head)]
    for row, title in ROWS.items():
        own = found[row]
        base, upper = found.get(BASES.get(row.partition("-")[0], ""), {}), found[UPPER]
        gains = [scores.miou - base[pair].miou for pair, scores in own.items() if pair in base]
        shares = [scores.miou / upper[pair].miou for pair, scores in own.items() if pair in upper]
        lines.append([
            title,
            spread([scores.miou for scores in own.values()]),
            spread([scores.fw_iou for scores in own.values()]),
            *(spread([scores.classes[name] for scores in own.values()]) for name in classes),
            spread(gains),
            f"{100 * np.mean(shares):.0f} %" if shares else "–",
            str(len(own)),
        ])  # fmt: skip
    return ["| " + " | ".join(line) + " |" for line in lines]


def written(found: dict[str, dict[str, Scores]]) -> str:
    """Return every measurement as CSV."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    measured = [(row, pair, scores) for row, pairs in found.items() for pair, scores in pairs.items()]
    lines.writerow(["row", "pair", "miou", "fw_iou", *(f"iou_{name}" for name in measured[0][2].classes)])
    for row, pair, scores in measured:
        values = [scores.miou, scores.fw_iou, *scores.classes.values()]
        lines.writerow([row, pair, *("" if value is None else f"{value:.4f}" for value in values)])
    return text.getvalue()


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--csv", type=Path, help="where to write every measurement")
    args = parser.parse_args()
    found = read(args.folder)
    if not any(found.values()):
        parser.error(f"{args.folder} holds no scores")
    if args.csv is not None:
        args.csv.write_text(written(found))
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
