"""How fast patches are chosen, and in how much memory.

    python benchmarks/selection.py features [--encoder resnet50] [--count 64] [--side 256] [--batch 16]
    python benchmarks/selection.py scores [--count 100000] [--dimensions 2048] [--k 6]
    python benchmarks/selection.py memory [--counts 20000,1000000] [--dimensions 64] [--k 6]

``features`` times what ``wsiseg select`` makes of patches in a store, reading, filters' statistics, quadrants and
writing included, and bare forward passes of the same encoder over as many patches and quadrants that are in memory,
both with random weights, in turns. ``scores`` makes up features of some kinds of texture on disk and times
consistency-based selection on them. ``memory`` does so for several numbers of patches, all read from disk, each in a
process of its own, and compares their peaks. What is known of each patch is kept, 40 bytes or so.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from wsiseg.progress import SILENT
from wsiseg.selection.encoders import EncoderSpec, build_encoder
from wsiseg.selection.features import PoolFeatures, encode, quadrants_of
from wsiseg.selection.patch_scores import ConsistencyOptions, by_consistency
from wsiseg.stopping import Stop
from wsiseg.stores.feature_store import FeatureMeta, FeatureStore
from wsiseg.stores.patch_meta import PatchMeta
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patch_store import PatchStore
from wsiseg.stores.patch_writer import PatchTable, PatchWriter, new_folder

FEATURES_GOAL = 0.85
SCORES_GOAL_S = 120
MEMORY_GOAL = 1.1
KINDS = 12


def write_patches(path: Path, count: int, side: int) -> PatchSet:
    """Write patches of coloured squares with noise."""
    rng = np.random.default_rng(0)
    table = PatchTable(
        positions=np.zeros((count, 2), np.int64),
        windows=np.zeros((count, 2), np.int64),
        extents=np.full((count, 2), side, np.int32),
        tissue=np.ones(count, np.float32),
        parent=np.arange(count, dtype=np.int32),
        split=np.zeros(count, np.uint8),
    )
    names = tuple(f"image{number}" for number in range(count))
    meta = PatchMeta(codec="zstd", mpp=0.5, parents=names, groups=names, splits=("",), fingerprint="random")
    squares = np.ones((1, 8, 8, 1), np.uint8)
    with new_folder(path) as folder:
        writer = PatchWriter(folder, meta, table, (side, side))
        for shard in range(writer.images.shard_count):
            shape = (len(writer.images.shard_items(shard)), side // 8, side // 8, 3)
            images = np.kron(rng.integers(240, size=shape, dtype=np.uint8), squares)
            images += rng.integers(16, size=images.shape, dtype=np.uint8)
            writer.images.write_shard(shard, [writer.codec.encode(image) for image in images])
    return PatchSet([PatchStore.open(path)])


def write_features(path: Path, count: int, dimensions: int) -> FeatureStore:
    """Write features of patches of some kinds, a fifth of which mix two."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(0, 1, (KINDS, dimensions)).astype(np.float32)
    meta = FeatureMeta(
        count=count,
        dimensions=dimensions,
        encoder="made up",
        preproc="unit",
        precision="float32",
        weights="none",
        patches="none",
    )
    store = FeatureStore.prepare(path, meta)
    for rows in store.missing():
        kind = np.repeat(rng.integers(KINDS, size=(len(rows), 1)), 4, axis=1)
        is_mixed = rng.random(len(rows)) < 0.2
        kind[is_mixed, 2:] = rng.integers(KINDS, size=(int(is_mixed.sum()), 1))
        quadrants = kinds[kind] + rng.standard_normal((len(rows), 4, dimensions), dtype=np.float32)
        store.write(
            rows,
            patches=quadrants.mean(axis=1).astype(np.float16),
            quadrants=quadrants.astype(np.float16),
            appearance=np.ones((len(rows), 2), np.float32),
        )
    return store


def features(options: argparse.Namespace) -> None:
    """Compare making features with bare forward passes."""
    encoder = build_encoder(EncoderSpec(encoder=options.encoder, init="none"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    times: dict[str, list[float]] = {"select": [], "forward": []}
    with tempfile.TemporaryDirectory() as name:
        patches = write_patches(Path(name) / "patches.zarr", options.count, options.side)
        meta = FeatureMeta(
            count=len(patches),
            dimensions=encoder.dimensions,
            encoder=options.encoder,
            preproc="imagenet",
            precision="float32",
            weights="random",
            patches="random",
        )
        some = patches.read_images(np.arange(min(options.batch, len(patches))))
        whole, quarters = (
            torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).to(device)
            for images in (some, quadrants_of(some).reshape(-1, options.side // 2, options.side // 2, 3))
        )
        for round_number in range(options.rounds + 1):
            store = FeatureStore.prepare(Path(name) / f"{round_number}.zarr", meta)
            begun = time.perf_counter()
            encode(patches, encoder, store, device=device, batch_size=options.batch, progress=SILENT, stop=Stop())
            middle = time.perf_counter()
            with torch.inference_mode():
                for _ in range(len(patches) // len(some)):
                    encoder(whole)
                    encoder(quarters).cpu()
            end = time.perf_counter()
            # The first round allocates memory and chooses algorithms.
            if round_number > 0:
                times["select"].append(middle - begun)
                times["forward"].append(end - middle)
    seconds = {what: statistics.median(values) for what, values in times.items()}
    ratio = seconds["forward"] / seconds["select"]
    verdict = "ok" if ratio >= FEATURES_GOAL else "MISSED"
    print(
        f"{options.encoder}, {options.side} px, {device}: {len(patches) / seconds['select']:.1f} patches/s, "
        f"{ratio:.2f} of bare forward passes (at least {FEATURES_GOAL:g})  {verdict}"
    )


def scores(options: argparse.Namespace) -> None:
    """Time consistency-based selection on features on disk."""
    with tempfile.TemporaryDirectory() as name:
        store = write_features(Path(name) / "features.zarr", options.count, options.dimensions)
        begun = time.perf_counter()
        by_consistency(PoolFeatures(store, np.arange(len(store))), options.k, ConsistencyOptions(), seed=42)
        seconds = time.perf_counter() - begun
    print(
        f"{options.count:,} patches of {options.dimensions} dimensions, {options.k} clusters: {seconds:.0f} s "
        f"(at most {SCORES_GOAL_S})  {'ok' if seconds <= SCORES_GOAL_S else 'MISSED'}"
    )


def peak_mb(path: Path, k: int) -> float:
    """Return the most memory that a process has held once it has chosen patches from these."""
    store = FeatureStore(path)
    by_consistency(PoolFeatures(store, np.arange(len(store)), memory_bytes=0), k, ConsistencyOptions(), seed=42)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(options: argparse.Namespace) -> None:
    """Compare the peaks of memory for several numbers of patches."""
    peaks = {}
    for count in map(int, options.counts.split(",")):
        with tempfile.TemporaryDirectory() as name:
            write_features(Path(name) / "features.zarr", count, options.dimensions)
            begun = time.perf_counter()
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                peaks[count] = pool.apply(peak_mb, (Path(name) / "features.zarr", options.k))
            print(f"{count:,} patches: {peaks[count]:.0f} MB, {time.perf_counter() - begun:.0f} s")
    ratio = peaks[max(peaks)] / peaks[min(peaks)]
    verdict = "ok" if ratio <= MEMORY_GOAL else "MISSED"
    print(f"peak of the most over that of the fewest: {ratio:.2f} (at most {MEMORY_GOAL:g})  {verdict}")


def main() -> None:
    """Measure one of three things."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("features")
    one.set_defaults(work=features)
    one.add_argument("--encoder", default="resnet50")
    one.add_argument("--count", type=int, default=64, help="patches")
    one.add_argument("--side", type=int, default=256, help="pixels of a patch's edge")
    one.add_argument("--batch", type=int, default=16, help="patches at once")
    one.add_argument("--rounds", type=int, default=3)
    two = commands.add_parser("scores")
    two.set_defaults(work=scores)
    two.add_argument("--count", type=int, default=100_000, help="patches")
    two.add_argument("--dimensions", type=int, default=2048)
    two.add_argument("--k", type=int, default=6, help="clusters")
    three = commands.add_parser("memory")
    three.set_defaults(work=memory)
    three.add_argument("--counts", default="20000,1000000", help="patches, with commas")
    three.add_argument("--dimensions", type=int, default=64)
    three.add_argument("--k", type=int, default=6, help="clusters")
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
