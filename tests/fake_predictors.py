"""Predictors without weights: local functions of the pixels whose results can be computed by hand."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy.ndimage import label
from torch.nn.functional import avg_pool2d, pad

from wsiseg.geometry import Canvas, Scale, Size, Window
from wsiseg.grid import Grid
from wsiseg.heads.base import Instances
from wsiseg.inference.engine import segment
from wsiseg.inference.forward import Network
from wsiseg.inference.job import Job
from wsiseg.inference.memory import Load
from wsiseg.inference.walk import Walk
from wsiseg.journal import Journal
from wsiseg.labels import LabelMap
from wsiseg.methods.base import PredictorSpec
from wsiseg.stores.mask_store import MaskStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.inference.blending import Blend
    from wsiseg.inference.forward import Tta
    from wsiseg.slides.base import Slide
    from wsiseg.stopping import Stop
    from wsiseg.stores.mask_layers import Layer
    from wsiseg.white import WhiteRule


def box_mean(values: Tensor, radius: int) -> Tensor:
    """Return means over squares; exact in float32 for small whole numbers, so the same however it is cut."""
    side = 2 * radius + 1
    padded = pad(values.float(), (radius,) * 4)
    return avg_pool2d(padded, side, stride=1, divisor_override=1)


@dataclass
class FakePredictor:
    """Dark is foreground. The output of a pixel depends on pixels up to `radius` away.

    Semantic: two classes, without a background where there is a rule for what is white. Instance: connected
    components of the foreground.
    """

    task: Literal["semantic", "instance"] = "semantic"
    tile_px: int = 64
    halo_px: int = 8
    radius: int = 2
    mpp: float | None = 0.5
    batches: list[int] = field(default_factory=list)
    fail_beyond: int | None = None
    white: WhiteRule | None = None

    @property
    def spec(self) -> PredictorSpec:
        other = "background" if self.white is None else "pale"
        names = (other, "dark") if self.task == "semantic" else ("background", "nucleus")
        return PredictorSpec(
            task=self.task,
            labels=LabelMap.from_names(names),
            mpp=self.mpp,
            tile_px=self.tile_px,
            halo_px=self.halo_px,
            channels=2 if self.task == "semantic" else 1,
            background=() if self.task == "semantic" else (-20.0,),
            white=self.white,
        )

    def to(self, device: torch.device) -> None:
        """Stay."""

    def forward(self, batch: Tensor) -> Tensor:
        self.batches.append(len(batch))
        if self.fail_beyond is not None and len(batch) > self.fail_beyond:
            raise torch.OutOfMemoryError("too much")
        darkness = box_mean(255 - batch[:, :1].int(), self.radius) / (2 * self.radius + 1) ** 2
        if self.task == "instance":
            return darkness - 100
        share = darkness / 255
        return torch.cat((1 - share, share), dim=1)

    def transformed(self, batch: Tensor, symmetry: int) -> Tensor:
        turned = torch.rot90(batch.flip(-1) if symmetry >= 4 else batch, symmetry % 4, (-2, -1))
        back = torch.rot90(self.forward(turned), -(symmetry % 4), (-2, -1))
        return back.flip(-1) if symmetry >= 4 else back

    def decode(self, maps: NDArray[np.float32]) -> Instances:
        labels, count = label(maps[0] > 0)
        return Instances.from_labels(labels.astype(np.int32), np.full(count, 0.75, dtype=np.float32))

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        inside: NDArray[np.float32] = (1 / (1 + np.exp(-maps[0] / 20))).astype(np.float32)
        return inside


def whole(predictor: FakePredictor, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the predictor's output for a whole image at once, on a white surround."""
    margin = predictor.radius
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
    output = predictor.forward(torch.from_numpy(padded).permute(2, 0, 1)[None])[0].numpy()
    return output[:, margin : output.shape[1] - margin, margin : output.shape[2] - margin]


@contextmanager
def job_on(
    folder: Path,
    slide: Slide,
    predictor: FakePredictor,
    *,
    blend: Blend = "none",
    tissue: NDArray[np.bool_] | None = None,
    margin_px: int = 24,
    bands: int = 1,
    with_probs: bool = False,
) -> Iterator[Job]:
    """Give the job of one slide at its own resolution, with `bands` rows of cells to a band."""
    spec = predictor.spec
    canvas = Canvas(slide.info.size, Scale(1.0), spec.mpp)
    core = spec.tile_px - 2 * spec.halo_px
    grid = Grid(canvas.size, Size(core, core), spec.halo_px)
    is_instance = spec.task == "instance"
    walk = Walk(
        grid=grid,
        reach_px=0 if blend == "none" else min(core, spec.halo_px) // 2,
        margin_px=margin_px if is_instance else 0,
        band_px=core * bands,
    )
    store = MaskStore.create(
        folder / "prediction.zarr",
        canvas=canvas,
        labels=spec.labels,
        layers=(
            *("classes", "uncertainty"),
            *(("instances",) if is_instance else ()),
            *(("probability",) if with_probs else ()),
        ),
        band_px=walk.band_px,
    )
    with Journal(folder / "journal", {}) as journal:
        yield Job(
            slide=slide,
            canvas=canvas,
            walk=walk,
            is_tissue=np.ones((grid.rows, grid.columns), dtype=np.bool_) if tissue is None else tissue,
            store=store,
            journal=journal,
            parts=folder / "parts",
            white=predictor.white,
        )


def run(
    job: Job,
    predictor: FakePredictor,
    *,
    blend: Blend = "none",
    batch_size: int = 3,
    tta: Tta = "none",
    threads: int = 1,
    stop: Stop | None = None,
) -> None:
    """Work off a job on the CPU."""
    network = Network(predictor, device=torch.device("cpu"), tta=tta)
    segment(job, network, blend=blend, load=Load(batch_size=batch_size, readers=threads, finders=threads), stop=stop)


def read(job: Job, layer: Layer) -> NDArray[Any]:
    """Return a whole layer."""
    return job.store.read(layer, Window(0, 0, job.canvas.size.width, job.canvas.size.height))
