"""Charts of an audit: whether labels are right as often as they are sure."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsiseg.tasks.audit_tallies import Json


def draw_confidence(layers: Mapping[str, Json]) -> bytes:
    """Return a PNG of a reliability diagram and of the accuracy of the surest labels, one line for each layer.

    Parameters
    ----------
    layers
        By name, the figures of the layers that have a confidence.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    right = figure.add_subplot(grid[0, 0])
    share = figure.add_subplot(grid[1, 0], sharex=right)
    surest = figure.add_subplot(grid[:, 1])
    right.plot((0, 1), (0, 1), "--", color="0.6", label="right as often as sure")
    for place, (name, one) in enumerate(layers.items()):
        bins = [row for row in one["bins"] if row["accuracy"] is not None]
        right.plot(
            [row["confidence"] for row in bins], [row["accuracy"] for row in bins], "o-", markersize=4, label=name
        )
        edges = np.linspace(0, 1, len(one["bins"]) + 1)
        share.stairs([row["share"] for row in one["bins"]], edges, color=f"C{place}", linewidth=1.5)
        rows = one["surest"]
        surest.plot([row["share"] for row in rows], [row["accuracy"] for row in rows], "o-", markersize=4)
    right.set(title="Reliability", ylabel="labels that are right", xlim=(0, 1.02), ylim=(0, 1.02))
    right.tick_params(labelbottom=False)
    share.set(xlabel="confidence", ylabel="share", ylim=(0, None))
    surest.set(
        title="Accuracy of the surest labels", xlabel="surest part of the labels", ylabel="labels that are right",
        xlim=(0, 1.02), ylim=(None, 1.02),
    )  # fmt: skip
    for axes in (right, share, surest):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
