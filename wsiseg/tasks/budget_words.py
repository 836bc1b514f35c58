"""Errors of trainings in the words of a study, whose command has few of the options of ``wsiseg train``."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from wsiseg.errors import StoppedError, WsisegError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Options of a training that are settings of a study, and those that it has by another name.
_SETTINGS: Final = {
    "accumulate": "fit.accumulate",
    "amp": "fit.amp",
    "backbone": "options.backbone",
    "ema": "fit.ema",
    "encoder": "options.encoder",
    "head": "options.head",
    "init": "options.init",
    "layer": "layer",
    "lr": "fit.lr",
    "mpp": "mpp",
    "num-workers": "fit.num_workers",
    "rounds": "options.rounds",
    "stages": "stages",
    "val-fraction": "val_fraction",
}
_OTHERS: Final = {
    "labelled": "--counts or --fractions",
    "method": "--methods",
    "overwrite": "another --output",
    "seed": "--seeds",
}
# What follows an option and is no word of the sentence is its value.
_OPTION: Final = re.compile(r"--([a-z]+(?:-[a-z]+)*)(?: (?!(?:and|of|or|to|with)\b)(\w(?:[\w.-]*\w)?))?")
_SET: Final = re.compile(r"--set (?!train\.|each\.)")


@contextmanager
def in_words_of_study() -> Iterator[None]:
    """Make errors of trainings name options that ``wsiseg budget`` has."""
    try:
        yield
    except StoppedError:
        raise
    except WsisegError as error:
        where = reworded(error.where) if isinstance(error.where, str) else error.where
        mend = None if error.mend is None else reworded(error.mend)
        raise type(error)(reworded(error.what), where=where, mend=mend) from error


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Make errors say of which method, or of which variant, they are."""
    try:
        yield
    except WsisegError as error:
        raise type(error)(f"{name}: {error.what}", where=error.where, mend=error.mend) from error


def reworded(text: str) -> str:
    """Return a sentence about a training as one about a study.

    >>> reworded("Use --head ternary, or --set options.ramp=0.3")
    'Use --set train.options.head=ternary, or --set train.options.ramp=0.3'
    """
    # Stores are made by other commands.
    return text if text.startswith("Make") else _OPTION.sub(_of_study, _SET.sub("--set train.", text))


def _of_study(found: re.Match[str]) -> str:
    option, value = found.groups()
    if option in _SETTINGS:
        return f"--set train.{_SETTINGS[option]}={value or '…'}"
    if option in _OTHERS:
        return _OTHERS[option] + (f" {value}" if value else "")
    return found[0]
