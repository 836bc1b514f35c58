"""The page of a training shows patches as they are, and no number where there is none."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from wsiseg.labels import LabelMap
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.stores.image_labels import ImageLayerInfo
from wsiseg.stores.patch_set import PatchSet
from wsiseg.tasks.patch_data import patch_data
from wsiseg.tasks.patch_masks import BALANCE, COVERAGE
from wsiseg.tasks.train_job import PAGE
from wsiseg.tasks.train_report import write_report

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore

NAMES = ("tumour", "stroma")


def test_padding_is_not_shown_and_shares_of_nothing_are_dashes(
    tmp_path: Path, make_patch_store: MakePatchStore
) -> None:
    images, masks = np.full((1, 8, 8, 3), 90, np.uint8), np.zeros((1, 8, 8), np.uint8)
    store = make_patch_store(
        tmp_path / "s.zarr", images, masks, layer="made", names=NAMES, extents=np.array([[4, 6]], np.int32)
    )
    store.add_image_layer("known", ImageLayerInfo(labels=LabelMap.from_names(NAMES)), np.array([[1, 0]], np.uint8))
    data = patch_data(PatchSet([store]), name="run", layer=None, training_data={})
    balance = {"made": {COVERAGE: 0.0, **dict.fromkeys(NAMES, float("nan"))}}
    (tmp_path / BALANCE).write_text(json.dumps(balance), encoding="utf-8")

    write_report(
        tmp_path, data, {}, {"made": "made"}, method="mlps", device=torch.device("cpu"), progress=SILENT, stop=Stop()
    )  # fmt: skip

    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    pictures = re.findall(r'base64,([^"]+)" alt="(?:patch|made)"', page)
    assert [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures] == [(4, 6)] * 2
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page)
    assert "<td>–</td><td>–</td>" in page
