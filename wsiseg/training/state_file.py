"""The state of an unfinished training on disk: beside the models and never part of one, and read as data only."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from wsiseg.atomic import write_bytes
from wsiseg.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

# What tensors, numbers, texts and containers of them make up; torch's own reader refuses anything else.
State = dict[str, Any]


def save_state(path: Path, state: State) -> None:
    """Write the state of an unfinished training, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path, *, is_mapped: bool = False) -> State:
    """Return the state of a training, on the CPU; if `is_mapped`, tensors are read when they are looked at.

    Raises
    ------
    DataError
        If the file is damaged or holds anything but data.
    """
    try:
        with path.open("rb") as file:
            is_archive = zipfile.is_zipfile(file)
        # torch would read other pickles, too, and warn of them at length before it refuses them.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped) if is_archive else None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    except Exception as error:  # torch's reader meets rubbish with errors of many kinds
        raise DataError(
            "the state of the training is damaged or holds more than data",
            where=path,
            mend="Pass --overwrite to train from the start",
        ) from error
    if not isinstance(state, dict):
        raise DataError("this is no state of a training, or a damaged one", where=path, mend="Pass --overwrite")
    return state
