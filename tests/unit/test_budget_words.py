"""What goes wrong in a training of a study is told in options that the study has."""

from __future__ import annotations

import pytest
from typer.main import get_command

from wsiseg.cli import app
from wsiseg.errors import ConfigError, StoppedError
from wsiseg.tasks.budget_words import in_words_of_study, reworded


def options(command: str) -> set[str]:
    """Return the long options of a command."""
    found = get_command(app.app).commands[command].params  # type: ignore[attr-defined]
    return {name for one in found for name in one.opts if name.startswith("--")}


@pytest.mark.parametrize("option", sorted(options("train") - options("budget")))
def test_no_option_is_named_that_a_study_lacks(option: str) -> None:
    for text in (option, f"Pass {option} 0.1, or less", f"Use {option} with one of a, b"):
        named = {word.strip(",.").partition("=")[0] for word in reworded(text).split() if word.startswith("--")}

        assert named <= options("budget")
        assert named


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Add data, or pass --val-fraction 0", "Add data, or pass --set train.val_fraction=0"),
        ("Pass --layer with one of a, b", "Pass --set train.layer=… with one of a, b"),
        ("Pass --overwrite to train from the start", "Pass another --output to train from the start"),
        ("Pass --set options.net.dropout=0.5", "Pass --set train.options.net.dropout=0.5"),
        ("Pass a smaller --batch-size or --crop-px", "Pass a smaller --batch-size or --crop-px"),
        ("Set each.ugmcl.lr, or --set each.ugmcl.mpp=1", "Set each.ugmcl.lr, or --set each.ugmcl.mpp=1"),
        ("Make them with the same --mpp", "Make them with the same --mpp"),
    ],
)
def test_values_and_sentences_stay(text: str, told: str) -> None:
    assert reworded(text) == told


def test_errors_keep_their_kind_and_their_cause() -> None:
    cause = ConfigError("no", where="--head", mend="Use --head ternary")

    with pytest.raises(ConfigError) as caught, in_words_of_study():
        raise cause

    assert (caught.value.where, caught.value.mend) == (
        "--set train.options.head=…",
        "Use --set train.options.head=ternary",
    )
    assert caught.value.__cause__ is cause
    with pytest.raises(StoppedError), in_words_of_study():
        raise StoppedError("stopped")
