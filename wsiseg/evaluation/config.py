"""How label images are compared."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from wsiseg.config import Config
from wsiseg.labels import IGNORE

_TOLERANCE_UM: Final = 1.0
_TOLERANCE_PX: Final = 2.0
# Settings that mean nothing where volumes are compared.
_OF_IMAGES: Final = frozenset(("mpp", "tolerance", "bootstrap", "seed"))


class EvaluateConfig(Config):
    """How label images are compared.

    Parameters
    ----------
    task
        Whether pixels hold class indices or object ids; ``volumes`` for class indices in NIfTI volumes, to which `mpp`,
        `tolerance`, `bootstrap` and `seed` mean nothing.
    mpp
        µm per pixel; by default what predictions say of themselves. Where it is unknown distances are in pixels.
    tolerance
        How far apart boundaries may run and still agree, in µm, or in pixels
        where `mpp` is missing. By default 1 µm or 2 pixels.
    ignore_index
        Class index that does not count in the truth and means "no answer" in predictions, as do
        254 and 255, which ``wsiseg predict`` gives to what has no class. Object ids are never ignored.
    num_classes
        Number of classes; by default the names, or the highest index found.
    classes
        Names of the classes from index 0.
    bootstrap
        Resamples of images behind the 95 % intervals; 0 for none.
    seed
        Of the resampling.
    """

    task: Literal["semantic", "instance", "volumes"]
    mpp: Annotated[float, Field(gt=0)] | None = None
    tolerance: Annotated[float, Field(ge=0)] | None = None
    ignore_index: Annotated[int, Field(ge=0)] = IGNORE
    num_classes: Annotated[int, Field(gt=0, le=IGNORE)] | None = None
    classes: tuple[str, ...] = ()
    bootstrap: Annotated[int, Field(ge=0)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.classes and self.num_classes not in {None, len(self.classes)}:
            raise ValueError(f"{len(self.classes)} names for {self.num_classes} classes")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("class names must be distinct")
        if self.task == "volumes" and (given := self.model_fields_set & _OF_IMAGES):
            raise ValueError(f"volumes are not compared by {', '.join(sorted(given))}")
        return self

    @property
    def tolerance_px(self) -> float:
        """Tolerance of boundary F1 in pixels."""
        if self.mpp is None:
            return _TOLERANCE_PX if self.tolerance is None else self.tolerance
        return (_TOLERANCE_UM if self.tolerance is None else self.tolerance) / self.mpp
