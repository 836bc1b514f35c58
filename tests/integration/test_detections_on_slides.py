"""What is detected tile by tile is painted once: nuclei on seams are one nucleus, however tiles are joined."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from tests.fake_predictors import FakePredictor, job_on, read, run
from tests.nuclei_makers import aji, ellipses
from wsiseg.heads.registry import make_head
from wsiseg.methods.base import PredictorSpec
from wsiseg.nets.detection_losses import Truth
from wsiseg.nets.maskrcnn import detection_maps
from wsiseg.slides.array import ArraySlide

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from wsiseg.heads.base import Instances
    from wsiseg.inference.blending import Blend
    from wsiseg.inference.forward import Tta

HEAD = make_head("centre", reach_px=16)
SCORE = 0.75


class Detector(FakePredictor):
    """Detects what is dark and of one piece, one by one, and as a box with a mask of 28 × 28."""

    @property
    def spec(self) -> PredictorSpec:
        labels = super().spec.labels
        return PredictorSpec(
            task="instance",
            labels=labels,
            mpp=self.mpp,
            tile_px=self.tile_px,
            halo_px=self.halo_px,
            channels=HEAD.channels,
            background=HEAD.background,
        )

    def forward(self, batch: Tensor) -> Tensor:
        return torch.stack([torch.from_numpy(self.detected(image[0].cpu().numpy() < 100)) for image in batch])

    def detected(self, is_dark: NDArray[np.bool_]) -> NDArray[np.float32]:
        nuclei = torch.from_numpy(label(is_dark)[0])
        truth = Truth.of(nuclei, torch.ones(nuclei.shape, dtype=torch.bool))
        masks = project_masks_on_boxes(truth.masks, truth.boxes, torch.arange(len(truth.boxes)), 28)
        scores = np.full(len(masks), SCORE, np.float32)
        height, width = nuclei.shape
        return detection_maps(truth.boxes.numpy(), masks[:, None].numpy(), scores, height=height, width=width)

    def transformed(self, batch: Tensor, symmetry: int) -> Tensor:
        turned = torch.rot90(batch.flip(-1) if symmetry >= 4 else batch, symmetry % 4, (-2, -1))
        return HEAD.turned_back(self.forward(turned), symmetry)

    def decode(self, maps: NDArray[np.float32]) -> Instances:
        return HEAD.decode(maps)

    def foreground(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        return HEAD.foreground(maps)


def apart(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return nuclei without the pixels that touch others, in whole pieces."""
    same = np.ones(labels.shape, dtype=np.bool_)
    for axis in (0, 1):
        for step in (-1, 1):
            other = np.roll(labels, step, axis)
            same &= (other == labels) | (other == 0)
    return np.where(same, labels, 0).astype(np.int32)


@pytest.mark.parametrize(("blend", "tta"), [("none", "none"), ("gaussian", "none"), ("gaussian", "flips")])
def test_a_nucleus_on_a_seam_is_one_nucleus(blend: Blend, tta: Tta, tmp_path: Path) -> None:
    labels = apart(ellipses(32, 128, seed=4))
    pixels = np.where(labels[..., None] > 0, 50, 230).repeat(3, axis=2).astype(np.uint8)
    predictor = Detector(task="instance", tile_px=80, halo_px=24)

    with job_on(tmp_path, ArraySlide(pixels), predictor, blend=blend) as job:
        run(job, predictor, blend=blend, tta=tta)
        found, objects = read(job, "instances").astype(np.int32), job.objects()

    pieces = label(labels > 0)[0].astype(np.int32)
    whole = np.count_nonzero(np.bincount(pieces.ravel())[1:] >= 20)
    assert len(objects) == whole > 20
    assert aji(found, pieces) > 0.95
    assert objects.score == pytest.approx(SCORE, abs=0.01)
