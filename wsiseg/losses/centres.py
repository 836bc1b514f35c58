"""Centres of classes among vectors of pixels, which follow the network through training.

Shapes: B images, C classes, M centres of a class, D channels, h × w pixels, n sampled pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsiseg.labels import IGNORE


class ClassCentres(nn.Module):
    """One or more vectors of length 1 for each class, kept with the state of the training.

    Parameters
    ----------
    classes
        Number of classes.
    channels
        Length of the vectors before they are normalised.
    per_class
        Centres of each class, for tissue that looks several ways.
    momentum
        How much of a centre stays at an update.

    References
    ----------
    .. [1] Du et al., "Weakly Supervised Semantic Segmentation by Pixel-to-Prototype Contrast", CVPR 2022.
    """

    centres: Tensor
    is_seen: Tensor

    def __init__(self, classes: int, channels: int, *, per_class: int = 1, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centres", torch.zeros(classes, per_class, channels))
        self.register_buffer("is_seen", torch.zeros(classes, per_class, dtype=torch.bool))

    def similarity(self, vectors: Tensor) -> Tensor:
        """Return the cosine between vectors (n, D) and the nearest centre of each class, float32 (n, C).

        It is minus infinity for classes that were never seen.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            # A copy: the centres may move before the gradient is computed.
            cosine = torch.einsum("nd,cmd->ncm", vectors.float(), self.centres.clone())
        return cosine.masked_fill(~self.is_seen, -torch.inf).amax(dim=2)

    def forward(self, vectors: Tensor, labels: Tensor, *, temperature: float = 0.1) -> Tensor:
        """Return the cross-entropy of the classes that the centres give to pixels.

        Parameters
        ----------
        vectors
            float (n, D), of length 1.
        labels
            int64 (n,): class indices. Pixels of classes that were never seen do not count.
        temperature
            By which cosines are divided.

        Returns
        -------
        Tensor
            Scalar; 0 where no pixel counts.
        """
        is_seen = self.is_seen.any(dim=1)
        counts = is_seen[labels]
        if not bool(counts.any()):
            return vectors.sum() * 0
        logits = self.similarity(vectors[counts]) / temperature
        # Left out, not at minus infinity: nothing flows back from there but NaN.
        known = is_seen.cumsum(dim=0) - 1
        return functional.cross_entropy(logits[:, is_seen], known[labels[counts]])

    @torch.no_grad()
    def update(self, vectors: Tensor, labels: Tensor, prediction: Tensor) -> None:
        """Move the centres of each class towards its pixels that the network recognises.

        A centre moves towards the mean of the pixels that are nearest to it; the first copies the mean.
        Later ones are founded one at a time, where a pixel is farthest from the centres so far.

        Parameters
        ----------
        vectors
            float (B, D, h, w), of length 1.
        labels
            int64 (B, h, w): class indices; 255 where they are not reliable or on white.
        prediction
            int64 (B, h, w): the network's own classes.
        """
        flat = vectors.movedim(1, -1).flatten(0, 2).float()
        known = torch.where(labels == prediction, labels, IGNORE).flatten()
        for label, (centres, is_seen) in enumerate(zip(self.centres, self.is_seen, strict=True)):
            mine = flat[known == label]
            if len(mine):
                self._move(centres, is_seen, mine)

    def relabel(
        self, vectors: Tensor, labels: Tensor, may_change: Tensor, present: Tensor, *, margin: float = 0.2
    ) -> Tensor:
        """Return labels in which pixels without a reliable one take the class of their nearest centre.

        Parameters
        ----------
        vectors
            float (B, D, h, w), of length 1.
        labels
            int64 (B, h, w): class indices, 255 ignored.
        may_change
            bool (B, h, w): pixels that are not reliable and not white.
        present
            bool (B, C): the classes of each image; no other is given.
        margin
            By how much the cosine exceeds that of the class that comes second.

        Returns
        -------
        Tensor
            int64 (B, h, w).
        """
        if int(self.is_seen.any(dim=1).sum()) < 2:  # noqa: PLR2004 - the nearest and the second
            return labels
        similarity = self.similarity(vectors.detach().movedim(1, -1).flatten(0, 2))
        (first, second), (nearest, _) = (part.unbind(dim=1) for part in similarity.topk(2, dim=1))
        nearest = nearest.view_as(labels)
        is_clear = (first - second > margin).view_as(labels)
        is_present = present.gather(1, nearest.flatten(1)).view_as(labels)
        return torch.where(may_change & is_clear & is_present, nearest, labels)

    def _move(self, centres: Tensor, is_seen: Tensor, mine: Tensor) -> None:
        """Update the centres (M, D) of one class in place with its pixels (n, D)."""
        count = int(is_seen.sum())
        rivals = centres[:count]
        if count < len(centres):
            farthest = mine[(mine @ rivals.T).amax(dim=1).argmin()] if count else mine.mean(dim=0)
            rivals = torch.cat((rivals, farthest[None]))
        nearest = (mine @ rivals.T).argmax(dim=1)
        for place, group in enumerate(mine[nearest == place] for place in range(len(rivals))):
            if len(group):
                # A new centre copies the mean.
                share = 1 - self.momentum if place < count else 1.0
                moved = (1 - share) * centres[place] + share * group.mean(dim=0)
                centres[place] = functional.normalize(moved, dim=0)
                is_seen[place] = True
