"""A GPU finds what a CPU finds, and stops and goes on like one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.tiny_models import save_tiny_model
from wsiseg.geometry import Window
from wsiseg.inference.settings import PredictSettings
from wsiseg.stores.mask_store import MaskStore
from wsiseg.tasks.predict import PredictJob, predict

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def classes(
    slide: Path, output: Path, model: Path, *, device: str, batch_size: int | None = None
) -> NDArray[np.integer]:
    settings = PredictSettings.model_validate({"model": str(model), "amp": "off", "tissue": {"method": "none"}})
    job = PredictJob(inputs=(str(slide),), output=output, settings=settings, device=device, batch_size=batch_size)
    predict(job).raise_failures()
    store = MaskStore.open(output / slide.stem / "prediction.zarr")
    size = store.canvas.size
    return store.read("classes", Window(0, 0, size.width, size.height))


def test_a_gpu_gives_the_classes_of_a_cpu(tmp_path: Path, cmu_svs: Path) -> None:
    model = save_tiny_model(tmp_path / "model", task="semantic")

    on_cpu = classes(cmu_svs, tmp_path / "cpu", model, device="cpu")
    on_gpu = classes(cmu_svs, tmp_path / "gpu", model, device="cuda:0")

    # Sums in another order tip pixels whose classes are equally likely.
    assert (on_cpu != on_gpu).mean() < 1e-3


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_of_any_size_give_the_same_classes(tmp_path: Path, cmu_svs: Path, batch_size: int) -> None:
    model = save_tiny_model(tmp_path / "model", task="semantic")

    chosen = classes(cmu_svs, tmp_path / "auto", model, device="cuda:0")
    given = classes(cmu_svs, tmp_path / "given", model, device="cuda:0", batch_size=batch_size)

    assert (chosen != given).mean() < 1e-3
