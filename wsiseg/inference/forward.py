"""Batches of tiles through the network."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import torch

from wsiseg.errors import PredictionError
from wsiseg.inference.devices import Footprint, free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.grid import Tile
    from wsiseg.methods.base import Predictor

logger = logging.getLogger(__name__)

Tta: TypeAlias = Literal["none", "flips", "d4"]
SYMMETRIES: Final[dict[Tta, tuple[int, ...]]] = {"none": (0,), "flips": (0, 2, 4, 6), "d4": tuple(range(8))}

# A tile and its pixels, uint8 (H, W, 3), or None where they cannot be read.
ReadTile: TypeAlias = "tuple[Tile, NDArray[np.uint8] | None]"
# A tile and its output, float32 (channels, H, W), or None where its pixels could not be read.
TileOutput: TypeAlias = "tuple[Tile, NDArray[np.float32] | None]"


@dataclass(frozen=True, slots=True)
class _Pending:
    batch: Sequence[ReadTile]
    result: Tensor
    is_ready: torch.cuda.Event | None


class Network:
    """A predictor on a device, with all that speeds it up.

    Parameters
    ----------
    predictor
        Moved to the device.
    device
        Where it runs.
    dtype
        Number format of mixed precision, or None.
    tta
        Symmetries whose mean is taken.
    is_compiled
        Whether to compile the network, which pays off after some minutes of work.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        device: torch.device,
        dtype: torch.dtype | None = None,
        tta: Tta = "none",
        is_compiled: bool = False,
    ) -> None:
        predictor.to(device)
        self.predictor = predictor
        self.device = device
        self._dtype = dtype
        self._symmetries = SYMMETRIES[tta]
        self._forward: Callable[[Tensor], Tensor] = predictor.forward
        if is_compiled:
            self._forward = torch.compile(predictor.forward)
        # What memory has been found to allow. A CPU gains nothing from batches, and tiles one by one come out
        # the same to the last bit whatever the size of a batch.
        self._limit = 1 if device.type == "cpu" else None

    def outputs(self, tiles: Iterable[ReadTile], *, batch_size: int, trim_px: int) -> Generator[TileOutput]:
        """Yield the output of each tile in order.

        Tiles are joined to batches by their order alone, and batches have one size. On CUDA one
        batch runs ahead.

        Parameters
        ----------
        tiles
            In the order of the walk.
        batch_size
            Tiles at once; fewer where memory does not suffice.
        trim_px
            Pixels to cut off each side of the output.
        """
        depth = 1 if self.device.type == "cuda" else 0
        running: deque[_Pending] = deque()
        with torch.inference_mode():
            for batch in _batches(tiles, batch_size):
                running.append(self._launch(batch, batch_size, trim_px))
                if len(running) > depth:
                    yield from _collect(running.popleft())
            while running:
                yield from _collect(running.popleft())

    def _launch(self, batch: Sequence[ReadTile], batch_size: int, trim_px: int) -> _Pending:
        side = self.predictor.spec.tile_px
        blank = np.full((side, side, 3), 255, dtype=np.uint8)
        tiles = [blank if tile is None else tile for _, tile in batch]
        if self.device.type != "cpu":
            # A GPU's results depend on the size of a batch in their last bits.
            tiles += [blank] * (batch_size - len(tiles))
        # Channels last is how pixels lie already.
        pixels = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        result = self._run(pixels)[:, :, trim_px : side - trim_px, trim_px : side - trim_px]
        if self.device.type != "cuda":
            return _Pending(batch, result.cpu(), None)
        host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        host.copy_(result, non_blocking=True)
        is_ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        is_ready.record(torch.cuda.current_stream(self.device))
        return _Pending(batch, host, is_ready)

    def _run(self, pixels: Tensor) -> Tensor:
        """Return the output for `pixels`, in smaller batches where memory does not suffice."""
        while True:
            size = min(len(pixels), self._limit or len(pixels))
            try:
                parts = [self.bare(part.to(self.device, non_blocking=True)) for part in torch.split(pixels, size)]
                return torch.cat(parts) if len(parts) > 1 else parts[0]
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise PredictionError(
                        "one tile does not fit into the device's memory",
                        where=str(self.device),
                        mend="Use another device, or --device cpu",
                    ) from error
            self._limit = size // 2
            logger.warning("out of memory on %s: going on with batches of %d", self.device, self._limit)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def bare(self, batch: Tensor) -> Tensor:
        """Return the output for uint8 pixels (B, 3, H, W) on the device: the mean over the symmetries."""
        with self._autocast():
            total = self._forward(batch).float()
            for symmetry in self._symmetries[1:]:
                total += self.predictor.transformed(batch, symmetry).float()
        return total / len(self._symmetries) if len(self._symmetries) > 1 else total

    def _autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self._dtype is None else torch.autocast(self.device.type, dtype=self._dtype)

    def suggested_batch_size(self) -> int:
        """Return how many tiles at once suit the device; on CUDA it is measured with one."""
        if self.device.type != "cuda":
            return 1
        side = self.predictor.spec.tile_px
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        with torch.inference_mode():
            self.bare(torch.zeros((1, 3, side, side), dtype=torch.uint8, device=self.device))
        peak = torch.cuda.max_memory_allocated(self.device) - before
        return Footprint(per_tile=peak).batch(free_memory(self.device))


def _batches(tiles: Iterable[ReadTile], size: int) -> Generator[list[ReadTile]]:
    batch: list[ReadTile] = []
    for tile in tiles:
        batch.append(tile)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _collect(pending: _Pending) -> Generator[TileOutput]:
    if pending.is_ready is not None:
        pending.is_ready.synchronize()
    # The result may hold more tiles than the batch, which was filled up.
    for (tile, pixels), output in zip(pending.batch, pending.result.numpy(), strict=False):
        yield tile, None if pixels is None else output
