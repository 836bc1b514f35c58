"""Settings come from defaults, file, options and overrides, and mistakes are explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from wsiseg.config import Config, flattened, load, merged, save
from wsiseg.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Inner(Config):
    sigma_px: float = 1.0


class Outer(Config):
    mpp: float = 0.5
    name: str = "a"
    inner: Inner = Inner()


def test_overrides_beat_options_beat_the_file_beat_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("mpp = 1.0\nname = 'file'\n[inner]\nsigma_px = 2.0\n")

    config = load(Outer, file=file, options={"name": "option", "mpp": None}, overrides=["inner.sigma_px=3"])

    assert config == Outer(mpp=1.0, name="option", inner=Inner(sigma_px=3.0))


def test_a_misspelt_key_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[inner]\nsigma = 2.0\n")

    with pytest.raises(ConfigError, match=r"unknown setting inner\.sigma\. Did you mean sigma_px"):
        load(Outer, file=tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("override", "message"),
    [("mpp", "key=value"), ("mpp=fast", "mpp: .*'fast'"), ("mpp.x=1", "unknown|mpp"), ("nam=b", "Did you mean name")],
)
def test_a_bad_override_is_explained(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Outer, overrides=[override])


def test_a_setting_without_default_is_asked_for_and_one_of_two_types_is_named_alone() -> None:
    class Needy(Config):
        patch_mpp: Literal["unknown"] | float

    with pytest.raises(ConfigError, match=r"^patch_mpp is not given\. Pass --patch-mpp, or --set patch_mpp=…$"):
        load(Needy)
    with pytest.raises(ConfigError, match=r"^patch_mpp: input should be 'unknown' or a valid number \(got 'fast'\)$"):
        load(Needy, options={"patch_mpp": "fast"})


@pytest.mark.parametrize("text", ["mpp = ", "\xff"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text, encoding="latin-1")

    with pytest.raises(ConfigError, match=r"c\.toml: not valid TOML"):
        load(Outer, file=tmp_path / "c.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load(Outer, file=tmp_path / "c.toml")


def test_saved_settings_are_the_resolved_ones(tmp_path: Path) -> None:
    save(Outer(mpp=2.0), tmp_path / "config.json")

    assert Outer.model_validate_json((tmp_path / "config.json").read_text()) == Outer(mpp=2.0)


def test_changes_reach_into_nested_settings_and_leave_these_as_they_are() -> None:
    base = {"gate": True, "numbers": {"lr": 0.1, "epochs": 20}, "layers": [1, 2]}
    changed = merged(base, {"numbers": {"lr": 0.01}, "layers": [3], "gate": {"epsilon": 0.1}, "new": {"a": 1}})

    assert changed == {
        "gate": {"epsilon": 0.1},
        "numbers": {"lr": 0.01, "epochs": 20},
        "layers": [3],
        "new": {"a": 1},
    }
    assert base == {"gate": True, "numbers": {"lr": 0.1, "epochs": 20}, "layers": [1, 2]}


def test_flat_names_are_those_that_overrides_take() -> None:
    nested = {"mpp": 1.0, "inner": {"sigma_px": 3.0}, "deep": {"er": {"a": [1], "b": None}}, "empty": {}}

    flat = flattened(nested)

    assert flat == {"mpp": 1.0, "inner.sigma_px": 3.0, "deep.er.a": [1], "deep.er.b": None}
    assert (
        load(Outer, overrides=[f"{key}={value}" for key, value in flat.items() if "deep" not in key]).inner.sigma_px
        == 3
    )
