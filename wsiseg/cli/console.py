"""What people see: results on stdout; progress, logs and errors on stderr."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from wsiseg.progress import SILENT, Progress
from wsiseg.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from wsiseg.errors import WsisegError
    from wsiseg.progress import Advance

# Logs of batch jobs are read while they grow: a line this often, never a carriage return.
PLAIN_INTERVAL_S = 30.0

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


class ProgressStyle(StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    RICH = "rich"
    PLAIN = "plain"
    NONE = "none"


class _Settings:
    style = ProgressStyle.AUTO


class _Once(logging.Filter):
    """Lets what is marked ``once`` pass once for a command, however many parts of it say the same."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "once", False):
            return True
        message = record.getMessage()
        is_new = message not in self._said
        self._said.add(message)
        return is_new


def configure(style: ProgressStyle, verbose: int) -> None:
    """Set how progress is shown and how much is logged, on the package's logger only."""
    _Settings.style = style
    logger = logging.getLogger("wsiseg")
    handler = RichHandler(console=err, show_path=False, rich_tracebacks=False)
    handler.addFilter(_Once())
    logger.handlers[:] = [handler]
    logger.setLevel([logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)])


def complain(error: WsisegError) -> None:
    """Print an error as one line."""
    err.print(f"[bold red]Error[/]: {escape(' '.join(str(error).split()))}", highlight=False)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give the progress that fits: bars on a terminal, a line now and then in a log, or silence."""
    style = _Settings.style
    if style is ProgressStyle.AUTO:
        style = ProgressStyle.RICH if err.is_terminal else ProgressStyle.PLAIN
    if style is ProgressStyle.NONE:
        yield SILENT
    elif style is ProgressStyle.PLAIN:
        yield _Lines()
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
        )
        with Bars(*columns, console=err, transient=True) as bars:
            yield _RichBars(bars)


@contextmanager
def graceful(time_limit_s: float | None = None) -> Iterator[Stop]:
    """Give a `Stop` that SIGINT, SIGTERM and the schedulers' warning signals request.

    A second SIGINT interrupts at once.
    """
    stop = Stop(time_limit_s)
    names = [name for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        if number == signal.SIGINT:
            if stop.is_requested:
                # Threads do not see the interrupt and would be waited for.
                stop.insist()
                raise KeyboardInterrupt
            err.print("Stopping after the work in hand; press Ctrl-C again to stop at once.")
        stop.request(f"signal {signal.Signals(number).name} arrived")

    before = {name: signal.signal(getattr(signal, name), handle) for name in names}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


class _RichBars:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars

    @contextmanager
    def task(self, what: str, *, total: int | None, unit: str = "") -> Iterator[Advance]:
        bar = self._bars.add_task(escape(what), total=total, unit=unit, status="")

        def advance(steps: int = 1, *, status: str = "") -> None:
            if status:
                self._bars.update(bar, advance=steps, status=status)
            else:
                self._bars.advance(bar, steps)

        try:
            yield advance
        finally:
            self._bars.remove_task(bar)

    def say(self, message: str) -> None:
        self._bars.console.print(escape(message), highlight=False)


class _Lines:
    @contextmanager
    def task(self, what: str, *, total: int | None, unit: str = "") -> Iterator[Advance]:
        begun = told = time.monotonic()
        done = 0

        def advance(steps: int = 1, *, status: str = "") -> None:
            nonlocal done, told
            done += steps
            now = time.monotonic()
            if now - told < PLAIN_INTERVAL_S:
                return
            told = now
            rate = done / (now - begun)
            count = f"{done}/{total}" if total is not None else f"{done}"
            left = f", {(total - done) / rate / 60:.1f} min left" if total is not None and rate > 0 else ""
            err.print(f"{what}: {count} {unit}, {rate:.2f}/s{left} {status}".rstrip(), highlight=False, markup=False)

        yield advance

    def say(self, message: str) -> None:
        err.print(message, highlight=False, markup=False)
