"""Plain images (PNG, JPEG, BMP, TIFF) as slides of one level, decoded whole on first use."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Self

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from wsiseg.errors import SlideError, UnreadableError
from wsiseg.geometry import Size, Window
from wsiseg.slides.base import Level, SlideInfo
from wsiseg.slides.mpp import choose_mpp
from wsiseg.slides.tiff_whole import MAGIC as TIFF_MAGIC

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

# They are decoded whole: 3 GB of pixels.
MAX_PIXELS = 1_000_000_000
BACKGROUND = (255, 255, 255)
_EIGHT_BIT_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}


class ImageSlide:
    """An image file as a slide.

    Grayscale and palette images become RGB; transparent pixels show the background.

    Parameters
    ----------
    path
        The image.
    why
        Why this reader was chosen, for people.
    slide_mpp
        Pixel size that beats the file's own.

    Raises
    ------
    SlideError
        If it is no image, too large to be decoded whole, or not 8-bit.
    """

    def __init__(self, path: Path, *, why: str = "asked for", slide_mpp: float | None = None) -> None:
        self._lock = threading.Lock()
        self._pixels: NDArray[np.uint8] | None = None
        self._path = path
        with path.open("rb") as file:
            self._is_tiff = file.read(4) in TIFF_MAGIC
        size, vendor, compression, properties = _describe_tiff(path) if self._is_tiff else _describe(path)
        if size.area > MAX_PIXELS:
            raise SlideError(
                f"an untiled image of {size} pixels is too large to be decoded whole",
                where=path,
                mend="Convert it to a tiled pyramidal TIFF",
            )
        mpp, problem, candidates = choose_mpp(properties, slide_mpp=slide_mpp)
        self._info = SlideInfo(
            path=path,
            reader="images",
            why=why,
            vendor=vendor,
            levels=(Level(size=size, downsample=1.0, compression=compression),),
            mpp=mpp,
            mpp_problem=problem,
            mpp_candidates=candidates,
            background=BACKGROUND,
            properties=properties,
        )

    @property
    def info(self) -> SlideInfo:
        """Return what the slide is."""
        return self._info

    def read_level(self, level: int, window: Window) -> NDArray[np.uint8]:
        """Return pixels of one level, RGB (H, W, 3); see `Slide`."""
        pixels = self._decoded()
        result = np.empty((window.height, window.width, 3), dtype=np.uint8)
        result[:] = BACKGROUND
        inside = window.clipped(self._info.levels[level].size)
        if not inside.is_empty:
            result[inside.within(window).slices] = pixels[inside.slices]
        return result

    def close(self) -> None:
        """Forget the pixels."""
        self._pixels = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self.close()

    def _decoded(self) -> NDArray[np.uint8]:
        with self._lock:
            if self._pixels is None:
                try:
                    self._pixels = _decode_tiff(self._path) if self._is_tiff else _decode(self._path)
                except Exception as error:  # decoders raise whatever they like at broken bytes
                    raise UnreadableError(f"cannot be decoded: {error}", where=self._info.name) from error
            return self._pixels


def _describe(path: Path) -> tuple[Size, str, str | None, dict[str, str]]:
    try:
        with _open(path) as image:
            if image.mode not in _EIGHT_BIT_MODES:
                raise _not_eight_bit(path, image.mode)
            properties = {}
            if "dpi" in image.info:
                x, y = image.info["dpi"]
                properties = {"image.dpi-x": f"{float(x):.9g}", "image.dpi-y": f"{float(y):.9g}"}
            kind = (image.format or "image").lower()
            return Size(*image.size), "image", kind, properties
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise SlideError("not an image that can be read", where=path) from error


def _decode(path: Path) -> NDArray[np.uint8]:
    with _open(path) as image:
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            canvas = Image.new("RGBA", image.size, (*BACKGROUND, 255))
            return np.asarray(Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB"))
        return np.asarray(image.convert("RGB"))


def _open(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # The limit on size is our own, with a message that helps.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _describe_tiff(path: Path) -> tuple[Size, str, str | None, dict[str, str]]:
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            if page.dtype is None or page.dtype.name not in ("uint8", "bool"):
                raise _not_eight_bit(path, str(page.dtype))
            if page.samplesperpixel not in (1, 3, 4):
                raise SlideError(f"has {page.samplesperpixel} channels instead of 1, 3 or 4", where=path)
            properties = {}
            if "XResolution" in page.tags and "YResolution" in page.tags:
                x, y = page.get_resolution()
                unit = page.tags["ResolutionUnit"].value if "ResolutionUnit" in page.tags else 2
                properties = {
                    "tiff.XResolution": f"{x:.9g}",
                    "tiff.YResolution": f"{y:.9g}",
                    "tiff.ResolutionUnit": {1: "none", 2: "inch", 3: "centimeter"}.get(int(unit), "none"),
                }
            return (
                Size(page.imagewidth, page.imagelength),
                "tiff",
                tifffile.COMPRESSION(page.compression).name.lower(),
                properties,
            )
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, ZeroDivisionError) as error:
        raise SlideError(f"not a TIFF that can be read: {error}", where=path) from error


def _decode_tiff(path: Path) -> NDArray[np.uint8]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        pixels = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
            pixels = np.moveaxis(pixels, 0, -1)
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
            pixels = (page.colormap[:, pixels] >> 8).astype(np.uint8).transpose(1, 2, 0)
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * 255
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = 255 - pixels
    if pixels.ndim == 2:  # noqa: PLR2004 - grayscale
        pixels = pixels[..., None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3], dtype=np.uint8)


def _not_eight_bit(path: Path, kind: str) -> SlideError:
    return SlideError(
        f"has {kind} pixels; only 8-bit images are read", where=path, mend="Convert it to 8-bit RGB with a fixed window"
    )
