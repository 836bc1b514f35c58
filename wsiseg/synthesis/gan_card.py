"""The card of a GAN: what it was made from, and how, in ``gan.json`` of its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import ValidationError

from wsiseg import __version__
from wsiseg.config import Config
from wsiseg.errors import DataError
from wsiseg.labels import LabelMap  # noqa: TC001 - the card is built from it
from wsiseg.synthesis.layouts import Density  # noqa: TC001 - as above
from wsiseg.synthesis.settings import GanSettings  # noqa: TC001 - as above

if TYPE_CHECKING:
    from pathlib import Path

CARD: Final = "gan.json"


class GanCard(Config):
    """What a GAN was made from; the content of ``gan.json``.

    Parameters
    ----------
    schema_version
        Version of the files.
    patch
        Name of the patch.
    parent, group
        The slide or image that it was cut from, and what must stay together in splits. Synthetic images inherit both.
    position
        x, y of the patch's upper left corner, in level-0 pixels of the slide or image.
    offset_px
        x, y of the upper left corner of what was learnt from, in pixels of the patch.
    mpp
        Micrometres per pixel, or None.
    layer, labels
        The layer of instances, and its classes.
    density
        How densely nuclei of new masks lie.
    source
        Hash of the pixels and labels.
    settings
        How it is trained.
    version
        The version of wsiseg that began it.
    """

    schema_version: Literal[2] = 2
    patch: str
    parent: str
    group: str
    position: tuple[int, int]
    offset_px: tuple[int, int] = (0, 0)
    mpp: float | None
    layer: str
    labels: LabelMap
    density: Density
    source: str
    settings: GanSettings
    version: str = __version__


def check_alike(folder: Path, card: GanCard) -> None:
    """See that a GAN was begun as one is asked for.

    Raises
    ------
    DataError
        If it was not.
    """
    if changed := changes(read_card(folder), card):
        raise DataError(
            f"the GAN was begun with other {' and '.join(changed)}",
            where=folder,
            mend="Use the same settings and patch, another output folder, or --overwrite",
        )


def changes(before: GanCard, now: GanCard) -> list[str]:
    """Return in what two GANs differ, as far as it matters to their training."""
    old, new = (card.model_dump(mode="json", exclude={"version"}) for card in (before, now))
    return sorted(key for key in new if new[key] != old[key])


def is_begun(folder: Path) -> bool:
    """Tell whether a folder is that of a GAN."""
    return (folder / CARD).exists()


def find_gans(folder: Path) -> list[Path]:
    """Return the folders of the GANs in a folder, which may be that of one itself."""
    return [folder] if is_begun(folder) else sorted(card.parent for card in folder.glob(f"*/{CARD}"))


def read_card(folder: Path) -> GanCard:
    """Return what the GAN in a folder was made from.

    Raises
    ------
    DataError
        If there is none, or its card is damaged.
    """
    try:
        return GanCard.model_validate_json((folder / CARD).read_bytes())
    except FileNotFoundError as error:
        raise DataError("there is no GAN of a patch", where=folder, mend="Make one with wsiseg synth fit") from error
    except ValidationError as error:
        raise DataError(
            "the card of the GAN is damaged, or of another version",
            where=folder / CARD,
            mend="Pass --overwrite to wsiseg synth fit to train it anew",
        ) from error
