"""Work in threads whose results come in order and never pile up."""

from __future__ import annotations

import queue
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(work: Callable[[T], R], items: Iterable[T], *, workers: int, ahead: int) -> Generator[R]:
    """Yield ``work(item)`` for each item in order, computed by threads.

    Parameters
    ----------
    work
        Called in a worker thread; what it raises is raised here, in the item's turn.
    items
        Drawn by the caller's thread.
    workers
        Number of threads; 0 works in the caller's thread.
    ahead
        Items begun beyond the one that is waited for; bounds the memory of finished results.
    """
    if workers == 0:
        for item in items:
            yield work(item)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="wsiseg-map")
    begun: deque[Future[R]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        # Not waiting would leave threads that read from a slide somebody closes.
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


class _Mailbox(Generic[T]):
    """A bounded queue whose writer gives up once the reader is gone."""

    def __init__(self, depth: int) -> None:
        self.items: queue.Queue[T | _End] = queue.Queue(maxsize=max(1, depth))
        self.is_abandoned = threading.Event()

    def put(self, item: T | _End) -> bool:
        """Return whether the item was taken."""
        while not self.is_abandoned.is_set():
            try:
                self.items.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def fill(self, items: Generator[T]) -> None:
        """Put all items and then the end, with the error that brought it about."""
        try:
            with closing(items):
                for item in items:
                    if not self.put(item):
                        return
        except BaseException as error:  # noqa: BLE001 - handed to the reader, who raises it
            self.put(_End(error))
        else:
            self.put(_End())


def run_ahead(items: Generator[T], *, depth: int) -> Generator[T]:
    """Yield `items`, drawn by a thread of their own that is up to `depth` items ahead.

    The whole generator runs in that thread, so thread-local settings made inside it hold.
    Closing this generator closes `items` and waits for it.
    """
    mailbox = _Mailbox[T](depth)
    thread = threading.Thread(target=mailbox.fill, args=(items,), name="wsiseg-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := mailbox.items.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        mailbox.is_abandoned.set()
        thread.join()
