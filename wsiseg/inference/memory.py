"""How much memory a prediction takes, and what to give up where there is less."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from wsiseg.errors import ConfigError
from wsiseg.stores.mask_layers import shard_width

if TYPE_CHECKING:
    from wsiseg.inference.walk import Walk
    from wsiseg.methods.base import PredictorSpec

MIB: Final = 1 << 20
# Measured: interpreter, torch and the other libraries, the model, the reader's cache of decoded tiles, and what making
# polygons and pictures needs while the network's memory is not given back.
_BASE: Final = 1250 * MIB
# Measured with U-Nets of 0.5 to 25 M weights on a CPU: bytes per pixel of a batch on its way through the network.
_ACTIVATIONS: Final = 1200
# Measured with noise, which no codec makes smaller: shards in memory while one of a coarser resolution is made.
_HALVING: Final = 8
# Share of what there is that a prediction plans to take.
_USABLE: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is in memory at once.

    Parameters
    ----------
    batch_size
        Tiles in a batch.
    readers, finders
        Threads that read pixels and that find objects.
    """

    batch_size: int
    readers: int
    finders: int


def estimate(load: Load, walk: Walk, spec: PredictorSpec, *, on_cpu: bool, with_probs: bool) -> int:
    """Return the peak memory of a prediction in bytes, from above; `with_probs` it keeps probabilities."""
    width, tile = walk.canvas.width, spec.tile_px**2
    side = walk.core_px + 2 * walk.reach_px
    seams = (spec.channels + 1) * 2 * walk.reach_px * width * 4
    margins = spec.channels * 2 * walk.margin_px * width * 2
    layers = 6 if walk.margin_px else 2
    planes = (1 if walk.margin_px else spec.channels) if with_probs else 0
    bands = 2 * walk.band_px * width * layers
    # Of probabilities, what is not yet on disk, or later the shards that each thread makes coarser ones of.
    threads = load.readers + load.finders
    probs = planes * walk.band_px * max(2 * width, _HALVING * threads * min(width, shard_width(walk.band_px)))
    read = (3 * load.batch_size + load.readers) * tile * 3
    # The batch that is computed, those that wait, and the blocks cut from them.
    outputs = 4 * load.batch_size * spec.channels * side**2 * 4
    context = (walk.core_px + 2 * walk.margin_px) ** 2
    found = (3 * load.finders + 2) * context * (spec.channels * 6 + planes + 40)
    # Rows of cells that are being read, walked and left behind.
    white = 0 if spec.white is None else 3 * walk.core_px * width
    activations = load.batch_size * tile * _ACTIVATIONS if on_cpu else 0
    return _BASE + seams + margins + bands + probs + read + outputs + found + white + activations


def fit(load: Load, walk: Walk, spec: PredictorSpec, *, on_cpu: bool, with_probs: bool, limit: int) -> Load:
    """Return a load that stays within `limit` bytes, as close to what is asked for as possible.

    Raises
    ------
    ConfigError
        If even the smallest does not.
    """
    usable = int(limit * _USABLE)
    while (needed := estimate(load, walk, spec, on_cpu=on_cpu, with_probs=with_probs)) > usable:
        if load.batch_size > 1:
            load = replace(load, batch_size=load.batch_size // 2)
        elif load.finders > 1:
            load = replace(load, finders=load.finders // 2)
        elif load.readers > 1:
            load = replace(load, readers=load.readers // 2)
        else:
            raise ConfigError(
                f"this needs about {needed / _USABLE / 2**30:.1f} GiB of memory and may take {limit / 2**30:.1f} GiB",
                where="--max-ram",
                mend="Allow more, or use a coarser --mpp or a model with smaller tiles",
            )
    return load


def check_limit(limit: int) -> None:
    """Refuse a limit that leaves no room for any prediction, before there is a slide.

    Raises
    ------
    ConfigError
        If `limit` bytes do not hold the program itself.
    """
    if limit * _USABLE < _BASE:
        raise ConfigError(
            f"any prediction needs more than {_BASE / _USABLE / 2**30:.1f} GiB of memory",
            where="--max-ram",
            mend="Allow more",
        )


def parse_bytes(text: str) -> int:
    """Return the bytes that ``8GB``, ``8GiB``, ``8G``, ``900MB`` or a plain number of bytes mean.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    units = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
    body = text.strip().lower().removesuffix("b")
    is_binary = body.endswith("i")
    body = body.removesuffix("i")
    unit = body[-1:] if body[-1:] in "kmgt" else ""
    try:
        number = float(body.removesuffix(unit) if unit else body)
    except ValueError:
        number = 0.0
    if number <= 0:
        raise ConfigError(f"{text!r} is no amount of memory", where="--max-ram", mend="Write 8GB or 900MB")
    return int(number * (1024 ** "kmgt".index(unit) * 1024 if is_binary and unit else units[unit]))
