"""How much memory and time a volume takes in prediction, beside what is promised.

    python benchmarks/volumes.py [--shape 155 240 240] [--patch 96 96 96] [--arch unet3d] [--device cpu]

A volume of noise and an untrained network of the published size are written into a folder that goes away, and
``wsiseg predict`` is run on them in a process of its own, whose peak memory on the processor is printed. On a
processor alone the default shape takes many minutes; a small one shows what is there whatever the volume.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np

from wsiseg.checkpoint import ModelCard
from wsiseg.labels import LabelMap
from wsiseg.methods.predictor import NetPredictor, build_network
from wsiseg.volumes import VolumeInput

GOAL_BYTES = 3 * 2**30


def main() -> None:
    """Predict one volume and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(155, 240, 240), help="voxels, (D, H, W)")
    parser.add_argument("--patch", type=int, nargs=3, default=(96, 96, 96), help="voxels of a window")
    parser.add_argument("--arch", default="unet3d", help="unet3d or vnet")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    card = ModelCard(
        name="untrained",
        task="semantic",
        labels=LabelMap.from_names(("background", "tumour")),
        tile_px=max(options.patch),
        halo_px=0,
        net={"arch": options.arch},
        volume=VolumeInput(patch=tuple(options.patch)),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        NetPredictor(card, build_network(card)).save(folder / "model", metrics={})
        noise = np.random.default_rng(0).uniform(1, 1000, options.shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(noise.transpose(2, 1, 0), np.eye(4)), folder / "noise.nii.gz")
        command = ["-m", "wsiseg.cli.app", "predict", folder / "noise.nii.gz", "-o", folder / "out"]
        how = ["--model", folder / "model", "--device", options.device]
        subprocess.run([sys.executable, *map(str, (*command, *how))], check=True)
        summary = json.loads((folder / "out" / "noise" / "summary.json").read_text(encoding="utf-8"))
    peak, seconds = summary["run"]["peak_ram"], summary["run"]["seconds"]
    print(
        f"{' x '.join(map(str, options.shape))} voxels, {summary['windows']} windows of {options.arch}: "
        f"{peak / 2**30:.2f} GiB at most (below {GOAL_BYTES / 2**30:.0f}), {seconds:.0f} s  "
        f"{'ok' if peak < GOAL_BYTES else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
