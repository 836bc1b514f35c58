"""Write images and their labels at half the resolution, so that what is predicted there can be scored there.

    python halved.py SRC -o DST

SRC holds images/ and perhaps labels/. Images are means of 2 × 2 pixels; of labels every other pixel is taken.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from wsiseg.atomic import write_bytes


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    if not (args.source / "images").is_dir():
        parser.error(f"{args.source} holds no folder images")
    for path in sorted([*args.source.glob("images/*"), *args.source.glob("labels/*")]):
        target = args.output / path.relative_to(args.source).with_suffix(".png")
        if target.exists() or path.name.startswith("."):
            continue
        with Image.open(path) as image:
            half = image.reduce(2) if path.parent.name == "images" else Image.fromarray(np.asarray(image)[::2, ::2])
        file = io.BytesIO()
        half.save(file, format="PNG")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, file.getvalue())


if __name__ == "__main__":
    main()
