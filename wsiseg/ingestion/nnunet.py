"""Raw data sets of nnU-Net whose images are colour or grey pictures.

A data set is a folder with ``dataset.json``, ``imagesTr``, ``labelsTr`` and, if wanted, ``imagesTs`` and
``labelsTs``. An image is called ``CASE_0000.png`` (or ``.tif``, ``.bmp``) and its label image ``CASE.png``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from wsiseg.errors import DataError, NothingMatchedError
from wsiseg.ingestion.named_labels import patient_in_name
from wsiseg.ingestion.source import Source, SourceImage, check_distinct, files_by_stem, images_by_stem, pair
from wsiseg.labels import LabelMap
from wsiseg.rasters import READABLE

if TYPE_CHECKING:
    from pathlib import Path

_PARTS: Final = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}
_CHANNEL: Final = re.compile(r"(.+)_(\d{4})")
_IGNORED: Final = "ignore"


def find_nnunet(source: Path) -> Source:
    """Return the images of a raw data set of nnU-Net [1]_.

    Images of ``imagesTs`` are marked ``test``, with labels or without: they are what others are compared on.

    Parameters
    ----------
    source
        The folder with ``dataset.json``, whose ``labels`` name the classes; ``ignore`` is what is not learnt.

    Raises
    ------
    NothingMatchedError
        If there are no images.
    DataError
        If ``dataset.json`` is missing or names no classes, labels are missing, or an image is spread over several
        files.

    References
    ----------
    .. [1] Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
       Nature Methods 18, 2021.
    """
    if not source.is_dir():
        raise NothingMatchedError("there is no such folder", where=source)
    table = source / "dataset.json"
    labels, excluded = _read_classes(table)
    images = []
    for split, (image_folder, label_folder) in _PARTS.items():
        files = _by_case(source / image_folder)
        own, bare = pair(files, files_by_stem(source / label_folder, READABLE))
        images += [
            SourceImage(
                name=case,
                path=path,
                labels=own.get(case),
                split=split,
                group=patient_in_name(case) or case,
                is_bare=case in bare,
            )
            for case, path in files.items()
        ]
    if not images:
        raise NothingMatchedError(
            "the folder holds no images",
            where=source,
            mend="They are called imagesTr/CASE_0000.png, .tif or .bmp; for volumes pass --layout volumes",
        )
    check_distinct(images)
    return Source(images=images, labels=labels, excluded=excluded, told_by=table)


def _by_case(folder: Path) -> dict[str, Path]:
    cases = {}
    for stem, path in images_by_stem(folder).items():
        found = _CHANNEL.fullmatch(stem)
        if found is None:
            raise DataError("the name tells no channel", where=path, mend="Call it CASE_0000, as nnU-Net does")
        case, channel = found.groups()
        if int(channel):
            raise DataError(
                f"channel {int(channel)} of the image has a file of its own",
                where=path,
                mend="Only grey and RGB images are read, from one file CASE_0000",
            )
        cases[case] = path
    return cases


def _read_classes(table: Path) -> tuple[LabelMap, int | None]:
    """Return the classes that ``dataset.json`` names, and the index of what is ignored."""
    try:
        content = json.loads(table.read_bytes())
        indices = _indices(content["labels"])
    except FileNotFoundError as error:
        raise DataError(
            "there is no such file", where=table, mend="SRC is the folder DatasetNNN_NAME of nnUNet_raw"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "names no classes",
            where=table,
            mend='It needs "labels": {"background": 0, "NAME": 1, …}; regions of several classes are not read',
        ) from error
    excluded = indices.pop(_IGNORED, None)
    names = tuple(sorted(indices, key=indices.__getitem__))
    if [indices[name] for name in names] != list(range(len(names))):
        raise DataError(f"the labels are not 0 to {len(names) - 1} without gaps", where=table)
    if excluded is not None and excluded < len(names):
        raise DataError(f"{_IGNORED!r} is not the highest label", where=table)
    try:
        return LabelMap.from_names(names, background=names[:1] == ("background",)), excluded
    except ValueError as error:
        raise DataError(f"names {len(names)} classes, which are too many", where=table) from error


def _indices(labels: Any) -> dict[str, int]:  # noqa: ANN401 - whatever JSON says
    # The first version of nnU-Net wrote {"0": "background"}.
    if all(isinstance(name, str) for name in labels.values()):
        labels = {name: int(index) for index, name in labels.items()}
    if not labels or any(type(index) is not int for index in labels.values()):
        raise ValueError("labels must be whole numbers")
    return {str(name): index for name, index in labels.items()}
