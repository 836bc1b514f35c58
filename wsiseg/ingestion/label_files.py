"""Reading the labels of an image, in whatever form data sets publish them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.io import loadmat

from wsiseg.errors import DataError
from wsiseg.geometry import Size
from wsiseg.ingestion.outlines import draw_outlines, read_outlines
from wsiseg.ingestion.source import images_by_stem
from wsiseg.rasters import READABLE, read_labels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OBJECT_SUFFIXES: Final = (*READABLE, ".mat", ".xml")

# What published label files call their object ids.
_VARIABLE: Final = "inst_map"


def read_label_file(path: Path, size: Size) -> NDArray[Any]:
    """Return the labels of an image.

    Parameters
    ----------
    path
        A label image (see `wsiseg.rasters.read_labels`), a MATLAB file whose variable ``inst_map`` holds object
        ids, an XML file of outlines (see `read_outlines`), or a folder with a mask for each object.
    size
        Size of the image.

    Returns
    -------
    NDArray
        Integer (H, W): class indices or object ids, as the file has them. Outlines and masks are numbered from 1 in
        the order of the file and of the masks' names; a pixel of several objects belongs to the first.

    Raises
    ------
    DataError
        If the file cannot be read, holds no labels, or is of another size.
    """
    if path.is_dir():
        return _read_masks(path, size)
    if path.suffix.lower() == ".xml":
        return draw_outlines(read_outlines(path), size, where=path)
    labels = _read_matlab(path) if path.suffix.lower() == ".mat" else read_labels(path)
    _check_size(labels, size, path)
    return labels


def _read_masks(folder: Path, size: Size) -> NDArray[np.int32]:
    labels = np.zeros((size.height, size.width), dtype=np.int32)
    for number, path in enumerate(images_by_stem(folder).values(), start=1):
        mask = read_labels(path)
        _check_size(mask, size, path)
        labels[(mask > 0) & (labels == 0)] = number
    return labels


def _read_matlab(path: Path) -> NDArray[np.int64]:
    try:
        labels = loadmat(path, variable_names=[_VARIABLE]).get(_VARIABLE)
    except Exception as error:  # the reader raises whatever it likes at broken bytes
        raise DataError("cannot be read as a MATLAB file", where=path, mend="Save it with -v7 or older") from error
    if labels is None:
        raise DataError(f"holds no variable {_VARIABLE}", where=path, mend="It keeps the object ids of label files")
    # Two axes; MATLAB's numbers are fractions unless told otherwise.
    if labels.ndim != 2 or labels.dtype.kind not in "iuf" or not np.all((labels >= 0) & (labels % 1 == 0)):  # noqa: PLR2004
        raise DataError(f"{_VARIABLE} is no map of object ids, which are whole numbers from 0", where=path)
    ids: NDArray[np.int64] = labels.astype(np.int64)
    return ids


def _check_size(labels: NDArray[Any], size: Size, path: Path) -> None:
    if labels.shape != (size.height, size.width):
        found = Size(labels.shape[1], labels.shape[0])
        raise DataError(f"the label image has {found} pixels, its image {size}", where=path)
