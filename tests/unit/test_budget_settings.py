"""Settings of a study: methods are trained alike, and what was once settled stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from wsiseg.checkpoint import HeadSpec
from wsiseg.config import flattened, load
from wsiseg.errors import BusyError, ConfigError, DataError, MethodError
from wsiseg.lock import locked
from wsiseg.methods.registry import METHODS, get_method
from wsiseg.tasks.budget_begun import begin, read_begun
from wsiseg.tasks.budget_cells import Cell, cell_folder, write_cell
from wsiseg.tasks.budget_settings import BudgetConfig, check_each, check_network, training_of
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


@pytest.mark.parametrize("name", ["pgfanet", "hce"])
def test_a_network_of_all_methods_is_that_of_those_that_take_one(name: str) -> None:
    # Both have settings of these names, which mean something else.
    options = {"arch": "unet", "encoder": "resnet18", "net": {"dropout": 0.2, "width": 8}, "init": "none"}
    config = BudgetConfig(
        methods=("supervised", name), train={"options": options}, each={name: {"options": {"ramp": 0.3}}}
    )

    taken = {name: training_of(config, name, of_volumes=False).options for name in config.methods}

    assert taken["supervised"] == options
    assert taken[name] == {"init": "none", "ramp": 0.3}


def test_settings_of_a_network_that_are_not_said_to_be_of_another_are_meant_for_all() -> None:
    options = {"encoder": "resnet18", "net": {"widht": 8}}
    config = BudgetConfig(methods=("supervised", "pgfanet"), train={"options": options})

    # What makes no sense is found out when the network is built.
    assert all(training_of(config, name, of_volumes=False).options == options for name in config.methods)


def test_a_network_that_no_method_takes_is_refused() -> None:
    options = {"options": {"arch": "unet"}}
    alone = BudgetConfig(methods=("pgfanet", "mine"), each={"mine": {"method": "hce"}}, train=options)

    with pytest.raises(ConfigError, match="--arch: no method of the study takes the network unet"):
        check_network(alone)
    check_network(alone.model_copy(update={"train": {"options": {"arch": "hce"}}}))
    check_network(alone.model_copy(update={"train": {}}))
    # Settings stay those of the study when methods are added to it.
    check_network(alone.with_all_of(BudgetConfig(methods=("supervised",), train=options)))


def test_settings_of_methods_that_are_not_asked_for_need_only_exist() -> None:
    each: dict[str, dict[str, Any]] = {"supervised": {"fit": {"lr": 0.1}}, "slip": {"method": "hce", "fit": {"rl": 1}}}
    train = {"unlabelled_batch_size": 2, "options": {"consistency": 0.2}}
    config = BudgetConfig(methods=("ugmcl",), train=train, each=each)

    check_each(config, "supervised")
    with pytest.raises(ConfigError, match=r"each\.slip: unknown setting fit\.rl"):
        check_each(config, "slip")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"each": {"ugmcl": {"lr": 1}}}, "ugmcl: unknown setting lr"),
        ({"train": {"options": {"head": "flow"}}}, "ugmcl: head: "),
        ({"each": {"ugmcl": {"method": "umgcl"}}}, r"each\.ugmcl\.method: unknown method 'umgcl'. Did you mean ugmcl"),
        ({"each": {"ugmcl": {"split_seed": 1}}}, r"each\.ugmcl\.split_seed: the study decides"),
    ],
)
def test_errors_tell_of_which_method_they_are(settings: dict[str, Any], told: str) -> None:
    config = BudgetConfig(methods=("supervised", "ugmcl"), **settings)

    training_of(config, "supervised", of_volumes=False)
    with pytest.raises((ConfigError, MethodError), match=f"^{told}"):
        training_of(config, "ugmcl", of_volumes=False)


def test_models_are_named_after_their_method_or_variant() -> None:
    config = BudgetConfig(methods=("alone",), each={"alone": {"method": "ugmcl"}})

    assert training_of(config, "alone", of_volumes=False).name == "alone"


def make(output: Path, method: str, *, is_done: bool) -> Path:
    """Leave what a training of a method leaves, and return its folder."""
    folder = cell_folder(output, method, "10%", 0)
    folder.mkdir(parents=True)
    (folder / "state.pt").touch()
    if is_done:
        write_cell(folder, Cell(method=method, size="10%", images=1, seed=0, steps=1, scores={}))
    return folder


def test_what_was_settled_for_a_method_holds_after_calls_without_it(tmp_path: Path) -> None:
    begin(tmp_path, CONFIG, {"glands": "0"})
    make(tmp_path, "ugmcl", is_done=True)
    begin(tmp_path, CONFIG.model_copy(update={"methods": ("supervised",), "each": {}}), {"glands": "0"})

    with pytest.raises(DataError, match="begun with other settings"):
        begin(tmp_path, CONFIG.model_copy(update={"each": {}}), {"glands": "0"})
    begun = read_begun(tmp_path)
    assert begun is not None
    assert begun.config.methods == CONFIG.methods
    assert begun.config.each == CONFIG.each


@pytest.mark.parametrize(
    ("train", "data"), [({"fit": {"steps": 9}, "mpp": 0.5}, "0"), ({"fit": {"steps": 900}, "mpp": 0.5}, "1")]
)
def test_other_settings_and_data_are_refused_once_a_training_is_done(
    tmp_path: Path, train: dict[str, Any], data: str
) -> None:
    begin(tmp_path, CONFIG, {"glands": "0"})
    half = make(tmp_path, "supervised", is_done=False)
    begin(tmp_path, CONFIG.model_copy(update={"train": train}), {"glands": data})

    # What is half done belongs to settings that are gone.
    assert not half.exists()
    make(tmp_path, "supervised", is_done=True)
    with pytest.raises(DataError, match="begun with other settings"):
        begin(tmp_path, CONFIG, {"glands": "0"})


def test_a_method_whose_trainings_do_not_fit_may_have_others_than_those_that_are_done(tmp_path: Path) -> None:
    begin(tmp_path, CONFIG, {"glands": "0"})
    done, half = make(tmp_path, "supervised", is_done=True), make(tmp_path, "ugmcl", is_done=False)

    begin(tmp_path, CONFIG.model_copy(update={"each": {"ugmcl": {"batch_size": 2}}}), {"glands": "0"})

    assert done.exists()
    assert not half.exists()


def test_settings_do_not_change_under_a_job_that_trains_with_them(tmp_path: Path) -> None:
    begin(tmp_path, CONFIG, {"glands": "0"})
    halves = [make(tmp_path, name, is_done=False) for name in ("supervised", "ugmcl")]

    for half in halves:
        with locked(half / ".lock"), pytest.raises(BusyError):
            begin(tmp_path, CONFIG.model_copy(update={"train": {}}), {"glands": "0"})
        # What would have been removed before it was refused is there, too.
        assert all((one / "state.pt").exists() for one in halves)


@pytest.mark.parametrize("is_done", [False, True])
def test_the_head_of_settings_that_are_gone_goes_unless_something_is_done(tmp_path: Path, *, is_done: bool) -> None:
    plain = {"method": "supervised", "options": {"head": "flow"}}
    config = BudgetConfig(methods=("supervised", "plain", "ugmcl"), each={"plain": plain})
    before, after = (HeadSpec(kind="level-set", options={"longest_px": longest}) for longest in (24, 16))
    begin(tmp_path, config, {"glands": "0"}, head=before)
    taking = make(tmp_path, "supervised", is_done=False)
    other = make(tmp_path, "plain", is_done=is_done)

    # Jobs that ask for other methods bring no other head.
    assert begin(tmp_path, config, {"glands": "0"}, head=after).head == before
    smaller = config.model_copy(update={"each": {"plain": plain, "ugmcl": {"crop_px": 64}}})
    begun = begin(tmp_path, smaller, {"glands": "0"}, head=after)

    assert begun == read_begun(tmp_path)
    assert begun.head == (before if is_done else after)
    # What was half done with the head of before is of no use.
    assert taking.exists() == is_done
    assert other.exists()


def test_what_does_not_change_what_is_learnt_may_change(tmp_path: Path) -> None:
    begin(tmp_path, CONFIG, {"glands": "0"})
    make(tmp_path, "supervised", is_done=True)
    half = make(tmp_path, "ugmcl", is_done=False)
    train = {"fit": {"steps": 900, "num_workers": 7}, "mpp": 0.5}

    begin(tmp_path, CONFIG.model_copy(update={"train": train}), {"glands": "0"})
    each = {"ugmcl": {"fit": {"lr": 0.01, "save_interval_s": 9.0}}}
    begun = begin(tmp_path, CONFIG.model_copy(update={"train": train, "each": each}), {"glands": "0"})

    assert half.exists()
    assert (begun.config.train, begun.config.each) == (train, each)


def test_jobs_that_begin_a_study_at_once_wait_for_each_other(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: begin(tmp_path, BudgetConfig(methods=(name,)), {"glands": "0"}), names))

    begun = read_begun(tmp_path)
    assert begun is not None
    assert sorted(begun.config.methods) == names


def test_shares_that_are_written_alike_are_one_size() -> None:
    assert BudgetConfig(fractions=(1.0, 0.1, 0.1 + 1e-12)).sizes == ("10%", "100%")
