"""What is shown of a model is what its card says, and nothing that does not apply to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tests.tiny_models import save_tiny_model
from wsiseg.checkpoint import read, save
from wsiseg.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("told", "shown"), [("59 images, CC0", "59 images, CC0"), ("a1" * 16, "a1a1a1a1a1a1")])
def test_a_card_is_shown_without_what_does_not_apply(tmp_path: Path, told: str, shown: str) -> None:
    tiny = read(save_tiny_model(tmp_path / "tiny"))
    net = {"arch": "unet-gn", "widths": [8, 16], "encoder": "resnet34"}
    card = tiny.card.model_copy(update={"training_data": {"cells": told}, "net": net})
    save(tmp_path / "model", card, tiny.weights)

    result = CliRunner().invoke(app, ["models", "show", str(tmp_path / "model")])

    assert result.exit_code == 0
    assert f"cells ({shown})" in result.stdout
    assert "arch unet-gn, widths [8, 16]" in result.stdout
    assert "resnet34" not in result.stdout
