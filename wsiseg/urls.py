"""Places that are not on a local disk, told from paths even where one has passed through pathlib."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# A URL that went through pathlib has lost one of its slashes.
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)")
_LOCAL: Final = "file"


def url_of(place: Path | str) -> str | None:
    """Return the URL that a place is, such as ``s3://bucket/slide.svs``, or None for files and folders."""
    found = _URL.fullmatch(str(place))
    return None if found is None or found[1] == _LOCAL else f"{found[1]}://{found[2]}"


def local_of(place: Path | str) -> str:
    """Return the path that a local place is; of ``file:///a/b`` it is ``/a/b``.

    >>> local_of("file:///slides/a.svs")
    '/slides/a.svs'
    """
    found = _URL.fullmatch(str(place))
    return f"/{found[2]}" if found is not None and found[1] == _LOCAL else str(place)
