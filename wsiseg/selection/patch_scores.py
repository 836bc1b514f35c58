"""Consistency-based patch selection: from each part of the pool, the patch that stands for it and is alike all over.

Patches are clustered by their features, and the quadrants of each cluster's patches once more. A patch is good if it
lies near the centre of its cluster, if its quadrants lie near the centre of the cluster's largest sub-cluster, and if
they lie near one another.

Shapes: n patches, D dimensions, K clusters, L sub-clusters of each.

References
----------
.. [1] Lou et al., "Which Pixel to Annotate: a Label-Efficient Nuclei Segmentation Framework", IEEE Transactions on
   Medical Imaging 42(4), 2023. The scores are those of the released code, to which the article's text could not be
   compared.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import Field

from wsiseg.config import Config
from wsiseg.selection.groups import Choice, Group
from wsiseg.selection.kmeans import compete, nearest, refine
from wsiseg.stores.feature_store import QUADRANTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from wsiseg.selection.features import PoolFeatures
    from wsiseg.selection.kmeans import Block

logger = logging.getLogger(__name__)

# Patches among which beginnings compete; of larger pools a random part.
SAMPLE: Final = 16_384
# Of one cluster, whose quadrants are four times as many.
_SUB_SAMPLE: Final = 1024


class ConsistencyOptions(Config):
    """Numbers of consistency-based patch selection; by default as published.

    Parameters
    ----------
    sub_clusters
        Clusters of the quadrants of each cluster's patches.
    restarts
        Beginnings of each clustering, of which the best counts.
    representativeness, dominance, spread
        Weights of the three parts of the score.

    Notes
    -----
    What is not as published cannot be chosen. Beginnings compete on 16,384 patches at most, and on the quadrants of
    1024 patches of each cluster at most, 16,384 in all; published, on all. Clusterings end after 300 passes at most, or
    once a pass lowers the sum of squared distances by less than 1e-4 of it; published, after 10,000 passes at most over
    patches, and 50,000 over quadrants. One seed decides both; published, 42 that of patches and 500 that of quadrants.
    """

    sub_clusters: int = Field(default=4, ge=1, le=4)
    restarts: int = Field(default=10, ge=1)
    representativeness: float = Field(default=1.0, ge=0)
    dominance: float = Field(default=1.0, ge=0)
    spread: float = Field(default=1.0, ge=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustering:
    """Both levels of clusters.

    Parameters
    ----------
    cluster
        Of each patch, (n,).
    centres
        float32, (K, D).
    dominant
        float32, (K, D), centre of the largest sub-cluster of each cluster; of equals the first.
    is_candidate
        (n,), whether a quadrant of the patch belongs to that sub-cluster.
    """

    cluster: NDArray[np.int32]
    centres: NDArray[np.float32]
    dominant: NDArray[np.float32]
    is_candidate: NDArray[np.bool_]


def by_consistency(features: PoolFeatures, count: int, options: ConsistencyOptions, *, seed: int) -> Choice:
    """Return the clusters of the pool, each with its candidates, lowest score first.

    Parameters
    ----------
    features
        Of the pool.
    count
        Clusters.
    options
        Numbers of the method.
    seed
        Decides where clusterings begin.
    """
    clustering = cluster_twice(features, count, options, seed=seed)
    parts = score_parts(features, clustering)
    score = (
        options.representativeness * parts["representativeness"]
        + options.dominance * parts["dominance"]
        + options.spread * parts["spread"]
    )
    groups = []
    for number in np.unique(clustering.cluster).tolist():
        members = np.flatnonzero(clustering.cluster == number)
        candidates = members[clustering.is_candidate[members]]
        # Of equal scores the first patch.
        best = candidates[np.lexsort((candidates, score[candidates]))]
        scores = {name: values[best].astype(np.float64) for name, values in (*parts.items(), ("score", score))}
        groups.append(Group(number=number, members=len(members), places=best, scores=scores))
    if len(groups) < count:
        logger.warning("the pool has only %d different kinds of patches, not %d", len(groups), count)
    return Choice(groups=tuple(groups), cluster=clustering.cluster)


def cluster_twice(features: PoolFeatures, count: int, options: ConsistencyOptions, *, seed: int) -> Clustering:
    """Return the clusters of the patches, and the largest sub-cluster of the quadrants of each."""
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(len(features), min(len(features), SAMPLE), replace=False))
    points = features.read("patches", sample).astype(np.float32)
    # Distances are exact only near the origin.
    origin = points.mean(axis=0)
    points -= origin

    def patches() -> Iterator[Block]:
        for _, block in features.blocks("patches"):
            yield block - origin, np.zeros(len(block), dtype=np.intp)

    centres = compete(points, count, restarts=options.restarts, rng=rng)
    (centres,) = refine(patches, centres[None])
    cluster = np.concatenate([nearest(block, centres)[0].astype(np.int32) for block, _ in patches()])

    def quadrants() -> Iterator[Block]:
        for places, block in features.blocks("quadrants"):
            yield (block - origin).reshape(-1, block.shape[-1]), np.repeat(cluster[places], QUADRANTS)

    members = [np.flatnonzero(cluster == number) for number in range(count)]
    subs = refine(quadrants, _sub_centres(features, members, origin, options, rng))
    owner = np.empty((len(features), QUADRANTS), dtype=np.int8)
    sizes = np.zeros((count, options.sub_clusters), dtype=np.int64)
    flat, first = owner.reshape(-1), 0
    for block, sets in quadrants():
        for number in np.unique(sets).tolist():
            own = np.flatnonzero(sets == number)
            found = nearest(block[own], subs[number])[0]
            flat[first + own] = found
            sizes[number] += np.bincount(found, minlength=options.sub_clusters)
        first += len(block)
    largest = sizes.argmax(axis=1)
    return Clustering(
        cluster=cluster,
        centres=centres + origin,
        dominant=subs[np.arange(count), largest] + origin,
        is_candidate=(owner == largest[cluster][:, None]).any(axis=1),
    )


def score_parts(features: PoolFeatures, clustering: Clustering) -> dict[str, NDArray[np.float32]]:
    """Return the parts of each patch's score, float32 (n,), lower being better.

    ``representativeness`` is the distance of the patch from the centre of its cluster, ``dominance`` the mean distance
    of its quadrants from the centre of the cluster's largest sub-cluster, ``spread`` the largest distance between two
    of its quadrants.
    """
    parts = {name: np.empty(len(features), dtype=np.float32) for name in ("representativeness", "dominance", "spread")}
    for places, block in features.blocks("patches"):
        centres = clustering.centres[clustering.cluster[places]]
        parts["representativeness"][places] = np.linalg.norm(block - centres, axis=1)
    for places, block in features.blocks("quadrants"):
        dominant = clustering.dominant[clustering.cluster[places]]
        parts["dominance"][places] = np.linalg.norm(block - dominant[:, None], axis=2).mean(axis=1)
        pairs = combinations(range(QUADRANTS), 2)
        spreads = [np.linalg.norm(block[:, one] - block[:, other], axis=1) for one, other in pairs]
        parts["spread"][places] = np.max(spreads, axis=0)
    return parts


def _sub_centres(
    features: PoolFeatures,
    members: list[NDArray[np.intp]],
    origin: NDArray[np.float32],
    options: ConsistencyOptions,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return where the sub-clusters of each cluster begin, (K, L, D)."""
    most = max(1, min(_SUB_SAMPLE, SAMPLE // len(members)))
    chosen = [np.sort(rng.choice(own, min(len(own), most), replace=False)) for own in members]
    # One pass over the disk for all.
    places = np.sort(np.concatenate(chosen))
    found = features.read("quadrants", places)
    centres = np.zeros((len(members), options.sub_clusters, len(origin)), dtype=np.float32)
    for number, own in enumerate(chosen):
        if len(own) > 0:
            points = found[np.searchsorted(places, own)].astype(np.float32) - origin
            # Which way up a patch lies must not matter to what is drawn.
            order = points.sum(axis=2).argsort(axis=1)
            points = np.take_along_axis(points, order[..., None], axis=1).reshape(-1, len(origin))
            centres[number] = compete(points, options.sub_clusters, restarts=options.restarts, rng=rng)
    return centres
