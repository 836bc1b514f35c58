r"""Cut patches with image labels out of images with masks of tumour, stroma and normal lung.

    python luad_patches.py SRC -o OUT --fold 0
    wsiseg ingest OUT/weak -o weak.zarr --layout wsss4luad
    wsiseg ingest OUT/full -o full.zarr --labels-as classes --classes tumour,stroma,normal --mpp 1 \
        --split OUT/full/split.csv

SRC has images/*.png and masks/<same name>.png, palette images of 0 tumour, 1 stroma, 2 normal and 3 white, such as
the validation part of WSSS4LUAD. Whole images go to train, val or test; over all folds each is in test once and in
val once.

OUT/weak has patches to train on, whose names say what they show and whose masks stay away, and patches to validate
on. OUT/full has the same patches with their masks, for a network that may see them. OUT/test has whole images, with
label images in which white is 255.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wsiseg.atomic import atomic_path
from wsiseg.geometry import Size, Window
from wsiseg.grid import patch_windows
from wsiseg.ingestion.layouts import LAYOUTS
from wsiseg.labels import IGNORE
from wsiseg.rasters import read_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LABELS = LAYOUTS["wsss4luad"].labels
WHITE = 3
PALETTE = [value for label in LABELS.labels for value in label.colour] + [255, 255, 255]
# A class that covers less of a patch is not said to be there.
SMALLEST_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """An image, uint8 (H, W, 3), and its mask, uint8 (H, W)."""

    name: str
    rgb: NDArray[np.uint8]
    mask: NDArray[np.uint8]

    @classmethod
    def read(cls, source: Path, name: str) -> Tissue:
        """Return the image `name` and its mask."""
        rgb = np.asarray(Image.open(source / "images" / f"{name}.png").convert("RGB"))
        mask = read_labels(source / "masks" / f"{name}.png").astype(np.uint8)
        if mask.shape != rgb.shape[:2] or mask.max() > WHITE:
            raise SystemExit(f"{name}: the mask has another size than the image, or holds values above {WHITE}")
        return cls(name=name, rgb=rgb, mask=mask)

    def patch(self, x: int, y: int, side: int) -> Tissue:
        """Return a square of the image, white beyond its edges."""
        part = Window(x, y, side, side).clipped(Size(self.mask.shape[1], self.mask.shape[0]))
        rgb, mask = np.full((side, side, 3), 255, np.uint8), np.full((side, side), WHITE, np.uint8)
        rgb[: part.height, : part.width] = self.rgb[part.slices]
        mask[: part.height, : part.width] = self.mask[part.slices]
        return Tissue(name=f"{self.name}_{x}_{y}", rgb=rgb, mask=mask)

    def occurring(self) -> tuple[int, ...]:
        """Return 1 for each class that covers enough of the image, and 0 for the others."""
        shares = np.bincount(self.mask.ravel(), minlength=WHITE + 1)[:WHITE] / self.mask.size
        return tuple(int(share >= SMALLEST_SHARE) for share in shares)


def deal(tissues: list[Tissue], *, folds: int, fold: int, seed: int) -> dict[str, list[Tissue]]:
    """Return the images of each split; images that show the same classes are dealt out evenly."""
    shuffled = [tissues[place] for place in np.random.default_rng(seed).permutation(len(tissues))]
    parts: list[list[Tissue]] = [[] for _ in range(folds)]
    for place, tissue in enumerate(sorted(shuffled, key=Tissue.occurring)):
        parts[place % folds].append(tissue)
    test, val = parts[fold], parts[(fold + 1) % folds]
    held_out = {tissue.name for tissue in (*test, *val)}
    return {"train": [tissue for tissue in tissues if tissue.name not in held_out], "val": val, "test": test}


def patches(tissue: Tissue, *, side: int, stride: int, is_padded: bool) -> Iterator[Tissue]:
    """Yield squares that cover the image.

    Parameters
    ----------
    tissue
        The image.
    side, stride
        Pixels of a square, and from one to the next.
    is_padded
        Whether the last squares reach beyond the image, or are moved back into it and overlap more.
    """
    height, width = tissue.mask.shape
    corners = patch_windows(Size(width, height), patch_px=side, stride_px=stride)
    if not is_padded:
        corners = np.unique(np.minimum(corners, np.maximum((width - side, height - side), 0)), axis=0)
    for x, y in corners.tolist():
        yield tissue.patch(x, y, side)


def write(folder: Path, split: str, tissues: list[Tissue], *, side: int, stride: int) -> str:
    """Write the patches of a split, train or val, with and without what they hide, and return a line about them."""
    is_train = split == "train"
    weak = folder / "weak" / split
    for part in (weak,) if is_train else (weak / "img", weak / "mask"):
        part.mkdir(parents=True)
    counts, rows = np.zeros(len(LABELS), dtype=int), []
    for tissue in tissues:
        # Each pixel is scored once; to learn from, overlap is welcome and made-up white is not.
        for patch in patches(tissue, side=side, stride=stride if is_train else side, is_padded=not is_train):
            label = patch.occurring()
            if is_train:
                if not any(label):
                    continue
                digits = " ".join(map(str, label))
                Image.fromarray(patch.rgb).save(weak / f"{patch.name}-[{digits}].png")
            else:
                Image.fromarray(patch.rgb).save(weak / "img" / f"{patch.name}.png")
                mask = Image.fromarray(patch.mask)
                mask.putpalette(PALETTE)
                mask.save(weak / "mask" / f"{patch.name}.png")
            write_whole(folder / "full", patch)
            counts += label
            rows.append(f"{patch.name}.png,{split}\n")
    with (folder / "full" / "split.csv").open("a") as file:
        file.writelines(rows)
    shown = ", ".join(f"{count} {name}" for count, name in zip(counts, LABELS.names, strict=True))
    return f"{split}: {len(tissues)} images, {len(rows)} patches ({shown})"


def write_whole(folder: Path, tissue: Tissue) -> None:
    """Write an image and its labels."""
    Image.fromarray(tissue.rgb).save(folder / "images" / f"{tissue.name}.png")
    labels = np.where(tissue.mask == WHITE, IGNORE, tissue.mask).astype(np.uint8)
    Image.fromarray(labels).save(folder / "labels" / f"{tissue.name}.png")


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0, help="which fold is held out for testing, from 0")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patch-size", type=int, default=224)
    parser.add_argument("--stride", type=int, help="pixels from one patch to train on to the next; half a patch")
    args = parser.parse_args()
    names = sorted(file.stem for file in (args.source / "images").glob("*.png"))
    if args.output.exists():
        parser.error(f"{args.output} is there already")
    if not 0 <= args.fold < args.folds or not 3 <= args.folds <= len(names):  # noqa: PLR2004 - train, val, test
        parser.error(f"--fold must be below --folds, and --folds lie within 3 and the {len(names)} images")
    stride = args.patch_size // 2 if args.stride is None else args.stride
    if not 0 < stride <= args.patch_size:
        parser.error("--stride must lie within 1 and --patch-size")
    tissues = [Tissue.read(args.source, name) for name in names]
    splits = deal(tissues, folds=args.folds, fold=args.fold, seed=args.seed)
    with atomic_path(args.output) as folder:
        for part in ("full", "test"):
            (folder / part / "images").mkdir(parents=True)
            (folder / part / "labels").mkdir()
        (folder / "full" / "split.csv").write_text("image,split\n")
        for split in ("train", "val"):
            print(write(folder, split, splits[split], side=args.patch_size, stride=stride))
        for tissue in splits["test"]:
            write_whole(folder / "test", tissue)
        print(f"test: {len(splits['test'])} images")


if __name__ == "__main__":
    main()
