"""The scripts of the pipelines, which are no packages."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import wsiseg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

PIPELINES = Path(wsiseg.__file__).parents[1] / "pipelines"


@pytest.fixture(scope="session")
def scripts() -> Callable[..., AbstractContextManager[dict[str, Any]]]:
    """Return a function that gives the scripts of a pipeline by their names, and forgets them afterwards."""

    @contextmanager
    def of(pipeline: str, *names: str) -> Iterator[dict[str, Any]]:
        folder = PIPELINES / pipeline
        if not folder.is_dir():
            pytest.skip("the pipelines do not come with an installed package")
        sys.path.insert(0, str(folder))
        try:
            yield {name: importlib.import_module(name) for name in names}
        finally:
            sys.path.remove(str(folder))
            for name in names:
                sys.modules.pop(name, None)

    return of
