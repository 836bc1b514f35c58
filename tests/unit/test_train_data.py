"""What is trained on is a layer of labels, and the only one need not be named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wsiseg.errors import DataError
from wsiseg.stores.patch_set import PatchSet
from wsiseg.stores.patches import confidence_layer
from wsiseg.tasks.train_data import common_layer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePatchStore


def test_confidence_is_no_layer_to_train_on(tmp_path: Path, make_patch_store: MakePatchStore) -> None:
    masks = np.zeros((2, 8, 8), np.uint8)
    made = make_patch_store(tmp_path / "s.zarr", np.zeros((2, 8, 8, 3), np.uint8), masks)
    made.add_layer(confidence_layer("truth"), "confidence", made.layers["truth"].labels)
    stores = [PatchSet([made])]

    assert common_layer(stores, None) == ("truth", made.layers["truth"])
    with pytest.raises(DataError, match=r"no layer 'truth-confidence'.*There are: truth$"):
        common_layer(stores, confidence_layer("truth"))
