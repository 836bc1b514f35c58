"""A quick hash that tells whether a slide is still the same file, whatever its name and place."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO

from wsiseg.errors import SlideError
from wsiseg.urls import url_of

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE_BYTES = 1 << 18


def fingerprint(path: Path) -> str:
    """Return a hash of a slide's size, head, middle and tail.

    It reads at most 768 KiB of each file, so it takes milliseconds on a slide of any size,
    and it does not depend on names or dates. A slide of several files in one folder is
    hashed as all of them in the order of their own hashes.

    Parameters
    ----------
    path
        File, folder, or URL that has become a path.

    Returns
    -------
    str
        32 hexadecimal digits.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    url = url_of(path)
    if url is not None:
        return _digest_of_remote(url).hex()
    try:
        if path.is_dir():
            parts = sorted(_digest(part) for part in path.iterdir() if part.is_file())
            return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()
        return _digest(path).hex()
    except OSError as error:
        raise SlideError(f"cannot be read: {error.strerror}", where=path) from error


def _digest_of_remote(url: str) -> bytes:
    # Late: a local slide never needs it.
    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            return _digest_of_open(file)
    except ImportError as error:
        raise SlideError(
            f"reading from there needs a package that is not installed: {error}",
            where=url,
            mend="pip install 'wsiseg[remote]'",
        ) from error
    except Exception as error:  # each file system has errors of its own
        raise SlideError(f"cannot be read: {error or type(error).__name__}", where=url) from error


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return _digest_of_open(file)


def _digest_of_open(file: BinaryIO) -> bytes:
    size = file.seek(0, 2)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    for start in sorted({0, max(0, (size - SAMPLE_BYTES) // 2), max(0, size - SAMPLE_BYTES)}):
        file.seek(start)
        digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()
