"""How much of its time the segmentation network of multi-layer pseudo-supervision learns instead of waiting.

    python benchmarks/training_wait.py [--backbone resnet18] [--batch 20] [--steps 10] [--num-workers 2]

A store that goes away holds patches of 224 px and three random masks of each. The stage segment is trained on them as
``wsiseg train --method mlps`` does it, but without the gate, and what it logs of its waiting for batches is printed: of
the first step, which nothing is read ahead for, and of all others together, which is what the goal is about. A busy
machine makes both the reading and the learning slower.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from wsiseg.labels import LabelMap
from wsiseg.methods.mlps import METHOD
from wsiseg.methods.mlps_options import MlpsOptions
from wsiseg.methods.pair_options import SEGMENT
from wsiseg.methods.stages import LabelStage
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.patch_meta import PatchMeta
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patch_writer import PatchTable, PatchWriter, new_folder
from wsiseg.tasks.patch_data import patch_data
from wsiseg.tasks.patch_run import fit_settings
from wsiseg.tiling.reading import open_patches
from wsiseg.training.fit import fit
from wsiseg.training.log import TRAINING, read_table
from wsiseg.training.patch_batches import Known, PatchBatches
from wsiseg.training.settings import FitSettings

PATCH = 224
LABELS = LabelMap.from_names(("tumour", "stroma", "lymphocytes", "necrosis"))
LAYERS = ("first", "second", "third")
GOAL = 0.85


def write_store(path: Path, count: int) -> None:
    """Write patches of coloured squares with noise, the classes that they show, and masks of squares."""
    rng = np.random.default_rng(0)
    table = PatchTable(
        positions=np.zeros((count, 2), np.int64),
        windows=np.zeros((count, 2), np.int64),
        extents=np.full((count, 2), PATCH, np.int32),
        tissue=np.ones(count, np.float32),
        parent=np.arange(count, dtype=np.int32),
        split=np.zeros(count, np.uint8),
    )
    names = tuple(f"image{n}" for n in range(count))
    meta = PatchMeta(codec="zstd", mpp=0.5, parents=names, groups=names, splits=("",), fingerprint="random")
    squares = np.ones((1, PATCH // 8, PATCH // 8, 1), np.uint8)
    with new_folder(path) as folder:
        writer = PatchWriter(folder, meta, table, (PATCH, PATCH))
        for shard in range(writer.images.shard_count):
            colours = rng.integers(240, size=(len(writer.images.shard_items(shard)), 8, 8, 3), dtype=np.uint8)
            images = np.kron(colours, squares) + rng.integers(16, size=(len(colours), PATCH, PATCH, 3), dtype=np.uint8)
            writer.images.write_shard(shard, [writer.codec.encode(image) for image in images])
    store = PatchStore.open(path)
    store.add_image_layer("labels", ImageLayerInfo(labels=LABELS), np.ones((count, len(LABELS)), np.uint8))
    for layer in LAYERS:
        store.add_layer(layer, "classes", LABELS)
        masks = np.kron(rng.integers(len(LABELS), size=(count, 8, 8), dtype=np.uint8), squares[..., 0])
        store.write_labels(layer, range(count), list(masks))


def main() -> None:
    """Train for a moment and print the shares of time that were waited."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18", help="of the segmentation network")
    parser.add_argument("--batch", type=int, default=20, help="images of a batch")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--num-workers", type=int, default=2, help="threads that read")
    options = parser.parse_args()
    (stage,) = (
        stage
        for stage in METHOD.stages(MlpsOptions(backbone=options.backbone, gate=False))
        if stage.name == SEGMENT and not isinstance(stage, LabelStage)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_store(folder / "patches.zarr", options.batch * options.steps)
        data = patch_data(open_patches([folder / "patches.zarr"]), name="wait", layer=None, training_data={})
        batches = PatchBatches(
            Known(
                patches=data.patches,
                indices=data.known.indices,
                present=data.known.present,
                layers={layer: layer for layer in LAYERS},
            ),
            batch_size=options.batch,
            last_batch="drop",
            flips=stage.flips,
            blur_px=stage.blur_px,
            seed=0,
        )
        given = FitSettings(log_every=options.steps, num_workers=options.num_workers)
        settings = fit_settings(given, stage.settings, options.steps).model_copy(update={"steps": options.steps})
        fit(stage.build(data.facts, {}, LAYERS), batches, settings, folder / "run")
        first, others = (row["wait"] for row in read_table(folder / "run" / TRAINING))
    learning = 1 - others
    print(
        f"{options.backbone}, {options.batch} patches a step: waited {first:.1%} of the first step; "
        f"learning {learning:.1%} of the others (at least {GOAL:.0%})  {'ok' if learning >= GOAL else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
