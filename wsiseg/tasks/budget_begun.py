"""What a study of annotation budgets was begun with: the file that keeps it, and what may change."""

from __future__ import annotations

import json
import logging
import shutil
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from wsiseg.atomic import write_bytes
from wsiseg.checkpoint import HeadSpec
from wsiseg.config import flattened, load, merged
from wsiseg.errors import BusyError, DataError
from wsiseg.lock import locked
from wsiseg.tasks.budget_cells import CELLS, FREE, SCORES
from wsiseg.tasks.budget_settings import BudgetConfig
from wsiseg.tasks.budget_trial import takes_head

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

BEGUN: Final = "study.json"
# Others hold a study for as long as it takes to draw its page.
_PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What a study was begun with.

    Parameters
    ----------
    config
        Settings, those of all methods that it ever had.
    data
        Fingerprint of each store, by name.
    head
        That of methods that learn from labels alone and leave it open; None where they choose it.
    """

    config: BudgetConfig
    data: dict[str, str]
    head: HeadSpec | None = None


def read_begun(output: Path) -> Begun | None:
    """Return what the study in a folder was begun with, or None where there is none."""
    path = output / BEGUN
    if not path.exists():
        return None
    content = json.loads(path.read_bytes())
    head = content.get("head")
    return Begun(
        config=load(BudgetConfig, options=content["config"]),
        data=content["data"],
        head=None if head is None else HeadSpec.model_validate(head),
    )


def begin(output: Path, config: BudgetConfig, data: dict[str, str], *, head: HeadSpec | None = None) -> Begun:
    """Begin a study, or see that it goes on with the settings and data that its trainings had; return these.

    More methods, sizes and seeds are fine, and fewer. What is known of methods that a call leaves out is kept. Settings
    of methods of which no training is done may change; what of these is half done is removed. The head is that of the
    first call; where settings change before any training is done, that of the call that changes them.

    Raises
    ------
    DataError
        If trainings that are done had other settings or data.
    BusyError
        If another job is at a training that had others; nothing is removed then.
    """
    with alone(output):
        begun = Begun(config=config, data=data, head=head)
        known = read_begun(output)
        if known is not None:
            begun = Begun(config=config.with_all_of(known.config), data=data, head=known.head)
            changed = [name for name in known.config.methods if _decisive(known, name) != _decisive(begun, name)]
            if any(_is_done(output, name) for name in changed):
                raise DataError(
                    "the study was begun with other settings of its trainings, or on other data",
                    where=output,
                    mend="Use the same ones or another output folder",
                )
            is_free = changed and not any(_is_done(output, name) for name in known.config.methods)
            if is_free and head not in (None, known.head):
                begun = replace(begun, head=head)
                changed += [name for name in known.config.methods if takes_head(*_learning(known.config, name))]
            _remove(sorted({folder for name in changed for folder in (output / CELLS / name).glob("*/seed*")}))
        content = {
            "config": begun.config.model_dump(mode="json"),
            "data": data,
            "head": None if begun.head is None else begun.head.model_dump(mode="json"),
        }
        write_bytes(output / BEGUN, json.dumps(content, indent=2).encode() + b"\n")
    return begun


def _is_done(output: Path, name: str) -> bool:
    """Tell whether a training of a method is."""
    return any((output / CELLS / name).glob(f"*/seed*/{SCORES}"))


def _remove(folders: Sequence[Path]) -> None:
    """Remove trainings that are half done: all of them, or none where another job is at one.

    Raises
    ------
    BusyError
        If it is.
    """
    with ExitStack() as held:
        for folder in folders:
            held.enter_context(locked(folder / ".lock"))
        for folder in folders:
            logger.info("%s was half made with other settings and is made anew", folder)
            shutil.rmtree(folder)


def _learning(config: BudgetConfig, name: str) -> tuple[str, dict[str, Any]]:
    """Return the method that trainings are of, and what is asked of its options."""
    given = merged(config.train, config.each.get(name, {}))
    return given.get("method", name), given.get("options", {})


def _decisive(begun: Begun, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings and the data on which the trainings of a method depend."""
    given = flattened(merged(begun.config.train, begun.config.each.get(name, {})))
    return {key: value for key, value in given.items() if key not in FREE}, begun.data


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Hold the lock of a study, waiting while another of its jobs holds it.

    Raises
    ------
    BusyError
        If that takes longer than a minute.
    """
    latest = time.monotonic() + _PATIENCE_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(output / ".lock"))
                break
            except BusyError:
                if time.monotonic() > latest:
                    raise
                time.sleep(0.1)
        yield
