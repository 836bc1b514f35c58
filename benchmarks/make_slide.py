"""Grow the shipped real region into a pyramidal SVS of any size.

python benchmarks/make_slide.py OUT.svs --size 20000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import wsiseg
from wsiseg.geometry import Size, Window
from wsiseg.slides.open import open_slide
from wsiseg.slides.synthetic import grow_slide

REGION = Path(wsiseg.__file__).parent / "demo_data" / "CMU-1-Small-Region.svs"


def make_slide(path: Path, *, size: int, tissue: float = 0.4, seed: int = 0) -> Path:
    """Write a slide of `size` by `size` pixels unless it is there, and return its path."""
    if path.exists():
        return path
    with open_slide(REGION) as slide:
        whole = slide.info.size
        region = slide.read_level(0, Window(0, 0, whole.width, whole.height))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    grow_slide(region, unfinished, size=Size(size, size), tissue=tissue, mpp=0.499, seed=seed)
    return unfinished.rename(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=20_000, help="edge of level 0 in pixels")
    parser.add_argument("--tissue", type=float, default=0.4, help="share of the slide that tissue covers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(make_slide(arguments.out, size=arguments.size, tissue=arguments.tissue, seed=arguments.seed))
