"""Data sets of nuclei and glands, in the folders that their makers publish.

Each of them marks single objects. A part without any labels is taken without; where some images of a
part have labels, all must, but for those that a table marks as unlabelled.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from wsiseg.errors import DataError, NothingMatchedError
from wsiseg.ingestion.label_files import OBJECT_SUFFIXES
from wsiseg.ingestion.named_labels import patient_in_name
from wsiseg.ingestion.source import Source, SourceImage, check_distinct, files_by_stem, images_by_stem, pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_IMAGE_FOLDERS: Final = ("tissue images", "images")
_LABEL_FOLDERS: Final = ("annotations", "annotation", "labels", "masks")
# What the name of a folder says of all in it; "latest" and "contest" say nothing.
_SPLITS: Final = {"train": "train", "val": "val", "test": "test", "unlabel": "unlabelled"}
_TELLING: Final = re.compile(r"(?<![A-Za-z])(?i:train|val|test|unlabel)|Train|Test")
# Archives often unpack into a folder inside a folder of the same name.
_DEPTH: Final = 3
_GLAS: Final = re.compile(r"(train|test)[AB]?_\d+(_anno)?")


def find_monuseg(source: Path) -> Source:
    """Return the images of MoNuSeg 2018 [1]_.

    The parts, such as ``MoNuSeg 2018 Training Data``, hold ``Tissue Images/*.tif`` and ``Annotations/*.xml``;
    ``MoNuSegTestData`` holds both side by side. ``images`` and ``labels`` do as well, and label images.

    Parameters
    ----------
    source
        A part, or a folder with parts. Their names tell the splits; patients are those of the TCGA barcodes.

    Raises
    ------
    NothingMatchedError
        If there are no images.
    DataError
        If labels are missing, or two images have the same name.

    References
    ----------
    .. [1] Kumar et al., "A Multi-Organ Nucleus Segmentation Challenge", IEEE Transactions on Medical Imaging 39(5),
       2020.
    """
    return Source(images=_of_parts(source, mend="Images lie in SRC/PART/Tissue Images"))


def find_crag(source: Path) -> Source:
    """Return the images of CRAG [1]_: ``train`` and ``valid`` with ``Images/*.png`` and ``Annotation/*.png``.

    Parameters
    ----------
    source
        The folder of both, or one above. What is called ``valid`` is the test set, unless there is a ``test``.

    Raises
    ------
    NothingMatchedError
        If there are no images.
    DataError
        If labels are missing, or two images have the same name.

    References
    ----------
    .. [1] Graham et al., "MILD-Net: Minimal information loss dilated network for gland instance segmentation in
       colon histology images", Medical Image Analysis 52, 2019.
    """
    images = _of_parts(source, mend="Images lie in SRC/train/Images")
    if all(image.split != "test" for image in images):
        images = [replace(image, split="test") if image.split == "val" else image for image in images]
    return Source(images=images)


def find_glas(source: Path) -> Source:
    """Return the images of GlaS [1]_: ``train_1.bmp`` and ``train_1_anno.bmp``, likewise ``testA`` and ``testB``.

    Parameters
    ----------
    source
        The folder of the files, or one above. ``Grade.csv`` beside them, if there, tells the patients, of whom some
        have images in both parts of the split.

    Raises
    ------
    NothingMatchedError
        If there are no images.
    DataError
        If labels are missing, two images have the same name, or ``Grade.csv`` does not tell the patient of each.

    References
    ----------
    .. [1] Sirinukunwattana et al., "Gland segmentation in colon histology images: The GlaS challenge contest",
       Medical Image Analysis 35, 2017.
    """
    images = []
    for folder in _folders(source):
        files = {name: path for name, path in images_by_stem(folder).items() if _GLAS.fullmatch(name)}
        labels = {name.removesuffix("_anno"): files.pop(name) for name in list(files) if name.endswith("_anno")}
        patients = _patients(folder / "Grade.csv", files) if files else {}
        for prefix in sorted({name.partition("_")[0] for name in files}):
            part = {name: path for name, path in files.items() if name.startswith(f"{prefix}_")}
            own, bare = pair(part, {name: path for name, path in labels.items() if name.startswith(f"{prefix}_")})
            split = "train" if prefix == "train" else "test"
            images += [
                SourceImage(
                    name=name,
                    path=path,
                    labels=own.get(name),
                    split=split,
                    group=patients.get(name, name),
                    is_bare=name in bare,
                )
                for name, path in part.items()
            ]
    return Source(images=_checked(images, source, mend="They are called train_1.bmp, testA_1.bmp …"))


def find_dsb2018(source: Path) -> Source:
    """Return the images of the 2018 Data Science Bowl [1]_: ``ID/images/ID.png`` and ``ID/masks/*.png``.

    Parameters
    ----------
    source
        The folder of the images' folders, such as ``stage1_train``, or one above. Its name tells the split.

    Raises
    ------
    NothingMatchedError
        If there are no images.
    DataError
        If labels are missing, a folder holds several images, or two images have the same name.

    References
    ----------
    .. [1] Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", Nature
       Methods 16, 2019.
    """
    parts: dict[Path, dict[str, Path]] = defaultdict(dict)
    for folder in islice(_folders(source), 1, None):
        files = images_by_stem(folder / "images")
        if len(files) > 1:
            raise DataError(f"holds {len(files)} images instead of one", where=folder / "images")
        for path in files.values():
            parts[folder.parent][folder.name] = path
    images = []
    for part, files in parts.items():
        masks = {name: part / name / "masks" for name in files if images_by_stem(part / name / "masks")}
        own, bare = pair(files, masks)
        images += [
            SourceImage(
                name=name,
                path=path,
                labels=own.get(name),
                split=_split(part, source),
                group=name,
                is_bare=name in bare,
            )
            for name, path in files.items()
        ]
    return Source(images=_checked(images, source, mend="They lie in SRC/ID/images"))


def _of_parts(source: Path, *, mend: str) -> list[SourceImage]:
    """Return the images of folders whose sub-folders hold images and labels, or that hold both themselves."""
    images = []
    for folder, files, labels in _parts(source):
        own, bare = pair(files, labels)
        images += [
            SourceImage(
                name=name,
                path=path,
                labels=own.get(name),
                split=_split(folder, source),
                group=patient_in_name(name) or name,
                is_bare=name in bare,
            )
            for name, path in files.items()
        ]
    return _checked(images, source, mend=mend)


def _parts(folder: Path, depth: int = _DEPTH) -> Iterator[tuple[Path, dict[str, Path], dict[str, Path]]]:
    inside = {child.name.casefold(): child for child in _children(folder)}
    images = next((inside[name] for name in _IMAGE_FOLDERS if name in inside), None)
    if images is not None:
        labels = next((inside[name] for name in _LABEL_FOLDERS if name in inside), None)
        yield folder, images_by_stem(images), {} if labels is None else files_by_stem(labels, OBJECT_SUFFIXES)
    elif files := files_by_stem(folder, (".tif",)):
        yield folder, files, files_by_stem(folder, (".xml",))
    elif depth:
        for child in inside.values():
            yield from _parts(child, depth - 1)


def _folders(source: Path, depth: int = _DEPTH) -> Iterator[Path]:
    yield source
    if depth:
        for child in _children(source):
            yield from _folders(child, depth - 1)


def _children(folder: Path) -> list[Path]:
    # macOS packs a folder of hidden twins into its archives.
    hidden = (".", "__")
    return sorted(child for child in folder.glob("*") if child.is_dir() and not child.name.startswith(hidden))


def _split(part: Path, source: Path) -> str:
    """Return what the nearest name above the images says of their split, or nothing."""
    names = (source.resolve().name, *part.relative_to(source).parts)
    words = [word for name in names for word in _TELLING.findall(name)]
    return _SPLITS[words[-1].casefold()] if words else ""


def _patients(table: Path, names: Iterable[str]) -> Mapping[str, str]:
    """Return the patient of each image from the columns ``name`` and ``patient ID``; none if there is no table."""
    if not table.exists():
        return {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
        columns = [name.casefold() for name in rows[0]]
        name, patient = columns.index("name"), columns.index("patient id")
        patients = {row[name]: row[patient] for row in rows[1:] if row}
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise DataError(
            "not a table with the columns name and patient ID", where=table, mend="Fetch it again"
        ) from error
    unknown = next((image for image in names if not patients.get(image)), None)
    if unknown is not None:
        raise DataError(f"tells no patient of {unknown}", where=table, mend="Add the row, or remove the file")
    return patients


def _checked(images: list[SourceImage], source: Path, *, mend: str) -> list[SourceImage]:
    if not source.is_dir():
        raise NothingMatchedError("there is no such folder", where=source)
    if not images:
        raise NothingMatchedError("the folder holds no images", where=source, mend=mend)
    check_distinct(images)
    return images
