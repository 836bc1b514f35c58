"""Write which images of a folder are kept to test by, as ``wsiseg ingest --split`` reads it.

    python held_out.py SRC/images --test 20 --seed 0 -o split.csv

Whole images are drawn, each as likely as any other; the rest is to train on.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np

from wsiseg.atomic import write_bytes


def names_in(folder: Path) -> list[str]:
    """Return the names of the files of a folder without what follows the first full stop, each once, in order."""
    return sorted({path.name.partition(".")[0] for path in folder.iterdir() if not path.name.startswith(".")})


def table(names: list[str], *, test: int, seed: int) -> str:
    """Return a table of images and their split."""
    held_out = set(np.random.default_rng(seed).permutation(names)[:test].tolist())
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["image", "split"])
    lines.writerows([name, "test" if name in held_out else "train"] for name in names)
    return text.getvalue()


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--test", type=int, required=True, help="how many are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    names = names_in(args.folder)
    if not 0 < args.test < len(names):
        parser.error(f"--test must lie within 1 and {len(names) - 1}, as {args.folder} holds {len(names)} images")
    write_bytes(args.output, table(names, test=args.test, seed=args.seed).encode())


if __name__ == "__main__":
    main()
