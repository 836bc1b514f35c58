"""Contrast of pixels: vectors of one class gather, those of different classes part.

Shapes: B images, C classes, D channels, h × w pixels at the resolution of the vectors, n sampled pixels.

References
----------
.. [1] Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation", ICCV 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wsiseg.labels import IGNORE

if TYPE_CHECKING:
    from wsiseg.losses.centres import ClassCentres


def pixel_clustering(
    vectors: Tensor,
    labels: Tensor,
    prediction: Tensor,
    centres: ClassCentres,
    *,
    temperature: float = 0.1,
    base_temperature: float = 0.07,
    max_samples: int = 1024,
    max_views: int = 100,
) -> dict[str, Tensor]:
    """Return how badly pixels cluster, among each other and around the centres of their classes.

    Parameters
    ----------
    vectors
        float (B, D, h, w), of length 1.
    labels
        int64 (B, h, w): class indices; 255 where they are not reliable or on white. Such pixels
        have no part in anything.
    prediction
        int64 (B, h, w): the network's own classes.
    centres
        Of the classes; not changed, see `ClassCentres.update`.
    temperature, base_temperature
        See `pixel_contrast`.
    max_samples, max_views
        See `sample_pixels`.

    Returns
    -------
    dict[str, Tensor]
        ``loss``, and its parts ``pixel_contrast`` and ``centre_contrast``.
    """
    sampled = sample_pixels(labels, prediction, max_samples=max_samples, max_views=max_views)
    chosen, classes = vectors.movedim(1, -1).flatten(0, 2)[sampled], labels.flatten()[sampled]
    pixels = pixel_contrast(chosen, classes, temperature=temperature, base_temperature=base_temperature)
    around = centres(chosen, classes, temperature=temperature)
    return {"loss": pixels + around, "pixel_contrast": pixels.detach(), "centre_contrast": around.detach()}


def sample_pixels(labels: Tensor, prediction: Tensor, *, max_samples: int = 1024, max_views: int = 100) -> Tensor:
    """Return the places of random pixels, as many of each class in each image where it is frequent enough.

    Half of them are hard, which is to say wrongly predicted; where one kind is short the other fills up.
    Draws on torch's random state of the CPU.

    Parameters
    ----------
    labels
        int64 (B, h, w): class indices, 255 ignored.
    prediction
        int64 (B, h, w).
    max_samples
        Pixels in all, at most.
    max_views
        Pixels of a class in an image, at most. It must have more to be sampled at all.

    Returns
    -------
    Tensor
        int64 (n,): places in the flattened labels.
    """
    pairs = [
        (image, label)
        for image, shown in enumerate(labels)
        for label, count in enumerate(shown.flatten().bincount(minlength=IGNORE)[:IGNORE].tolist())
        if count > max_views
    ]
    wanted = min(max_views, max_samples // max(1, len(pairs)))
    sampled = [torch.empty(0, dtype=torch.int64, device=labels.device)]
    for image, label in pairs:
        is_label, is_hit = (labels[image] == label).flatten(), (prediction[image] == label).flatten()
        hard, easy = (is_label & ~is_hit).nonzero().flatten(), (is_label & is_hit).nonzero().flatten()
        # As the class has more than `wanted` pixels, what one kind lacks the other has.
        hard_count = max(min(wanted // 2, len(hard)), wanted - len(easy))
        chosen = torch.cat((_some(hard, hard_count), _some(easy, wanted - hard_count)))
        sampled.append(chosen + image * labels[0].numel())
    return torch.cat(sampled)


def pixel_contrast(
    vectors: Tensor, labels: Tensor, *, temperature: float = 0.1, base_temperature: float = 0.07
) -> Tensor:
    """Return the supervised InfoNCE loss of pixels.

    Each pixel is drawn towards every other one of its class, against all pixels of other classes.

    Parameters
    ----------
    vectors
        float (n, D), of length 1.
    labels
        int64 (n,): class indices.
    temperature
        By which products of vectors are divided.
    base_temperature
        The loss is multiplied by `temperature` / `base_temperature`.

    Returns
    -------
    Tensor
        Scalar; 0 for fewer than two classes. Pixels that are alone in their class do not count.
    """
    is_same = labels[:, None] == labels
    if bool(is_same.all()):
        return vectors.sum() * 0
    with torch.autocast(vectors.device.type, enabled=False):
        exact = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        similarity = exact @ exact.T / temperature
        others = similarity.masked_fill(is_same, -torch.inf).logsumexp(dim=1, keepdim=True)
        # The denominator holds one partner at a time, not all of them.
        log_prob = similarity - torch.logaddexp(similarity, others)
        is_partner = is_same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        partners = is_partner.sum(dim=1)
        means = (log_prob * is_partner).sum(dim=1) / partners.clamp(min=1)
        has_partner = partners > 0
        return -temperature / base_temperature * (means * has_partner).sum() / has_partner.sum().clamp(min=1)


def _some(places: Tensor, count: int) -> Tensor:
    """Return `count` of the places at random."""
    return places[torch.randperm(len(places))[:count].to(places.device)]
