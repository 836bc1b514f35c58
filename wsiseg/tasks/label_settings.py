"""How drawings and label images become labels of patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from wsiseg.config import Config
from wsiseg.labels import ClassNames  # noqa: TC001 - pydantic reads the annotations
from wsiseg.white import WhiteRule, WhiteSetting

if TYPE_CHECKING:
    from wsiseg.stores.patch_meta import PatchMeta


class LabelConfig(Config):
    """How annotations become labels.

    Parameters
    ----------
    labels_as
        What is made of them: ``image``, the classes that occur in each patch; ``instances``, objects, whatever their
        class; or ``classes``, the class of each pixel.
    layer
        Layer to write.
    classes
        Names of the classes in the order of their indices; by default those of the annotations, sorted, for
        ``classes`` after ``background``. Of ``instances`` one alone tells what objects are called, whatever was drawn,
        otherwise ``object``; several tell which may have been drawn.
        Stores of several slides go together only if they have the same.
    undrawn
        What is not drawn, and lies in no box of the class ``Region*``: ``ignore``, unknown, as all outside such boxes
        is if there are any; or ``background``, as everything was drawn everywhere, boxes or not. In label images of
        slides, what is not drawn are patches without a label.
    white
        With ``image``: what of a patch is white and belongs to no class, or None where nothing is.
    qupath_origin
        What QuPath counted from: ``bounds``, the scanned part of slides that name one, or ``level0``. Files that say
        so themselves are believed.
    other_slide
        Take boxes that say that they are of a patch of another slide, as after slides were renamed.
    """

    labels_as: Literal["image", "instances", "classes"] = "image"
    layer: str = "labels"
    classes: ClassNames = ()
    undrawn: Literal["ignore", "background"] = "ignore"
    white: WhiteSetting = WhiteRule()
    qupath_origin: Literal["bounds", "level0"] = "bounds"
    other_slide: bool = False


def qupath_corner(meta: PatchMeta, config: LabelConfig, told: str | None) -> tuple[int, int]:
    """Return the level-0 pixel that is (0, 0) in a file, which may have `told` what it counts from."""
    if (told or config.qupath_origin) == "bounds" and meta.slide is not None and meta.slide.bounds is not None:
        return meta.slide.bounds[:2]
    return 0, 0
