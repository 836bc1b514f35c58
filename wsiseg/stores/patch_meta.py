"""What a patch store says about itself, kept in the attributes of its Zarr group."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from wsiseg.errors import StoreError
from wsiseg.stores.zarr_files import read_metadata

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = 1
KEY: Final = "wsiseg"

# The split of all patches that no camera took, whatever else is said of them.
SYNTHETIC: Final = "synthetic"

CodecName = Literal["zstd", "jpeg", "copy", "none"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SlideOrigin(_Model):
    """The slide that patches were cut from.

    Parameters
    ----------
    path
        Where the slide was, absolute.
    slide_id
        Its name in outputs.
    fingerprint
        Hash that tells another file apart.
    size
        Width and height of level 0.
    mpp
        Micrometres per level-0 pixel, or None where unknown.
    reader
        The adapter that read it.
    bounds
        x, y, width and height of the scanned part in level-0 pixels, or None where the slide names none.
    """

    path: str
    slide_id: str
    fingerprint: str
    size: tuple[int, int]
    mpp: float | None
    reader: str
    bounds: tuple[int, int, int, int] | None = None


class PatchGrid(_Model):
    """How patches lie on the slide: patch (column, row) begins at canvas pixel (column, row) * stride.

    Parameters
    ----------
    patch_px
        Edge of a patch in canvas pixels.
    stride_px
        Canvas pixels from one patch to the next.
    downsample
        Level-0 pixels per canvas pixel.
    canvas
        Width and height of the canvas in pixels.
    """

    patch_px: int
    stride_px: int
    downsample: float
    canvas: tuple[int, int]


class PatchMeta(_Model):
    """Everything about a patch store that is not an array.

    Parameters
    ----------
    schema_version
        Version of the layout on disk.
    kind
        Always ``patches``.
    codec
        How images are stored; with ``none`` they are read from the slide.
    mpp
        Micrometres per patch pixel, or None where unknown.
    background
        Colour of pixels outside a patch's extent, RGB.
    parents
        Names of the slides or images that patches were cut from.
    groups
        For each parent what must stay together in splits, such as a patient.
    splits
        Names of splits; the first is empty, for patches without one.
    fingerprint
        Hash of what the store was made from, for the provenance of models.
    origin
        ``real``, or ``synthetic`` for images that a network made: these are learnt from and never judge anything.
    slide
        The slide, or None for images.
    grid
        How patches lie on the slide, or None for images.
    tissue
        How tissue was found.
    config
        The resolved settings of the command that made the store.
    provenance
        Tool and version.
    unreadable
        Patches that were planned but left out, as the slide is damaged there.
    """

    schema_version: int = SCHEMA
    kind: Literal["patches"] = "patches"
    codec: CodecName
    mpp: float | None
    background: tuple[int, int, int] = (255, 255, 255)
    parents: tuple[str, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...] = ("",)
    fingerprint: str
    origin: Literal["real", "synthetic"] = "real"
    slide: SlideOrigin | None = None
    grid: PatchGrid | None = None
    # Settings of whoever made the store; readers only show them.
    tissue: dict[str, Any] = {}
    config: dict[str, Any] = {}
    provenance: dict[str, str] = {}
    unreadable: int = 0

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what the store at `path` says about itself.

        Raises
        ------
        StoreError
            If there is no patch store, or it has another schema version.
        """
        if not path.is_dir():
            raise StoreError("there is no such store", where=path, mend="Make one with wsiseg tile or wsiseg ingest")
        attributes = read_metadata(path).get("attributes", {}).get(KEY)
        if not isinstance(attributes, dict) or attributes.get("kind") != "patches":
            raise StoreError("not a patch store", where=path, mend="Make one with wsiseg tile or wsiseg ingest")
        version = attributes.get("schema_version")
        if version != SCHEMA:
            raise StoreError(
                f"the store has schema version {version}, this wsiseg reads version {SCHEMA}",
                where=path,
                mend="Make it again with --overwrite, or use the wsiseg that made it",
            )
        try:
            return cls.model_validate_json(json.dumps(attributes))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise StoreError(f"the store's attributes are damaged: {place}: {first['msg']}", where=path) from error
