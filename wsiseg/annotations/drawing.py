"""What was drawn on a slide or an image, as labels of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from wsiseg.annotations.features import IGNORED, class_colours
from wsiseg.annotations.scanlines import Scanlines
from wsiseg.labels import NOT_ANALYSED

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from wsiseg.annotations.features import Feature, FeatureFile
    from wsiseg.annotations.scanlines import Drawn
    from wsiseg.geometry import Scale, Size, Window
    from wsiseg.labels import Colour

_DRAWN: Final = ("annotation", "detection", "cell")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawing:
    """Objects, and where they were drawn completely, on a canvas.

    Parameters
    ----------
    path
        Where they come from.
    objects
        From the largest to the smallest, which lies on top; of equal ones the last in the file does.
    numbers
        Place of each object in the file, from 1, int32 (N,).
    names
        Classes of each object, (N,); an object may have none, or several of which the first counts most.
    regions
        Boxes in which everything was drawn.
    ignored
        What is nothing to learn: of the class ``Ignore*``, or not analysed by a prediction.
    set_aside
        Of these, what is of the class.
    colours
        What the classes are drawn in, where the file says it.
    skipped
        Objects that were left out, as they cover nothing or are none.
    """

    path: Path
    objects: Scanlines
    numbers: NDArray[np.int32]
    names: tuple[tuple[str, ...], ...]
    regions: Scanlines
    ignored: Scanlines
    set_aside: Scanlines
    colours: dict[str, Colour]
    skipped: int

    def __len__(self) -> int:
        return len(self.objects) + len(self.regions) + len(self.ignored)

    def count_outside(self, size: Size) -> int:
        """Return how many of all that was drawn lie beside a canvas of `size`."""
        boxes = np.concatenate([part.boxes for part in (self.objects, self.regions, self.ignored)])
        limits = (size.width, size.height)
        return int(((boxes[:, :2] >= limits) | (boxes[:, 2:] <= 0)).any(axis=1).sum())

    def sets_aside(self, window: Window) -> bool:
        """Tell whether somebody said of all of a window that it is to be ignored."""
        return len(self.set_aside) > 0 and bool((self.set_aside.draw(window).top > 0).all())

    def labels(
        self, window: Window, values: NDArray[np.int32], *, background: int, ignore: int, is_complete: bool = False
    ) -> tuple[NDArray[np.int32], Drawn]:
        """Return the labels in a window.

        Where there are regions, everything outside them is ignored, as nobody may have looked at it. Where there are
        none, nothing is known of what was not drawn.

        Parameters
        ----------
        window
            On the canvas.
        values
            What each object becomes, (N,).
        background
            Label of what was not drawn.
        ignore
            Label of what nothing is known of.
        is_complete
            Whether everything was drawn everywhere.

        Returns
        -------
        labels
            int32 (H, W).
        drawn
            The objects in the window.
        """
        drawn = self.objects.draw(window)
        labels = np.concatenate((np.array([background], dtype=np.int32), values))[drawn.top]
        if not is_complete:
            is_unknown = self.regions.draw(window).top == 0 if len(self.regions) else drawn.top == 0
            labels[is_unknown] = ignore
        if len(self.ignored):
            labels[self.ignored.draw(window).top > 0] = ignore
        return labels, drawn


def place_drawing(found: FeatureFile, scale: Scale, origin: tuple[int, int] = (0, 0)) -> Drawing:
    """Return what was drawn, placed on a canvas.

    Annotations, detections and cells are objects, whether or not they have a class; names that end in a star mean
    none of them. An annotation of the class ``Region*`` tells where all objects were drawn.

    Parameters
    ----------
    found
        The features of a file.
    scale
        Level-0 pixels per canvas pixel.
    origin
        Level-0 pixel from which their coordinates count.
    """
    objects, regions, ignored = parted(found)
    objects.sort(key=lambda one: -one.area.area if one.area is not None else 0.0)

    def placed(features: list[Feature]) -> Scanlines:
        return Scanlines([one.area for one in features if one.area is not None], scale, origin)

    return Drawing(
        path=found.path,
        objects=placed(objects),
        numbers=np.array([one.number for one in objects], dtype=np.int32),
        names=tuple(one.classes for one in objects),
        regions=placed(regions),
        ignored=placed(ignored),
        set_aside=placed([one for one in ignored if IGNORED in one.names]),
        colours=class_colours(sorted(objects, key=lambda one: one.number), where=found.path),
        skipped=len(found.features) - len(objects) - len(regions) - len(ignored),
    )


def parted(found: FeatureFile) -> tuple[list[Feature], list[Feature], list[Feature]]:
    """Return objects, regions, and what is to be ignored; all of them have an area."""
    drawn = [one for one in found.features if one.kind in _DRAWN and one.area is not None]
    regions = [one for one in drawn if one.is_region]
    ignored = [one for one in drawn if _is_ignored(one)]
    # Names that end in a star say of a feature that it is something else.
    objects = [one for one in drawn if not (one.is_region or _is_ignored(one)) and (one.classes or not one.names)]
    return objects, regions, ignored


def _is_ignored(feature: Feature) -> bool:
    return IGNORED in feature.names or feature.names == (NOT_ANALYSED,)
