"""Stages of CRAANet and PFSCNet on a few patches, and the batches they learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from wsiseg.config import load
from wsiseg.labels import LabelMap
from wsiseg.methods.base import Batch, TrainingFacts
from wsiseg.methods.craanet_classify import ClassifyStage
from wsiseg.methods.craanet_options import CraanetOptions
from wsiseg.methods.craanet_segment import SegmentStage

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from wsiseg.methods.craanet_classify import ClassifyLearner
    from wsiseg.methods.craanet_segment import SegmentLearner

SIDE = 64
CLASSES = ("red", "green", "blue")
LAYERS = ("complete", "reliable")
BACKBONE = "mobilenetv3_small_050"


def options(**changes: Any) -> CraanetOptions:  # noqa: ANN401 - fields of CraanetOptions
    """Return options with a small backbone."""
    return load(CraanetOptions, options={"backbone": BACKBONE, **changes})


def facts(*, patches: int = 4, crop_px: int = SIDE, training_data: str = "1234") -> TrainingFacts:
    """Return what is known of patches of three classes."""
    return TrainingFacts(
        name="toy",
        kind="classes",
        labels=LabelMap.from_names(CLASSES),
        mpp=0.5,
        crop_px=crop_px,
        training_data={"toy.zarr": training_data},
        patches=patches,
    )


def classify_learner(*, seed: int = 0, patches: int = 4, **changes: Any) -> ClassifyLearner:  # noqa: ANN401
    """Return an untrained learner of the classifier."""
    chosen = options(**changes)
    torch.manual_seed(seed)
    return ClassifyStage(options=chosen, settings=chosen.numbers.classify).build(facts(patches=patches), {}, ())


def segment_learner(
    *,
    seed: int = 0,
    classifier: Path | None = None,
    **changes: Any,  # noqa: ANN401
) -> SegmentLearner:
    """Return an untrained learner of the segmentation network."""
    chosen = options(**changes)
    torch.manual_seed(seed)
    done = {} if classifier is None else {"classify": classifier}
    return SegmentStage(options=chosen, settings=chosen.numbers.segment).build(facts(), done, LAYERS)


def colourful(count: int = 4, *, seed: int = 0) -> Tensor:
    """Return random images, uint8 (count, 3, 64, 64), of blocks of 8 pixels."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (count, 3, SIDE // 8, SIDE // 8), generator=generator, dtype=torch.uint8)
    return blocks.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


def batch(images: Tensor, indices: list[int], present: list[list[int]], symmetries: list[int] | None = None) -> Batch:
    """Return patches of which is known what they show."""
    return Batch(
        images=images,
        targets={
            "present": torch.tensor(present, dtype=torch.float32),
            "index": torch.tensor(indices),
            "symmetry": torch.tensor(symmetries or [0] * len(indices)),
        },
    )
