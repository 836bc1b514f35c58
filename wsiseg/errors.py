"""What can go wrong, as a user would say it.

::

    WsisegError                 exit code
     ├─ ConfigError             2   an option, a config key or a manifest is wrong
     ├─ MethodError             2   an unknown method, network or head, or one used wrongly
     ├─ NothingMatchedError     4   no input matched
     ├─ SlideError              5   a slide cannot be used
     │   └─ UnreadableError     5   a part of a slide cannot be decoded
     ├─ StoreError              5   a patch or mask store cannot be used
     │   └─ BusyError           75  another process is writing there; later it can be done
     ├─ DataError               5   labels, images or checkpoints are wrong
     ├─ PredictionError         1   inference cannot go on
     ├─ SomeFailedError         3   some slides failed, the others are done
     └─ StoppedError            75  stopped by a signal or time limit, state saved
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class WsisegError(Exception):
    """An error that the user can understand and mend.

    Parameters
    ----------
    what
        What is wrong, without a full stop.
    where
        The file, key or object it concerns.
    mend
        What the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | Path | None = None, mend: str | None = None) -> None:
        super().__init__(what, where, mend)
        self.what = what
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        line = self.what if self.where is None else f"{self.where}: {self.what}"
        return line if self.mend is None else f"{line}. {self.mend}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments: the default would not survive a process boundary.
        return (_rebuild, (type(self), self.what, self.where, self.mend))


def _rebuild(kind: type[WsisegError], what: str, where: str | Path | None, mend: str | None) -> WsisegError:
    return kind(what, where=where, mend=mend)


class ConfigError(WsisegError):
    """An option, a config key or a manifest is wrong."""

    exit_code = 2


class MethodError(WsisegError):
    """A method, network or head is unknown or used wrongly."""

    exit_code = 2


class NothingMatchedError(WsisegError):
    """No input matched what was asked for."""

    exit_code = 4


class SlideError(WsisegError):
    """A slide cannot be used."""

    exit_code = 5


class UnreadableError(SlideError):
    """A part of a slide cannot be decoded; the rest may be fine."""


class StoreError(WsisegError):
    """A patch or mask store cannot be used."""

    exit_code = 5


class BusyError(StoreError):
    """Another process is writing there; once it is done, or gone, this can be done."""

    exit_code = 75


class DataError(WsisegError):
    """Labels, images or a checkpoint are wrong."""

    exit_code = 5


class PredictionError(WsisegError):
    """Inference cannot go on."""

    exit_code = 1


class SomeFailedError(WsisegError):
    """Some slides failed; the others are done."""

    exit_code = 3


class StoppedError(WsisegError):
    """Work was stopped by a signal or a time limit, and its state is saved."""

    exit_code = 75
