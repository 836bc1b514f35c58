"""The table of objects an instance model has found on a slide."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from wsiseg.atomic import atomic_path
from wsiseg.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

# Little-endian on every machine, so that the file's bytes depend on its content alone.
ROW: Final = np.dtype(
    [
        ("id", "<u4"),
        ("label", "u1"),
        ("score", "<f4"),
        ("area_px", "<i8"),
        ("x0", "<i8"),
        ("y0", "<i8"),
        ("x1", "<i8"),
        ("y1", "<i8"),
        ("cx", "<f8"),
        ("cy", "<f8"),
    ]
)
_MEND: Final = "Predict the slide again with --overwrite"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objects:
    """Objects in columns, one entry each; all in canvas pixels.

    Parameters
    ----------
    id
        Value in the instance layer, 1 or more, each once.
    label
        Class index of each object.
    score
        Probability 0 … 1; NaN where the model gives none.
    area_px
        Number of pixels.
    x0, y0, x1, y1
        Edges of the bounding box, half-open: the object lies in x0 … x1 - 1.
    cx, cy
        Centroid by the corner convention: a single pixel at (0, 0) has (0.5, 0.5).
    """

    id: NDArray[np.uint32]
    label: NDArray[np.uint8]
    score: NDArray[np.float32]
    area_px: NDArray[np.int64]
    x0: NDArray[np.int64]
    y0: NDArray[np.int64]
    x1: NDArray[np.int64]
    y1: NDArray[np.int64]
    cx: NDArray[np.float64]
    cy: NDArray[np.float64]

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of a table are equally long, these are not: {lengths}")

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the table of some rows."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def empty(cls) -> Self:
        """Return a table without objects."""
        return cls.from_rows(np.empty(0, dtype=ROW))

    @classmethod
    def concat(cls, parts: Iterable[Self]) -> Self:
        """Return the tables one below the other."""
        tables = [cls.empty(), *parts]
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in names})

    @classmethod
    def measured(cls, instances: NDArray[np.integer], *, x: int = 0, y: int = 0) -> Self:
        """Return the objects of an instance array, in order of id, with label 1 and no score.

        Parameters
        ----------
        instances
            Integer (H, W), 0 = background.
        x, y
            Canvas pixel of its corner.
        """
        rows, columns = np.nonzero(instances)
        ids, index, areas = np.unique(instances[rows, columns], return_inverse=True, return_counts=True)
        count = len(ids)
        low = np.full((2, count), np.iinfo(np.int64).max)
        high = np.full((2, count), -1)
        for axis, at in enumerate((columns, rows)):
            np.minimum.at(low[axis], index, at)
            np.maximum.at(high[axis], index, at)
        return cls(
            id=ids.astype(np.uint32),
            label=np.ones(count, dtype=np.uint8),
            score=np.full(count, np.nan, dtype=np.float32),
            area_px=areas.astype(np.int64),
            x0=low[0] + x,
            y0=low[1] + y,
            x1=high[0] + x + 1,
            y1=high[1] + y + 1,
            cx=np.bincount(index, weights=columns, minlength=count) / areas + (x + 0.5),
            cy=np.bincount(index, weights=rows, minlength=count) / areas + (y + 0.5),
        )

    @classmethod
    def from_rows(cls, rows: NDArray[np.void]) -> Self:
        """Return the table of a structured array of `ROW`."""
        return cls(**{field.name: np.ascontiguousarray(rows[field.name]) for field in fields(cls)})

    def to_rows(self) -> NDArray[np.void]:
        """Return the table as a structured array of `ROW`, (N,)."""
        rows = np.empty(len(self), dtype=ROW)
        for field in fields(self):
            rows[field.name] = getattr(self, field.name)
        return rows

    def save(self, path: Path) -> None:
        """Write the table as an ``.npy`` file, whole or not at all; equal tables give equal bytes."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array(file, self.to_rows(), version=(1, 0), allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the table in a file that `save` wrote.

        Raises
        ------
        DataError
            If the file is missing, damaged or another kind of array.
        """
        try:
            rows = np.load(path, allow_pickle=False)
        except FileNotFoundError as error:
            raise DataError("there is no such table of objects", where=path, mend=_MEND) from error
        except (OSError, ValueError, EOFError) as error:
            raise DataError("the table of objects is damaged", where=path, mend=_MEND) from error
        if not isinstance(rows, np.ndarray) or rows.dtype != ROW or rows.ndim != 1:
            raise DataError("this is not a table of objects", where=path, mend=_MEND)
        return cls.from_rows(rows)
