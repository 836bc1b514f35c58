"""Losses of hierarchical consistency: one main output and several auxiliary ones agree, led by a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from wsiseg.losses.shape_attention import consistency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def hierarchical_consistency(main: Tensor, others: Sequence[Tensor], teacher: Tensor) -> dict[str, Tensor]:
    """Return how much a student disagrees with its teacher, and its auxiliary outputs with the main one.

    The target of the main output is (1 - U) teacher + U main, with the teacher's entropy U, which may exceed 1.
    The rest is the mean over auxiliary outputs of the mean squared difference from the main one, with a gradient
    into both. All is computed in float32 or better.

    Parameters
    ----------
    main
        float (B, C, …): probabilities of the student's main output.
    others
        Those of its auxiliary outputs, one at least.
    teacher
        Those of the teacher's main output.

    Returns
    -------
    dict[str, Tensor]
        ``loss``, and without gradient its parts ``inter`` and ``intra``.

    References
    ----------
    .. [1] Jin et al., "Semi-supervised Histological Image Segmentation via Hierarchical Consistency Enforcement",
       MICCAI 2022. The formulas are a reconstruction.
    """
    inter = consistency(main, main, teacher, variant="inter")["loss"]
    with torch.autocast(main.device.type, enabled=False):
        wide = main.to(inter.dtype)
        intra = torch.stack([(wide - other.to(inter.dtype)).square().mean() for other in others]).mean()
    return {"loss": inter + intra, "inter": inter.detach(), "intra": intra.detach()}
