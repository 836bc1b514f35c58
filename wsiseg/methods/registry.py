"""The methods by name, imported only when asked for."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from wsiseg.errors import MethodError

if TYPE_CHECKING:
    from wsiseg.methods.base import Method
    from wsiseg.methods.stages import PatchMethod

# name → module that holds METHOD
METHODS: Final = {
    "hce": "wsiseg.methods.hce",
    "label-efficient": "wsiseg.methods.label_efficient",
    "mean-teacher": "wsiseg.methods.mean_teacher",
    "pgfanet": "wsiseg.methods.pgfanet",
    "supervised": "wsiseg.methods.supervised",
    "ugmcl": "wsiseg.methods.ugmcl",
}
# The same for methods that know patches by their classes
PATCH_METHODS: Final = {
    "craanet": "wsiseg.methods.craanet",
    "mlps": "wsiseg.methods.mlps",
}
ENTRY_POINTS: Final = "wsiseg.methods"


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, those of other packages included."""
    return tuple(sorted({*METHODS, *PATCH_METHODS, *(entry.name for entry in entry_points(group=ENTRY_POINTS))}))


def get_patch_method(name: str) -> PatchMethod | None:
    """Return a method that knows patches by their classes, or None where `name` is no such method."""
    if name not in PATCH_METHODS:
        return None
    method: PatchMethod = importlib.import_module(PATCH_METHODS[name]).METHOD
    return method


def get_method(name: str) -> Method:
    """Return a method by name; our own come before those of other packages.

    Raises
    ------
    MethodError
        If there is none, or the package that offers it cannot be imported.
    """
    if name in METHODS:
        method: Method = importlib.import_module(METHODS[name]).METHOD
        return method
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            try:
                found: Method = entry.load()
            except (ImportError, AttributeError) as error:
                raise MethodError(
                    f"the method cannot be loaded: {error}", where=name, mend=f"Install {entry.value} again"
                ) from error
            return found
    names = method_names()
    near = difflib.get_close_matches(name, names, n=1)
    mend = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}"
    raise MethodError(f"unknown method {name!r}", where="--method", mend=mend)
