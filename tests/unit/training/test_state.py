"""What a training keeps, what it refuses to go on with, and what it says of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from wsiseg.errors import DataError
from wsiseg.training.ranks import Ranks
from wsiseg.training.state import Remedy, TrainingState, check_plan, read_begun
from wsiseg.training.state_file import load_state, save_state

if TYPE_CHECKING:
    from pathlib import Path

ALONE = Remedy(anew="--stages segment --overwrite", effect="train segment alone again")


class Remembering(nn.Module):
    """A layer that keeps something beside its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.seen = torch.zeros(3)

    def get_extra_state(self) -> Any:  # noqa: ANN401 - torch's own signature
        return {"seen": self.seen}

    def set_extra_state(self, state: Any) -> None:  # noqa: ANN401 - as above
        self.seen = state["seen"]


def begun(module: nn.Module, *, ema: float = 0.9) -> TrainingState:
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    return TrainingState(module, optimiser, torch.amp.GradScaler("cpu", enabled=False), ema, Ranks())


def test_what_lies_beside_the_weights_is_kept_once(tmp_path: Path) -> None:
    first = begun(Remembering())
    next(first.module.parameters()).data.fill_(5)
    first.module.set_extra_state({"seen": torch.ones(3)})

    first.save(tmp_path / "last.pt", {"lr": 1})
    second = begun(Remembering())
    second.load(tmp_path / "last.pt", {"lr": 1}, ALONE)

    state = load_state(tmp_path / "last.pt")
    assert {*state["module"]} == {"layer.weight", "layer.bias", "_extra_state"}
    assert {*state["average"]} == {"layer.weight", "layer.bias"}
    assert second.module.get_extra_state()["seen"].tolist() == [1, 1, 1]
    assert first.average is not None
    assert second.average is not None
    torch.testing.assert_close(dict(second.average.named_parameters()), dict(first.average.named_parameters()))


def test_how_far_it_is_can_be_told_without_a_network(tmp_path: Path) -> None:
    assert read_begun(tmp_path / "last.pt", ALONE) is None

    save_state(tmp_path / "last.pt", {"plan": {"lr": 1}, "step": 7, "best": 0.5, "best_step": 4})
    found = read_begun(tmp_path / "last.pt", ALONE)

    assert found is not None
    assert (found.plan, found.step, found.best, found.best_step) == ({"lr": 1}, 7, 0.5, 4)


@pytest.mark.parametrize("content", [b"rubbish", None])
def test_a_way_out_of_a_damaged_state_keeps_what_lies_beside_it(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        save_state(tmp_path / "last.pt", {"step": 7})
    else:
        (tmp_path / "last.pt").write_bytes(content)

    with pytest.raises(DataError) as caught:
        read_begun(tmp_path / "last.pt", ALONE)

    assert str(caught.value).endswith("Pass --stages segment --overwrite to train segment alone again")


def test_hashes_that_differ_are_only_named(tmp_path: Path) -> None:
    before: dict[str, Any] = {"labels": "a" * 32, "fit": {"seed": 0, "amp": "off"}, "options": {"licence": None}}
    now: dict[str, Any] = {"labels": "b" * 32, "fit": {"seed": 1, "amp": "off"}, "options": {"licence": "MIT"}}

    with pytest.raises(DataError) as caught:
        check_plan(before, now, where=tmp_path, remedy=ALONE)

    assert "(fit.seed was 0 and is 1; labels differ; options.licence was None and is MIT)" in str(caught.value)
