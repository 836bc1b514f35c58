"""Models come back as they were written, and files that could run code are refused."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

from wsiseg import checkpoint
from wsiseg.checkpoint import HeadSpec, ModelCard, Normalisation, files
from wsiseg.errors import DataError
from wsiseg.labels import LabelMap
from wsiseg.training.state_file import load_state, save_state
from wsiseg.white import WhiteRule

if TYPE_CHECKING:
    from pathlib import Path

CARD = ModelCard(
    name="toy",
    task="semantic",
    labels=LabelMap.from_names(("background", "gland")),
    mpp=0.5,
    tile_px=64,
    halo_px=16,
    net={"arch": "unet-gn"},
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "model", CARD, {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)})
    return tmp_path / "model"


def test_a_model_comes_back_as_it_was_written(model: Path) -> None:
    read = checkpoint.read(model)

    assert read.card == CARD
    assert torch.equal(read.weights["w"], torch.arange(6.0).reshape(2, 3))
    assert read.weights["n"].dtype == torch.int64
    assert read.fingerprint == checkpoint.fingerprint(model)


def test_a_white_rule_comes_back_and_cards_without_one_have_none(tmp_path: Path, model: Path) -> None:
    rule = WhiteRule(gray_above=210, min_area_px=20)
    checkpoint.save(tmp_path / "ruled", CARD.model_copy(update={"white": rule}), {})
    older = json.loads((model / checkpoint.CARD).read_text())
    del older["white"]
    (model / checkpoint.CARD).write_text(json.dumps(older))

    assert json.loads((tmp_path / "ruled" / checkpoint.CARD).read_text())["white"] == rule.model_dump()
    assert checkpoint.read_card(tmp_path / "ruled").white == rule
    assert checkpoint.read_card(model).white is None


def test_a_fingerprint_is_of_what_a_model_does(tmp_path: Path, model: Path) -> None:
    def fingerprint(folder: str, *, weight: float = 0.0, **changes: Any) -> str:  # noqa: ANN401 - fields of the card
        weights = {"w": torch.arange(6.0).reshape(2, 3) + weight, "n": torch.tensor(3)}
        checkpoint.save(tmp_path / folder, CARD.model_copy(update=changes), weights)
        return checkpoint.fingerprint(tmp_path / folder)

    known = checkpoint.fingerprint(model)

    assert fingerprint("same", name="other", version="99.0", metrics={"AJI": 0.5}, training_data={"a": "b"}) == known
    others = [
        fingerprint("weights", weight=1.0),
        fingerprint("classes", labels=LabelMap.from_names(("background", "nucleus"))),
        fingerprint("net", net={"arch": "deeplabv3+"}),
        fingerprint("colours", normalisation=Normalisation.none()),
    ]
    assert len({known, *others}) == 5


def test_half_precision_is_float32_when_read(tmp_path: Path) -> None:
    shared = torch.tensor([0.1, 1.0])
    checkpoint.save(tmp_path, CARD, {"a": shared, "b": shared}, half=True)

    weights = checkpoint.read(tmp_path).weights

    assert weights["a"].dtype == torch.float32
    torch.testing.assert_close(weights["b"], shared, atol=1e-4, rtol=0)


def test_a_training_run_means_its_best_model(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "run" / "best", CARD, {})
    save_state(tmp_path / "run" / "last.pt", {"step": 1})

    assert checkpoint.locate(tmp_path / "run") == tmp_path / "run" / "best"
    assert checkpoint.read(tmp_path / "run").card.name == "toy"


@pytest.mark.parametrize("name", ["weights.pt", "pytorch_model.bin", "model.pkl"])
def test_a_pickle_is_refused_as_the_model_and_inside_it(model: Path, name: str) -> None:
    (model / name).write_bytes(pickle.dumps({"a": 1}))

    with pytest.raises(DataError, match="pickle") as inside:
        checkpoint.read(model)
    with pytest.raises(DataError, match="can run code"):
        checkpoint.read(model / name)

    assert inside.value.exit_code == 5


@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"PK\x03\x04rest"], ids=["pickle", "torch"])
def test_a_pickle_under_another_name_is_refused(model: Path, content: bytes) -> None:
    (model / checkpoint.WEIGHTS).write_bytes(content)

    with pytest.raises(DataError, match="this is a pickle"):
        checkpoint.read(model)


def test_damaged_weights_are_one_line(model: Path) -> None:
    path = model / checkpoint.WEIGHTS
    path.write_bytes(path.read_bytes()[:-5])

    with pytest.raises(DataError, match="damaged weights"):
        checkpoint.read(model)


def test_another_schema_is_refused(model: Path) -> None:
    card = json.loads((model / checkpoint.CARD).read_text())
    (model / checkpoint.CARD).write_text(json.dumps(card | {"schema_version": 99}))

    with pytest.raises(DataError, match="schema version 99, this wsiseg reads 1"):
        checkpoint.read_card(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"mpp": -1}, "mpp: input should be greater"), ({"halo_px": 40}, "leaves nothing"), ({"x": 1}, "x: extra")],
)
def test_a_card_that_makes_no_sense_is_refused(model: Path, change: dict[str, object], message: str) -> None:
    card = json.loads((model / checkpoint.CARD).read_text())
    (model / checkpoint.CARD).write_text(json.dumps(card | change))

    with pytest.raises(DataError, match=message):
        checkpoint.read_card(model)


def test_what_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    (model / checkpoint.WEIGHTS).unlink()
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match=r"lacks model\.safetensors"):
        checkpoint.read(model)
    with pytest.raises(DataError, match=r"no model\.json"):
        checkpoint.read(tmp_path / "empty")
    (model / checkpoint.CARD).write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        checkpoint.read(model)


def test_names_mean_shipped_models_and_a_slip_of_the_pen_is_met(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model, tmp_path / "weights" / "nuclei-he")
    monkeypatch.setattr(files, "SHIPPED", tmp_path / "weights")

    assert checkpoint.read("nuclei-he").card == CARD
    with pytest.raises(DataError, match=r"Did you mean nuclei-he\?"):
        checkpoint.read("nuclie-he")
    with pytest.raises(DataError, match="one of the shipped models: nuclei-he"):
        checkpoint.read("xyz")


def test_instance_models_have_a_head() -> None:
    with pytest.raises(ValueError, match="instance models have a head"):
        ModelCard.model_validate(CARD.model_dump() | {"head": HeadSpec(kind="flow").model_dump()})


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("boom",))


def test_the_state_of_a_training_is_data_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"step": 3, "rng": torch.get_rng_state(), "python": (3, (1, 2), None)}
    save_state(tmp_path / "last.pt", state)
    torch.save({"step": Bomb()}, tmp_path / "evil.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:100])

    assert load_state(tmp_path / "last.pt")["step"] == 3
    for name, told in (("evil.pt", "holds more than data"), ("torn.pt", "no state of a training, or a damaged one")):
        with pytest.raises(DataError, match=told):
            load_state(tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_in_the_place_of_a_state_is_refused_without_further_words(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "last.pt").write_bytes(pickle.dumps({"step": 3}, protocol=protocol))

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(DataError, match="no state of a training"):
            load_state(tmp_path / "last.pt")

    assert said == []
