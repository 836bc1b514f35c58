"""Heads by name."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from wsiseg.config import Config, load
from wsiseg.errors import ConfigError, MethodError

if TYPE_CHECKING:
    from wsiseg.heads.base import InstanceHead

# Name, then module, head and options, imported when asked for.
HEADS: Final = {
    "centre": ("wsiseg.heads.centre", "CentreHead", "CentreOptions"),
    "flow": ("wsiseg.heads.flow", "FlowHead", "FlowOptions"),
    "hv": ("wsiseg.heads.hv", "HVHead", "HVOptions"),
    "level-set": ("wsiseg.heads.level_set", "LevelSetHead", "LevelSetOptions"),
    "star": ("wsiseg.heads.star", "StarHead", "StarOptions"),
    "ternary": ("wsiseg.heads.ternary", "TernaryHead", "TernaryOptions"),
}


def make_head(kind: str, **options: Any) -> InstanceHead:  # noqa: ANN401 - the head's settings check them
    """Return a head.

    Parameters
    ----------
    kind
        Its name in `HEADS`.
    options
        What to change in its options.

    Raises
    ------
    MethodError
        If the head or an option is unknown, or a value does not fit.
    """
    resolved = head_options(kind, **options)
    place, head, _ = HEADS[kind]
    return cast("InstanceHead", getattr(import_module(place), head)(resolved))


def head_options(kind: str, **options: Any) -> Config:  # noqa: ANN401 - as above
    """Return all options of a head, of which some are changed; see `make_head`."""
    if kind not in HEADS:
        near = difflib.get_close_matches(kind, HEADS, n=1)
        raise MethodError(
            f"there is no instance head {kind!r}",
            mend=f"Did you mean {near[0]}?" if near else f"There are: {', '.join(HEADS)}",
        )
    place, _, settings = HEADS[kind]
    try:
        resolved: Config = load(getattr(import_module(place), settings), options=options)
    except ConfigError as error:
        raise MethodError(error.what, where=f"head {kind}", mend=error.mend) from error
    return resolved
