"""What strategies give: groups of patches, best first; and which of these are chosen in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Patches that can stand for one another.

    Parameters
    ----------
    number
        Of the group.
    members
        How many patches belong to it.
    places
        Those that may be chosen, best first, as places in the pool.
    scores
        What speaks for or against each of these, by name, (m,).
    """

    number: int
    members: int
    places: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """What a strategy has found in a pool.

    Parameters
    ----------
    groups
        From each of which one patch is to be chosen.
    cluster
        Number of the group of each patch of the pool, int32 (n,), -1 for none.
    """

    groups: tuple[Group, ...]
    cluster: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A patch that is chosen, or stands by.

    Parameters
    ----------
    place
        In the pool.
    group
        Number of its group.
    members
        Patches of the group.
    rank
        1 for the chosen patch, then those that may take its place.
    scores
        By name.
    """

    place: int
    group: int
    members: int
    rank: int
    scores: Mapping[str, float]


def pick(
    choice: Choice,
    boxes: NDArray[np.int64],
    *,
    runners_up: int,
    taken: NDArray[np.int64] | None = None,
) -> list[Pick]:
    """Return the best patch of each group, then those that may take its place, group by group.

    What takes the place of a patch shares no pixel with it, as it would show the same artefact.

    Parameters
    ----------
    choice
        Groups.
    boxes
        Number of the image, left, top, right and bottom of each patch of the pool, (n, 5).
    runners_up
        At most so many of each group stand by.
    taken
        Boxes like these that no patch may overlap; then chosen patches of different groups do not overlap either. None
        lets them.

    Returns
    -------
    list[Pick]
        Those of rank 1 by the numbers of their groups, then the others. A group all of whose patches overlap others
        gives none.
    """
    first: list[Pick] = []
    held = [] if taken is None else list(taken)
    for group in choice.groups:
        free = (at for at, place in enumerate(group.places) if taken is None or _is_free(boxes[place], held))
        at = next(free, None)
        if at is not None:
            first.append(_pick(group, at, rank=1))
            held.append(boxes[group.places[at]])
    chosen = {one.group: one for one in first}
    rest: list[Pick] = []
    for group in choice.groups:
        if group.number not in chosen:
            continue
        own = [boxes[chosen[group.number].place]]
        for at, place in enumerate(group.places):
            if len(own) > runners_up:
                break
            if _is_free(boxes[place], own if taken is None else [*held, *own]):
                own.append(boxes[place])
                rest.append(_pick(group, at, rank=len(own)))
    return first + rest


def _pick(group: Group, at: int, *, rank: int) -> Pick:
    scores = {name: float(values[at]) for name, values in group.scores.items()}
    return Pick(place=int(group.places[at]), group=group.number, members=group.members, rank=rank, scores=scores)


def _is_free(box: NDArray[np.int64], others: list[NDArray[np.int64]]) -> bool:
    if not others:
        return True
    image, left, top, right, bottom = np.stack(others).T
    overlaps = (image == box[0]) & (left < box[3]) & (box[1] < right) & (top < box[4]) & (box[2] < bottom)
    return not overlaps.any()
