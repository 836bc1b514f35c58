"""Batches of three kinds of crops: cells as they are, cells moved into H&E tissue, and the slide.

Cells in other stains know what nuclei are shaped like and where they touch; the slide knows what
H&E looks like. A composite has both: the dye of labelled cells in a random haematoxylin, on the
slide's eosin from which its own nuclei were taken.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from material import DIAMETER_PX, GLASS, UNMIX, Picture, density, diameter_px, dye, ground
from scipy import ndimage
from torch.nn import functional

from wsiseg.executors import ordered_map
from wsiseg.training.augmentation import Augmentation, draw_look
from wsiseg.training.batches import Crops

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from material import Cells
    from numpy.typing import NDArray

CROP_PX = 160
SHARES = (2, 4, 2)  # crops of a batch: cells, composites, slide
STAIN_WEIGHTS = {"purple_on_purple": 0.5, "purple_on_white": 0.4}  # the few H&E images count one by one
HE_WEIGHT = 0.06
LOOK = Augmentation(
    stain_strength=0.2, stain_tone=0.03, stain_offset=0.03, brightness=0.12, contrast=0.2, saturation=0.2, hue=8,
    gamma=0.25, blur_px=1.1, noise=0.03,
)  # fmt: skip
Crop = tuple["NDArray[np.float32]", "NDArray[np.int32]", "NDArray[np.bool_]"]


class Mixture:
    """An endless row of batches, each a function of its number and the seed alone.

    Parameters
    ----------
    cells
        Labelled images in mixed stains.
    slide
        RGB uint8 (H, W, 3).
    labels, valid
        What is believed about the slide.
    encode
        Makes targets of labels.
    seed
        Decides everything that is random.
    """

    images_per_batch = sum(SHARES)
    images_per_epoch = 1000

    def __init__(
        self,
        cells: list[Cells],
        slide: NDArray[np.uint8],
        labels: NDArray[np.int32],
        valid: NDArray[np.bool_],
        *,
        encode: Callable[..., dict[str, NDArray[np.float32]]],
        seed: int,
    ) -> None:
        everywhere = [np.ones(item.labels.shape, dtype=bool) for item in cells]
        sizes = [diameter_px(item.labels) for item in cells]
        self._cells = [
            Picture.of(item.rgb, item.labels, whole, size)
            for item, whole, size in zip(cells, everywhere, sizes, strict=True)
        ]
        self._dyes = [
            Picture.of(dye(item)[..., None], item.labels, whole, size)
            for item, whole, size in zip(cells, everywhere, sizes, strict=True)
        ]
        stains = [item.stain for item in cells]
        odds = np.array(
            [STAIN_WEIGHTS[stain] / stains.count(stain) if stain in STAIN_WEIGHTS else HE_WEIGHT for stain in stains]
        )
        self._odds = odds / odds.sum()
        self._slide = Picture.of(slide, labels, valid, DIAMETER_PX)
        none = np.zeros(labels.shape, dtype=np.int32)
        self._ground = Picture.of(ground(slide, labels), none, np.ones(labels.shape, dtype=bool), DIAMETER_PX)
        tissue = ndimage.gaussian_filter(density(slide).mean(axis=-1), 2) > GLASS
        self._places = np.argwhere(tissue)
        self._encode = encode
        self._seed = seed

    def make(self, number: int) -> Crops:
        """Return batch `number`."""
        rng = np.random.default_rng((self._seed, number))
        kinds = (self._plain, self._composite, self._tissue)
        crops = [kind(rng) for kind, share in zip(kinds, SHARES, strict=True) for _ in range(share)]
        images = np.stack([np.clip(image, 0, 255).astype(np.uint8).transpose(2, 0, 1) for image, _, _ in crops])
        targets = [self._encode(labels, valid) for _, labels, valid in crops]
        looks = [draw_look(LOOK, rng) for _ in crops]
        return Crops(
            images=torch.from_numpy(images),
            targets={name: torch.from_numpy(np.stack([item[name] for item in targets])) for name in targets[0]},
            look={name: torch.from_numpy(np.stack([look[name] for look in looks])) for name in looks[0]},
            seed=number,
        )

    def composites(self, count: int) -> list[Crop]:
        """Return RGB, object ids and what of them counts, for images to choose by instead of to learn from."""
        return [self._composite(np.random.default_rng((self._seed, number))) for number in range(count)]

    def stream(self, start: int, stop: int, *, workers: int) -> Generator[Crops]:
        """Yield the batches from `start` up to `stop`, made ahead of time."""
        return ordered_map(self.make, range(start, stop), workers=workers, ahead=2 * workers)

    def _plain(self, rng: np.random.Generator) -> Crop:
        picture = self._cells[rng.choice(len(self._cells), p=self._odds)]
        image, labels, valid = _warped(picture, rng, _scale(picture, rng))
        return (_restained(image, rng) if rng.random() < 0.6 else image), labels, valid  # noqa: PLR2004

    def _composite(self, rng: np.random.Generator) -> Crop:
        """Return labelled nuclei on the slide's eosin: in half of the crops large and hollow, as many tumours' are."""
        picture = self._dyes[rng.choice(len(self._dyes), p=self._odds)]
        vesicular = rng.random() < 0.5  # noqa: PLR2004
        larger = math.exp(rng.uniform(0, 0.5)) if vesicular else 1.0
        slender = math.exp(rng.normal(0, 0.2))
        amount, labels, valid = _warped(picture, rng, _scale(picture, rng, larger), stretch=slender)
        amount = amount[..., 0]
        tissue, _, _ = _warped(self._ground, rng, math.exp(rng.normal(0, 0.4)), centre=self._place(rng))
        eosin, faint = tissue[..., 0], tissue[..., 1]
        nuclei = ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.8)
        depth, texture = rng.uniform(0.5 if vesicular else 0.35, 1.5), rng.uniform(0, 1)
        amount = np.sign(amount) * np.abs(amount) ** rng.uniform(0.6, 1.3)
        amount = chromatin(amount, labels, rng, hollow=rng.uniform(0.3, 0.95) if vesicular else rng.uniform(0, 0.3))
        # What a nucleus displaces of the cytoplasm: a clear one is paler than its surroundings.
        covered = 1 - nuclei * rng.uniform(0, 0.9 if vesicular else 0.5)
        haematoxylin = amount * depth * np.where(amount > 0, nuclei + (1 - nuclei) * texture, texture)
        faint = faint * math.exp(rng.normal(-0.7, 0.5)) + rng.uniform(0, 0.25) * depth * (rng.random() < 0.5)  # noqa: PLR2004
        haematoxylin += np.minimum(faint, rng.uniform(0.3, 1) * depth) * covered
        eosin = eosin * math.exp(rng.normal(0, 0.4)) * covered
        dyes = _random_dyes(rng)
        optical = np.clip(haematoxylin, -0.05, None)[..., None] * dyes[0] + np.clip(eosin, 0, None)[..., None] * dyes[1]
        return _crisp(256 * np.exp(-optical - rng.uniform(0, 0.08)) - 1, rng), labels, valid

    def _tissue(self, rng: np.random.Generator) -> Crop:
        image, labels, valid = _warped(self._slide, rng, math.exp(rng.normal(0, 0.22)), centre=self._place(rng))
        image = _crisp(image, rng)
        return (_restained(image, rng) if rng.random() < 0.8 else image), labels, valid  # noqa: PLR2004

    def _place(self, rng: np.random.Generator) -> tuple[float, float]:
        y, x = self._places[rng.integers(len(self._places))]
        return float(x), float(y)


def _scale(picture: Picture, rng: np.random.Generator, larger: float = 1.0) -> float:
    """Return a scale at which the picture's objects are about as large as nuclei on the slide, or `larger`."""
    diameter = float(np.clip(DIAMETER_PX * larger * math.exp(rng.normal(0, 0.28)), 7.5, 28))
    # No smaller than two thirds of a crop, lest the crop be mostly mirror images.
    return max(diameter / picture.diameter_px, CROP_PX * 0.66 / max(picture.labels.shape))


def _warped(
    picture: Picture,
    rng: np.random.Generator,
    scale: float,
    *,
    centre: tuple[float, float] | None = None,
    stretch: float = 1.0,
) -> Crop:
    """Return a crop, mirrored beyond the edges, turned, scaled to `scale` times the first level, and stretched."""
    height, width = picture.labels.shape
    level = 0
    while level + 1 < len(picture.levels) and picture.levels[level + 1].shape[0] / height >= scale * 0.95:
        level += 1
    pixels = picture.levels[level]
    angle = (rng.uniform(0, 2 * math.pi) if rng.random() < 0.5 else 0.0) + rng.integers(4) * math.pi / 2  # noqa: PLR2004
    mirror = rng.choice((-1.0, 1.0))
    stretch *= math.exp(rng.normal(0, 0.06))
    if centre is None:
        half = CROP_PX / scale * 0.4
        centre = tuple(rng.uniform(min(half, side / 2), max(side - half, side / 2)) for side in (width, height))
    grid = (np.arange(CROP_PX, dtype=np.float32) + 0.5 - CROP_PX / 2) / scale
    across, down = grid[None, :] / stretch, grid[:, None] * stretch
    x = centre[0] + mirror * (math.cos(angle) * across - math.sin(angle) * down)
    y = centre[1] + math.sin(angle) * across + math.cos(angle) * down
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = _mirrored(x, width), _mirrored(y, height)
    rows, columns = np.minimum(y.astype(np.intp), height - 1), np.minimum(x.astype(np.intp), width - 1)
    labels = np.where(inside, picture.labels[rows, columns], 0)
    valid = picture.valid[rows, columns] & inside
    sliver = np.bincount(labels.ravel()) < 10  # noqa: PLR2004 - pixels
    sliver[0] = False
    valid &= ~sliver[labels]
    image = _sampled(pixels, x * (pixels.shape[1] / width), y * (pixels.shape[0] / height))
    return image, np.where(sliver[labels], 0, labels).astype(np.int32), valid


def _mirrored(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    turned = np.mod(values, 2 * side)
    return np.where(turned >= side, 2 * side - turned - 1e-3, turned)


def _sampled(pixels: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pixels (H, W, channels) at places (h, w), interpolated linearly."""
    left, top = max(0, int(x.min()) - 2), max(0, int(y.min()) - 2)
    part = pixels[top : int(y.max()) + 3, left : int(x.max()) + 3]
    height, width = part.shape[:2]
    grid = np.stack([2 * (x - left) / width - 1, 2 * (y - top) / height - 1], axis=-1).astype(np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None]
    taken = functional.grid_sample(
        tensor, torch.from_numpy(grid)[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return taken[0].permute(1, 2, 0).numpy()


def chromatin(
    amount: NDArray[np.float32], labels: NDArray[np.int32], rng: np.random.Generator, *, hollow: float
) -> NDArray[np.float32]:
    """Return a dye whose nuclei are unequally dark, coarse, and lack up to `hollow` of it within their rims.

    Nuclei so emptied have nucleoli, dark spots of a micrometre or so.
    """
    count = int(labels.max()) + 1
    strength = np.exp(rng.normal(0, 0.25, count)).astype(np.float32)
    strength[0] = 1
    factors = ndimage.gaussian_filter(strength[labels], 0.7)
    grain = ndimage.gaussian_filter(rng.standard_normal(labels.shape).astype(np.float32), rng.uniform(0.6, 1.3))
    factors *= np.exp(rng.uniform(0, 0.35) / max(float(grain.std()), 1e-6) * grain)
    rim = (ndimage.grey_dilation(labels, size=3) != labels) | (ndimage.grey_erosion(labels, size=3) != labels)
    depth = ndimage.distance_transform_edt((labels > 0) & ~rim).astype(np.float32)
    middle = 1 - np.exp(-np.square(depth / np.float32(rng.uniform(1, 2.5))))
    lacking = (hollow * rng.uniform(0.6, 1, count)).astype(np.float32)
    lacking[0] = 0
    area = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    seeds = (rng.random(labels.shape) < rng.uniform(0, 2) / area[labels]) & (depth > 1)
    width = rng.uniform(0.7, 1.5)
    nucleoli = ndimage.gaussian_filter(seeds.astype(np.float32), width) * np.float32(2 * math.pi * width**2)
    emptied = lacking[labels] * middle
    return (amount * factors * (1 - emptied) + emptied * np.minimum(nucleoli, 1)).astype(np.float32)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float32]:
    vector = np.clip(vector, 0.01, None)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _random_dyes(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a haematoxylin and an eosin such as laboratories might use, densities (2, 3)."""
    haematoxylin = _unit(np.array([0.64, 0.71, 0.29]) + rng.normal(0, [0.09, 0.07, 0.08]))
    eosin = _unit(np.array([0.14, 0.94, 0.25]) + rng.normal(0, [0.07, 0.06, 0.10]))
    return np.stack([haematoxylin, eosin])


def _crisp(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return an image that is sharper in half of the draws: the slide was scanned with less detail than others are."""
    if rng.random() < 0.5:  # noqa: PLR2004
        return image
    soft = ndimage.gaussian_filter(image, (rng.uniform(0.7, 1.4),) * 2 + (0,))
    return image + np.float32(rng.uniform(0, 1.5)) * (image - soft)


def _restained(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return an image (H, W, 3), 0 … 255, in other dyes and other amounts of them."""
    amounts = density(image) @ UNMIX
    amounts = amounts * np.exp(rng.normal(0, [0.25, 0.3, 0.2])).astype(np.float32)
    amounts = amounts + rng.normal(0, [0.03, 0.04, 0.02]).astype(np.float32)
    dyes = np.vstack([_random_dyes(rng), np.linalg.inv(UNMIX)[2]]).astype(np.float32)
    return 256 * np.exp(-(amounts @ dyes)) - 1
