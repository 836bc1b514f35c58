"""Which images may be learnt from with their labels, where only some may."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.errors import ConfigError, DataError
from wsiseg.stores.patch_meta import SYNTHETIC
from wsiseg.training.splits import are_of, groups_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wsiseg.training.splits import Divisible

_COUNT: Final = re.compile(r"\d+")
# As people, TOML and Python write it; a whole number is a count unless a percent sign follows.
_SHARE: Final = re.compile(r"(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*%?", re.IGNORECASE)


def draw_labelled(names: Sequence[str], wanted: str, *, seed: int, what: str = "images") -> list[str]:
    """Return the images, slides or patients whose labels may be used, sorted.

    The names are sorted and shuffled, and the first are taken, so that with one seed a larger share
    holds every smaller one.

    Parameters
    ----------
    names
        All that have labels, each once.
    wanted
        A share (``0.1`` or ``10%``; ``1.0`` is all), a count (``3``; ``1`` is one), or a file with one name in each
        line.
    seed
        Decides the draw.
    what
        What they are, for messages.

    Raises
    ------
    ConfigError
        If it is none of these, or more than there are.
    DataError
        If a name in the file is not known, or it is not in UTF-8.

    References
    ----------
    .. [1] Jin et al., "Inter- and intra-uncertainty based feature aggregation model for semi-supervised
       histopathology image segmentation", Expert Systems with Applications 2024 (their code draws so; halves are
       rounded to even).
    """
    known = sorted(names)
    text = wanted.strip()
    if _COUNT.fullmatch(text):
        count = int(text)
    elif _SHARE.fullmatch(text):
        share = float(text.rstrip("% ")) / (100 if text.endswith("%") else 1)
        if not 0 < share <= 1:
            raise ConfigError(f"{text} is no share of the {what}", where="--labelled", mend="Pass more than 0, up to 1")
        count = max(1, round(len(known) * share))
    else:
        return _named(Path(text), known, what)
    if not 0 < count <= len(known):
        raise ConfigError(
            f"{count} of {len(known)} labelled {what} cannot be drawn",
            where="--labelled",
            mend=f"Pass 1 to {len(known)}, or a share with a point such as 0.1 (1.0 is all)",
        )
    # The legacy generator, because published subsets were drawn with it.
    order = np.random.RandomState(seed).permutation(len(known))
    return sorted(known[at] for at in order[:count])


def _named(file: Path, known: Sequence[str], what: str) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            "the file is not in UTF-8", where=file, mend="Save it as UTF-8, with one name in each line"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{file} is no share, no count and no file of names",
            where="--labelled",
            mend="Pass 0.1, 10%, 3, or a text file with one name in each line",
        ) from error
    return _checked({line.strip() for line in lines} - {""}, known, what, where=file)


def _checked(chosen: set[str], known: Sequence[str], what: str, *, where: Path) -> list[str]:
    if unknown := sorted(chosen - set(known)):
        raise DataError(
            f"{len(unknown)} of {len(chosen)} names are none of the {len(known)} labelled {what} to train on, such as "
            f"{unknown[0]}",
            where=where,
            mend=f"Name {what} as the store does, such as {known[0]}; what is held out is not to train on "
            "(--val-fraction 0 holds out none where stores mark no splits)",
        )
    if not chosen:
        raise DataError("the file names nothing", where=where)
    return sorted(chosen)


def part_labelled(
    stores: Sequence[Divisible],
    training: Sequence[NDArray[np.int64]],
    wanted: str,
    *,
    seed: int,
    units: Sequence[NDArray[np.object_]] | None = None,
    what: str = "images",
    listed: Sequence[str] | None = None,
) -> tuple[list[NDArray[np.int64]], list[str]]:
    """Return the training patches of each store whose labels may be used, and what they come from.

    Patches of one unit, such as an image or a patient, are never parted. Only units with real patches are drawn;
    synthetic ones go with these.

    Parameters
    ----------
    stores
        Stores with splits and groups.
    training
        Labelled training patches of each.
    wanted, seed, what
        See `draw_labelled`.
    units
        The name of the unit of each patch of each store; groups, the widest there is, where None.
    listed
        The units in the file `wanted`, where it is not one of names alone.

    Raises
    ------
    ConfigError, DataError
        See `draw_labelled`; or if all that is labelled is synthetic.
    """
    units = [store.groups for store in stores] if units is None else units
    found = [own[indices].astype(str) for own, indices in zip(units, training, strict=True)]
    is_real = [store.splits[indices] != SYNTHETIC for store, indices in zip(stores, training, strict=True)]
    known = sorted({name for own, real in zip(found, is_real, strict=True) for name in own[real].tolist()})
    if not known:
        raise DataError(
            f"none of the labelled {what} to train on is real, and synthetic ones are not drawn",
            where="--labelled",
            mend="Give stores of annotated patches, too, or leave --labelled out",
        )
    if listed is None:
        chosen = draw_labelled(known, wanted, seed=seed, what=what)
    else:
        chosen = _checked(set(listed), known, what, where=Path(wanted))
    return [indices[np.isin(own, chosen)] for own, indices in zip(found, training, strict=True)], chosen


def without_labels(
    stores: Sequence[Divisible],
    labelled: Sequence[NDArray[np.int64]],
    held_out: Sequence[NDArray[np.int64]],
) -> list[NDArray[np.int64]]:
    """Return the patches of each store that may be learnt from without labels.

    These are all but those that are learnt from with labels, those marked ``val`` or ``test``, synthetic ones, and
    those of patients of whom something is held out or marked so.

    Parameters
    ----------
    stores
        Stores with splits and groups.
    labelled, held_out
        Patches of each that are learnt from with labels, and that models are chosen by.
    """
    marked = [np.isin(store.splits, ["val", "test"]) for store in stores]
    for mask, judging in zip(marked, held_out, strict=True):
        mask[judging] = True
    judges = groups_of(stores, marked)
    found = []
    for store, used in zip(stores, labelled, strict=True):
        is_free = (store.splits != SYNTHETIC) & ~are_of(store, judges)
        is_free[used] = False
        found.append(np.flatnonzero(is_free))
    return found
