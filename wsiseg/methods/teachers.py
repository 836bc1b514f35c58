"""A student and a teacher whose weights follow the student's."""

from __future__ import annotations

import copy
import torch
from torch import nn


class Pair(nn.Module):
    """Two networks of one kind: one learns, the other is its running average and has no gradient.

    Parameters
    ----------
    student
        The network that learns; the teacher begins as its copy.

    References
    ----------
    .. [1] Tarvainen and Valpola, "Mean teachers are better role models: Weight-averaged consistency targets improve
       semi-supervised deep learning results", NeurIPS 2017.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(requires_grad=False)

    @torch.no_grad()
    def follow(self, decay: float, *, buffers: bool) -> None:
        """Move the teacher towards the student.

        Parameters
        ----------
        decay
            Part of the teacher that stays, 0 … 1; 0 copies the student.
        buffers
            Statistics of normalisation are averaged, too; else they are the teacher's own. Whole numbers are copied.
        """
        kept, new = list(self.teacher.parameters()), list(self.student.parameters())
        if buffers:
            pairs = list(zip(self.teacher.buffers(), self.student.buffers(), strict=True))
            kept += [mine for mine, _ in pairs if mine.is_floating_point()]
            new += [theirs for mine, theirs in pairs if mine.is_floating_point()]
            for mine, theirs in pairs:
                if not mine.is_floating_point():
                    mine.copy_(theirs)
        if kept:
            torch._foreach_lerp_(kept, new, 1 - decay)  # noqa: SLF001 - one kernel instead of one for each weight
