"""How long work tells how far it is. The library is silent unless given somebody to tell."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

T = TypeVar("T")


class Advance(Protocol):
    """Notes that work has gone on."""

    def __call__(self, steps: int = 1, *, status: str = "") -> None:
        """Note `steps` more finished steps; `status` is a short text shown beside the bar."""


class Progress(Protocol):
    """Somebody who wants to know how far the work is."""

    def task(self, what: str, *, total: int | None, unit: str = "") -> AbstractContextManager[Advance]:
        """Begin a piece of work of `total` steps, counted in `unit`."""

    def say(self, message: str) -> None:
        """Tell one line that a person wants to read, such as one per slide."""


class Silent:
    """Tells nobody."""

    @contextmanager
    def task(self, what: str, *, total: int | None, unit: str = "") -> Iterator[Advance]:  # noqa: ARG002 - protocol
        """Begin a piece of work and tell nobody."""
        yield _ignore

    def say(self, message: str) -> None:
        """Tell nobody."""


def _ignore(steps: int = 1, *, status: str = "") -> None:
    """Note nothing."""


SILENT = Silent()


def track(items: Iterable[T], progress: Progress, *, what: str, total: int | None, unit: str = "") -> Iterator[T]:
    """Yield `items` and note each as one finished step once it has been dealt with."""
    with progress.task(what, total=total, unit=unit) as advance:
        for item in items:
            yield item
            advance()
