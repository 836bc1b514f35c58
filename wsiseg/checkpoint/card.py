"""What a model is: the content of its `model.json`, which people can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from wsiseg import __version__
from wsiseg.labels import LabelMap  # noqa: TC001 - the card is built from it
from wsiseg.volumes import VolumeInput  # noqa: TC001 - as above
from wsiseg.white import WhiteRule  # noqa: TC001 - as above

if TYPE_CHECKING:
    from typing import Self

SCHEMA: Final = 1


class Normalisation(BaseModel):
    """What is taken off an image before the network sees it.

    Parameters
    ----------
    mean, std
        Of red, green and blue, as fractions of full scale (0 … 1).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, float, float] = (0.70, 0.55, 0.70)
    std: tuple[float, float, float] = (0.20, 0.20, 0.20)

    @classmethod
    def none(cls) -> Normalisation:
        """Return what leaves colours as they are, 0 … 1."""
        return cls(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    @classmethod
    def imagenet(cls) -> Normalisation:
        """Return what weights of torchvision were trained with."""
        return cls(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class HeadSpec(BaseModel):
    """The instance head and its parameters, those of decoding included.

    Parameters
    ----------
    kind
        Name in the table of heads.
    options
        Keyword arguments of the head.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    options: dict[str, JsonValue] = {}


class ModelCard(BaseModel):
    """All that is needed to use a model and to judge it; the content of `model.json`.

    Parameters
    ----------
    schema_version
        Version of this layout.
    name, description
        For people.
    task
        ``semantic`` or ``instance``.
    labels
        The classes, with colours. For instance models index 0 is background.
    mpp
        Micrometres per pixel that the model was trained at, or None.
    tile_px, halo_px
        Side of the square the network is given, halo included, and pixels at its edge whose output is not used.
    normalisation, net
        Applied to images inside the predictor, and settings of the network, as the network factory knows them.
    head
        The instance head, for instance models.
    white, volume
        What of an image is bare glass and belongs to no class, and what a network of volumes is given; else None.
    training_data, metrics
        Fingerprint of each store the model saw, and measured values such as ``"AJI": 0.61``, by name.
    licence, version
        SPDX identifier or text, and the version of wsiseg that wrote the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    description: str = ""
    task: Literal["semantic", "instance"]
    labels: LabelMap
    mpp: float | None = Field(default=None, gt=0)
    tile_px: int = Field(gt=0)
    halo_px: int = Field(ge=0)
    normalisation: Normalisation = Normalisation()
    net: dict[str, JsonValue]
    head: HeadSpec | None = None
    white: WhiteRule | None = None
    volume: VolumeInput | None = None
    training_data: dict[str, str] = {}
    metrics: dict[str, float] = {}
    licence: str = ""
    version: str = __version__

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.head is not None) != (self.task == "instance"):
            raise ValueError("instance models have a head and semantic models have none")
        if 2 * self.halo_px >= self.tile_px:
            raise ValueError(f"a halo of {self.halo_px} px leaves nothing of a tile of {self.tile_px} px")
        return self
