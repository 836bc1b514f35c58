"""Errors say what, where and how to mend, and survive the way between processes."""

from __future__ import annotations

import pickle

import pytest

from wsiseg import errors
from wsiseg.errors import SlideError, UnreadableError, WsisegError


def test_an_error_reads_as_where_what_and_mend() -> None:
    error = SlideError("the slide carries no pixel size", where="a.svs", mend="Pass --slide-mpp")

    assert str(error) == "a.svs: the slide carries no pixel size. Pass --slide-mpp"
    assert str(SlideError("no")) == "no"


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(UnreadableError("bad", where="a", mend="b")))  # noqa: S301 - our own bytes

    assert type(error) is UnreadableError
    assert str(error) == "a: bad. b"


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type)])
def test_exit_codes_are_the_documented_ones(kind: type) -> None:
    if issubclass(kind, WsisegError):
        assert kind.exit_code in {1, 2, 3, 4, 5, 75}
