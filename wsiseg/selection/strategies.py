"""Ways to choose patches, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from wsiseg.errors import MethodError
from wsiseg.selection.groups import Choice, Group
from wsiseg.selection.patch_scores import ConsistencyOptions, by_consistency
from wsiseg.selection.uncertainty import by_uncertainty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsiseg.selection.features import PoolFeatures


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """What is chosen from.

    Parameters
    ----------
    boxes
        Number of the image, left, top, right and bottom of each patch, (n, 5); see `wsiseg.selection.pool.boxes_of`.
    features
        Of these; None for strategies that need none.
    uncertainty
        Of a prediction of each patch, 0 … 1, (n,); None for strategies that need none.
    """

    boxes: NDArray[np.int64]
    features: PoolFeatures | None = None
    uncertainty: NDArray[np.float32] | None = None

    @property
    def size(self) -> int:
        """Return the number of patches."""
        return len(self.boxes)

    def needed_features(self) -> PoolFeatures:
        """Return the features."""
        if self.features is None:
            raise ValueError("the strategy needs features")
        return self.features


class Strategy(Protocol):
    """Parts a pool into as many groups as patches are wanted, best patches first."""

    def __call__(self, pool: Pool, count: int, options: ConsistencyOptions, *, seed: int) -> Choice:
        """Return the groups of a pool of at least `count` patches; `seed` decides everything random."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A strategy, and whether it needs features or a prediction."""

    choose: Strategy
    needs_features: bool = False
    needs_prediction: bool = False


def consistent(pool: Pool, count: int, options: ConsistencyOptions, *, seed: int) -> Choice:
    """Choose by consistency; see `wsiseg.selection.patch_scores`."""
    return by_consistency(pool.needed_features(), count, options, seed=seed)


def at_random(pool: Pool, count: int, options: ConsistencyOptions, *, seed: int) -> Choice:  # noqa: ARG001 - protocol
    """Choose at random; those that stand by are the next ones that would be drawn."""
    order = np.random.default_rng(seed).permutation(pool.size)
    cluster = np.full(pool.size, -1, dtype=np.int32)
    groups = tuple(
        Group(number=number, members=pool.size, places=order[number::count], scores={}) for number in range(count)
    )
    return Choice(groups=groups, cluster=cluster)


def far_apart(pool: Pool, count: int, options: ConsistencyOptions, *, seed: int) -> Choice:  # noqa: ARG001 - protocol
    """Choose patches that are far from one another: each is the one whose features lie farthest from those before.

    The first is drawn at random. What stands by for a patch are those to which it is the nearest of the chosen ones,
    by their distance.

    References
    ----------
    .. [1] Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018 (the
       greedy one).
    """
    features = pool.needed_features()
    chosen = [int(np.random.default_rng(seed).integers(pool.size))]
    distance = np.full(pool.size, np.inf)
    cluster = np.zeros(pool.size, dtype=np.int32)
    while True:
        centre = features.read("patches", np.array(chosen[-1:])).astype(np.float32)
        for places, block in features.blocks("patches"):
            found = np.linalg.norm(block - centre, axis=1)
            is_nearer = found < distance[places]
            cluster[places][is_nearer] = len(chosen) - 1
            distance[places][is_nearer] = found[is_nearer]
        if len(chosen) == count:
            break
        # What is chosen already is at distance 0, and so are its doubles.
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
        distance[chosen[:-1]] = 0
    groups = []
    for number, centre_place in enumerate(chosen):
        cluster[centre_place] = number
    for number, centre_place in enumerate(chosen):
        members = np.flatnonzero(cluster == number)
        order = members[np.lexsort((members, members != centre_place, distance[members]))]
        groups.append(
            Group(
                number=number, members=len(members), places=order, scores={"score": distance[order].astype(np.float64)}
            )
        )
    return Choice(groups=tuple(groups), cluster=cluster)


def uncertain(pool: Pool, count: int, options: ConsistencyOptions, *, seed: int) -> Choice:  # noqa: ARG001 - protocol
    """Choose by uncertainty, in different places; see `wsiseg.selection.uncertainty`."""
    if pool.uncertainty is None:
        raise ValueError("the strategy needs a prediction")
    return by_uncertainty(pool.boxes, pool.uncertainty, count)


STRATEGIES: Final[dict[str, Entry]] = {
    "cps": Entry(consistent, needs_features=True),
    "random": Entry(at_random),
    "kcenter": Entry(far_apart, needs_features=True),
    "uncertainty": Entry(uncertain, needs_prediction=True),
}


def get_strategy(name: str) -> Entry:
    """Return a strategy by name.

    Raises
    ------
    MethodError
        If there is none.
    """
    if name not in STRATEGIES:
        raise MethodError(
            f"there is no strategy {name!r}", where="--strategy", mend=f"There are: {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[name]
