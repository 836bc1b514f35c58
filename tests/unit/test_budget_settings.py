"""Settings of a study: methods are trained alike, and what was once settled stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from wsiseg.config import flattened, load
from wsiseg.errors import DataError
from wsiseg.methods.registry import METHODS, get_method
from wsiseg.tasks.budget_settings import BudgetConfig, begin, read_begun, training_of
from wsiseg.tasks.train_job import TrainConfig, with_usual

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = BudgetConfig(
    methods=tuple(METHODS),
    train={"fit": {"steps": 900}, "mpp": 0.5},
    each={"ugmcl": {"fit": {"lr": 0.01}}},
)


def resolved(config: BudgetConfig, name: str, *, of_volumes: bool = False) -> dict[str, object]:
    """Return the settings that a training of a method has in the end, but for those that are its own."""
    given = training_of(config, name, of_volumes=of_volumes)
    method = get_method(given.method)
    usual = method.training(load(method.options, options=given.options))
    return flattened(with_usual(given, usual).model_dump(mode="json", exclude={"method", "name", "options"}))


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_trained_alike_whatever_is_usual_for_them(name: str) -> None:
    plain = TrainConfig().model_dump(mode="json", exclude={"method", "name", "options"})
    asked = {"fit.steps": 900, "mpp": 0.5} | ({"fit.lr": 0.01} if name == "ugmcl" else {})

    assert resolved(CONFIG, name) == flattened(plain) | asked


def test_volumes_keep_the_batches_and_windows_that_are_usual_for_them() -> None:
    config = BudgetConfig(methods=("supervised", "ugmcl"))

    given = [training_of(config, name, of_volumes=True) for name in config.methods]

    assert all({"batch_size", "crop_px"}.isdisjoint(one.model_fields_set) for one in given)
    assert given[1].fit == TrainConfig().fit


def test_models_are_named_after_their_method_or_variant() -> None:
    config = BudgetConfig(methods=("alone",), each={"alone": {"method": "ugmcl"}})

    assert training_of(config, "alone", of_volumes=False).name == "alone"


def test_what_was_settled_for_a_method_holds_after_calls_without_it(tmp_path: Path) -> None:
    begin(tmp_path, CONFIG, {"glands": "0"})
    begin(tmp_path, CONFIG.model_copy(update={"methods": ("supervised",), "each": {}}), {"glands": "0"})

    with pytest.raises(DataError, match="begun with other settings"):
        begin(tmp_path, CONFIG.model_copy(update={"each": {}}), {"glands": "0"})
    begun = read_begun(tmp_path)
    assert begun is not None
    assert begun.config.methods == CONFIG.methods
    assert begun.config.each == CONFIG.each


def test_jobs_that_begin_a_study_at_once_wait_for_each_other(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: begin(tmp_path, BudgetConfig(methods=(name,)), {"glands": "0"}), names))

    begun = read_begun(tmp_path)
    assert begun is not None
    assert sorted(begun.config.methods) == names


def test_shares_that_are_written_alike_are_one_size() -> None:
    assert BudgetConfig(fractions=(1.0, 0.1, 0.1 + 1e-12)).sizes == ("10%", "100%")
