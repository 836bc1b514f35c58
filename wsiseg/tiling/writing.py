"""Writing the patches of a slide into a store."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsiseg import __version__
from wsiseg.errors import StoreError, UnreadableError
from wsiseg.executors import ordered_map
from wsiseg.geometry import Window
from wsiseg.manifest import SPLITS
from wsiseg.slides.fingerprint import fingerprint
from wsiseg.slides.reading import read_windows
from wsiseg.stores.chunk_codecs import check_jpeg
from wsiseg.stores.patch_meta import PatchMeta, SlideOrigin
from wsiseg.stores.patch_writer import PatchTable, PatchWriter, new_folder
from wsiseg.stores.shard_writer import ShardWriter
from wsiseg.tiling.plan import RawTiles
from wsiseg.urls import url_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.progress import Progress
    from wsiseg.slides.base import Slide, SlideInfo
    from wsiseg.stopping import Stop
    from wsiseg.tiling.plan import TilePlan, TileSettings

logger = logging.getLogger(__name__)

# Patches that a thread reads in one go: enough to forget its overhead, few enough to share a shard out.
BLOCK: Final = 16

# The bytes of a patch, None where the slide holds no pixels, or why it cannot be read.
_Chunk = bytes | UnreadableError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What a store keeps of its whole slide.

    Parameters
    ----------
    thumbnail
        RGB uint8, (h, w, 3).
    tissue_mask
        bool, (h, w).
    area_mm2
        Area of tissue, or None where the slide has no physical scale.
    """

    thumbnail: NDArray[np.uint8]
    tissue_mask: NDArray[np.bool_]
    area_mm2: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideWork:
    """A slide to be cut, and what goes into its store besides pixels.

    Parameters
    ----------
    slide_id
        Name in outputs.
    path
        The slide.
    settings
        How it is cut.
    tissue
        How tissue was found, as JSON.
    reader
        Reader that is forced, or None.
    slide_mpp
        Micrometres per level-0 pixel that beat the file's own.
    split
        Split of all its patches, or nothing.
    patient_id
        What must stay together in splits, or None.
    """

    slide_id: str
    path: Path
    settings: TileSettings
    # Settings of another step, which are only noted here.
    tissue: dict[str, Any]
    reader: str | None = None
    slide_mpp: float | None = None
    split: str = ""
    patient_id: str | None = None

    def config(self) -> dict[str, Any]:
        """Return everything that the patches depend on apart from the slide."""
        config: dict[str, Any] = self.settings.model_dump(mode="json")
        config.update(
            tissue=self.tissue,
            reader=self.reader,
            slide_mpp=self.slide_mpp,
            split=self.split,
            patient_id=self.patient_id,
        )
        return config


def is_done(work: SlideWork, store: Path) -> bool:
    """Tell whether the store holds the patches of this very slide with these very settings.

    Raises
    ------
    StoreError
        If there is another store in its place.
    """
    if not store.exists():
        return False
    meta = PatchMeta.read(store)
    mend = "Use another output folder, or --overwrite"
    if meta.slide is None or meta.slide.fingerprint != fingerprint(work.path):
        raise StoreError("the store was made from another slide", where=store, mend=mend)
    wanted = work.config()
    changed = sorted(key for key in {*wanted, *meta.config} if wanted.get(key) != meta.config.get(key))
    if changed:
        raise StoreError(
            f"the store was made with other settings ({', '.join(changed)} differ)", where=store, mend=mend
        )
    return True


def write_patches(
    slide: Slide,
    plan: TilePlan,
    work: SlideWork,
    store: Path,
    *,
    overview: Overview,
    workers: int,
    progress: Progress,
    stop: Stop,
) -> None:
    """Write the patches of a plan to `store`, which appears when it is complete.

    Patches that cannot be decoded are left out and counted in the store's `PatchMeta`.

    Raises
    ------
    UnreadableError
        If none can be decoded.
    StoppedError
        If a stop was requested.
    """
    table = _table(slide.info, plan, work)
    with new_folder(store) as folder:
        writer = PatchWriter(
            folder,
            _meta(slide.info, plan, work, table, overview),
            table,
            (plan.grid.patch_px, plan.grid.patch_px),
            jpeg_quality=work.settings.jpeg_quality,
        )
        writer.write_overview(overview.thumbnail, overview.tissue_mask)
        if plan.codec == "none":
            return
        read = _reader(slide, plan, writer)
        blocks = [range(first, min(first + BLOCK, len(plan))) for first in range(0, len(plan), BLOCK)]
        shards = ShardWriter(writer.images)
        is_readable = np.ones(len(plan), dtype=np.bool_)
        problem: UnreadableError | None = None
        with progress.task(work.slide_id, total=len(plan), unit="patches") as advance:
            for block, chunks in zip(
                blocks, ordered_map(read, blocks, workers=workers, ahead=4 * workers), strict=True
            ):
                if stop.is_requested:
                    raise stop.error()
                for index, chunk in zip(block, chunks, strict=True):
                    if isinstance(chunk, UnreadableError):
                        is_readable[index], problem = False, chunk
                    else:
                        shards.add([chunk])
                advance(len(chunks))
        shards.close()
        if problem is not None:
            if not is_readable.any():
                raise problem
            logger.info("patches that cannot be read are left out: %s", problem)
            rest = replace(plan, windows=plan.windows[is_readable], tissue=plan.tissue[is_readable])
            table = _table(slide.info, rest, work)
            meta = _meta(slide.info, rest, work, table, overview)
            writer.describe(meta.model_copy(update={"unreadable": len(plan) - len(rest)}), table)


def _reader(slide: Slide, plan: TilePlan, writer: PatchWriter) -> Callable[[range], list[_Chunk]]:
    """Return the function from patches in a row to their encoded bytes, or what is wrong with them."""
    patch_px = plan.grid.patch_px
    windows = [Window(x, y, patch_px, patch_px) for x, y in plan.windows.tolist()]
    level = plan.level

    def encode(block: range) -> list[_Chunk]:
        # In one piece only where patches share pixels: single patches stay in the processor's cache.
        pieces = [block] if plan.grid.stride_px < patch_px else [range(index, index + 1) for index in block]
        chunks: list[_Chunk] = []
        for piece in pieces:
            for patch in read_windows(slide, plan.canvas, windows[piece.start : piece.stop]):
                if isinstance(patch, UnreadableError):
                    chunks.append(patch)
                else:
                    chunks.append(writer.codec.encode(np.ascontiguousarray(patch)))
        return chunks

    def copy(block: range) -> list[_Chunk]:
        if level is None or not isinstance(slide, RawTiles):
            raise TypeError("copying was planned for a slide that gives no tiles")
        return [_sound_tile(slide, level, windows[i]) for i in block]

    return copy if plan.codec == "copy" else encode


def _sound_tile(slide: RawTiles, level: int, window: Window) -> _Chunk:
    """Return a JPEG tile that can be decoded: damage found only in training would be found too late."""
    try:
        tile = slide.raw_tile(level, window.x // window.width, window.y // window.height)
    except UnreadableError as error:
        return error
    if tile is None:
        return None
    try:
        check_jpeg(tile.data, (window.height, window.width))
    except ValueError as error:
        return UnreadableError(f"the tile at {window.x}, {window.y} of level {level} cannot be decoded: {error}")
    return tile.data


def _table(info: SlideInfo, plan: TilePlan, work: SlideWork) -> PatchTable:
    size = np.array(plan.grid.canvas)
    if plan.level is not None:
        # A canvas may be a pixel larger than the level that it shows.
        level = info.levels[plan.level].size
        size = np.minimum(size, [level.width, level.height])
    extents = np.clip(size - plan.windows, 0, plan.grid.patch_px).astype(np.int32)
    count = len(plan)
    return PatchTable(
        positions=np.rint(plan.windows * plan.canvas.scale.downsample).astype(np.int64),
        windows=plan.windows,
        extents=extents,
        tissue=plan.tissue,
        parent=np.zeros(count, dtype=np.int32),
        split=np.full(count, ("", *SPLITS).index(work.split), dtype=np.uint8),
    )


def _meta(info: SlideInfo, plan: TilePlan, work: SlideWork, table: PatchTable, overview: Overview) -> PatchMeta:
    origin = SlideOrigin(
        path=url_of(work.path) or str(work.path.resolve()),
        slide_id=work.slide_id,
        fingerprint=fingerprint(work.path),
        size=(info.size.width, info.size.height),
        mpp=None if info.mpp is None else info.mpp.value,
        reader=info.reader,
        bounds=None if info.bounds is None else (info.bounds.x, info.bounds.y, info.bounds.width, info.bounds.height),
    )
    config = work.config()
    digest = hashlib.blake2b(origin.fingerprint.encode(), digest_size=16)
    digest.update(json.dumps(config, sort_keys=True).encode())
    digest.update(table.positions.astype("<i8").tobytes())
    return PatchMeta(
        codec=plan.codec,
        mpp=plan.canvas.mpp,
        background=info.background,
        parents=(work.slide_id,),
        groups=(work.patient_id or work.slide_id,),
        splits=("", *SPLITS),
        fingerprint=digest.hexdigest(),
        slide=origin,
        grid=plan.grid,
        tissue={**work.tissue, "area_mm2": overview.area_mm2},
        config=config,
        provenance={"tool": "wsiseg tile", "version": __version__},
    )
