"""Weights that were trained elsewhere, as a beginning: read as data only, fitted by name, and accounted for."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsiseg.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

logger = logging.getLogger(__name__)

_SAFE: Final = ".safetensors"
_MODEL: Final = "model.safetensors"
# Names in a line of the log.
_SHOWN: Final = 4
# A counter that no network here looks at, and that old files lack.
_COUNTER: Final = "num_batches_tracked"
# Modules that networks here keep their backbone in; others are one themselves.
_BACKBONES: Final = ("backbone", "encoder")
# A second backbone of the same kind, which begins with the same weights where a file has one of them only.
_TWINS: Final = {"encoder": "encoder2"}
# Share of its arrays without which a file was made for another one.
_LEAST: Final = 2 / 3

_MXNET: Final = re.compile(r"(?:arg|aux):")
_MXNET_BRANCH: Final = re.compile(r"(res|bn)(\d)(?:a|b(\d+))_(branch\d\w*?)_([a-z_]+)")
_MXNET_TOP: Final = re.compile(r"bn\d*_([a-z_]+)")
_MXNET_VALUES: Final = {
    "weight": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}

# Mask R-CNNs of torchvision, of which the published one with a ResNet-50 has names that newer ones have not.
_DETECTOR: Final = re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+|rpn\.head\.conv)\.(weight|bias)")
_DETECTOR_MASK: Final = re.compile(r"(roi_heads\.mask_head)\.mask_fcn(\d+)\.(weight|bias)")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitReport:
    """What became of weights that a network was given.

    Parameters
    ----------
    loaded
        Names of the network that have a value now.
    missing
        Names of the network that the file lacks; they keep what they had.
    unexpected
        Names of the file that the network lacks.
    misshapen
        Names that both have, with arrays of different shapes; they keep what they had. A
        classifier of other classes is the usual case.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return tensors by name, on the CPU.

    Parameters
    ----------
    path
        A model of wsiseg, a safetensors file, or a file of torch that holds tensors by name, or
        such under ``state_dict``. A leading ``module.`` is taken off, and names that MXNet gave
        to ResNet-38, and torchvision once to Mask R-CNN, become ours.

    Raises
    ------
    DataError
        If there is no such file, it is damaged, or it holds anything but data.
    """
    if path.is_dir():
        path /= _MODEL
    if not path.is_file():
        raise DataError("there is no such file of weights", where=path)
    tensors = _read_safe(path) if path.suffix == _SAFE else _read_torch(path)
    named = {detector_name(name.removeprefix("module.")): value for name, value in tensors.items()}
    if not any(_MXNET.match(name) for name in named):
        return named
    ours = {name: resnet38_name(name) for name in named}
    return {new: named[old] for old, new in ours.items() if new is not None}


def detector_name(name: str) -> str:
    """Return the name that torchvision has today for a parameter of a Mask R-CNN; others stay as they are.

    Examples
    --------
    >>> detector_name("backbone.fpn.inner_blocks.0.weight"), detector_name("roi_heads.mask_head.mask_fcn1.bias")
    ('backbone.fpn.inner_blocks.0.0.weight', 'roi_heads.mask_head.0.0.bias')
    """
    if found := _DETECTOR.fullmatch(name):
        block, value = found.groups()
        return f"{block}.0.0.{value}" if block.startswith("rpn") else f"{block}.0.{value}"
    if found := _DETECTOR_MASK.fullmatch(name):
        head, number, value = found.groups()
        return f"{head}.{int(number) - 1}.0.{value}"
    return name


def resnet38_name(name: str) -> str | None:
    """Return our name of a parameter of ResNet-38 that MXNet knows as `name`.

    Returns
    -------
    str | None
        None for what has no place here, such as the classifier of ImageNet.

    References
    ----------
    .. [1] Wu et al., "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition",
       Pattern Recognition 2019.

    Examples
    --------
    >>> resnet38_name("aux:bn4b5_branch2b1_moving_var")
    'b4_5.bn_branch2b1.running_var'
    """
    name = _MXNET.sub("", name, count=1)
    if name == "conv1a_weight":
        return "conv1a.weight"
    if found := _MXNET_BRANCH.fullmatch(name):
        kind, stage, block, branch, value = found.groups()
        layer = f"{'conv' if kind == 'res' else 'bn'}_{branch}"
        place = f"b{stage}" if block is None else f"b{stage}_{block}"
        return f"{place}.{layer}.{_MXNET_VALUES[value]}" if value in _MXNET_VALUES else None
    if (found := _MXNET_TOP.fullmatch(name)) and found[1] in _MXNET_VALUES:
        return f"bn7.{_MXNET_VALUES[found[1]]}"
    return None


def initialise(net: nn.Module, weights: Mapping[str, Tensor], *, where: Path) -> InitReport:
    """Give a network all weights that fit it by name and shape.

    Weights of a backbone alone fit the network around it, and those of a network around a backbone fit the
    backbone, be it alone or inside another network. Where a network has two backbones of one kind, the weights
    of one fit both. What did not fit is logged.

    Parameters
    ----------
    net
        Changed in place; on any device.
    weights
        Tensors by name.
    where
        Where they come from, for errors.

    Raises
    ------
    DataError
        If they fit less than two thirds of the arrays of the network's backbone.
    """
    state = net.state_dict()
    ours, names = _by_plain_name(state), _by_plain_name(weights)
    own, theirs = {key: state[name] for key, name in ours.items()}, {key: weights[name] for key, name in names.items()}
    before, after = _prefixes(own, theirs)
    places = {after + key.removeprefix(before): key for key in theirs if key.startswith(before)}
    places = _for_twins(places) | places
    common = own.keys() & places.keys()
    fitting = sorted(key for key in common if theirs[places[key]].shape == own[key].shape)
    _check_backbone(net, own.keys(), fitting, where)
    net.load_state_dict({ours[key]: theirs[places[key]] for key in fitting}, strict=False)
    report = InitReport(
        loaded=tuple(ours[key] for key in fitting),
        missing=tuple(sorted(ours[key] for key in own.keys() - places.keys())),
        unexpected=tuple(sorted(names[key] for key in theirs.keys() - {places[key] for key in common})),
        misshapen=tuple(sorted(ours[key] for key in common.difference(fitting))),
    )
    logger.info("%d of %d arrays are taken from %s", len(fitting), len(own), where)
    for missed, what in (
        (report.missing, "are not in it and begin as they are"),
        (report.unexpected, "have no place in the network"),
        (report.misshapen, "have another shape in the network, which keeps its own"),
    ):
        if missed:
            shown = ", ".join(missed[:_SHOWN]) + (", …" if len(missed) > _SHOWN else "")
            logger.warning("%s: %d arrays %s (%s)", where, len(missed), what, shown)
    return report


def _by_plain_name(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return names by what they are compared by."""
    # timm calls a module `stages.0`, and `stages_0` in the same network that gives features.
    return {name.replace("_", "."): name for name in weights if not name.endswith(_COUNTER)}


def _check_backbone(net: nn.Module, own: Iterable[str], fitting: Collection[str], where: Path) -> None:
    # Some names and shapes agree between any two networks of a family, and make a bad beginning of it.
    inside = next((f"{name}." for name in _BACKBONES if hasattr(net, name)), "")
    needed = [key for key in own if key.startswith(inside)]
    found = sum(key.startswith(inside) for key in fitting)
    if found >= _LEAST * len(needed):
        return
    raise DataError(
        f"these weights fit {found} of the {len(needed)} arrays of the backbone",
        where=where,
        mend="Check that the file was made for the same backbone",
    )


def _for_twins(places: Mapping[str, str]) -> dict[str, str]:
    """Return names of second backbones, and the given names of the same parts of the first ones."""
    return {
        f"{twin}.{name.removeprefix(f'{first}.')}": given
        for first, twin in _TWINS.items()
        for name, given in places.items()
        if name.startswith(f"{first}.")
    }


def _prefixes(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return what stands before most of the given names that fit, and what must stand there to make them ours.

    Files of a classifier know nothing of the network that it is now a part of, and the other way round.
    """
    by_tail = defaultdict(list)
    for name in given:
        for before, tail in _parted(name):
            by_tail[tail].append(before)
    found: Counter[tuple[str, str]] = Counter()
    for name, value in own.items():
        for after, tail in _parted(name):
            found.update((before, after) for before in by_tail[tail] if given[before + tail].shape == value.shape)
    # Names that end alike say little where both are changed: any two networks have some.
    likely = {pair: count for pair, count in found.items() if 2 * count >= len(own) or not all(pair)}
    # Of equals the shortest, as the parts of a network fit where the whole does.
    return max(likely, key=lambda pair: (likely[pair], -sum(map(len, pair))), default=("", ""))


def _parted(name: str) -> list[tuple[str, str]]:
    """Return all ways to part a name at its dots, ("", name) among them."""
    parts = name.split(".")
    tails = [".".join(parts[place:]) for place in range(len(parts))]
    return [(name.removesuffix(tail), tail) for tail in tails]


def _read_safe(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"damaged weights ({error})", where=path, mend="Copy the file again") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    except Exception as error:  # torch's reader meets rubbish with errors of many kinds
        raise DataError(
            "the file is damaged or holds more than data, which could run code when loaded",
            where=path,
            mend="If you trust it, store its tensors once as safetensors",
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise DataError("the file holds no tensors by name", where=path)
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise DataError("the file holds no tensors by name", where=path)
    return tensors
