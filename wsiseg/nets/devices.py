"""What a network runs on: the device, and its number format."""

from __future__ import annotations

import logging
from typing import Literal, TypeAlias

import torch
from torch import nn

from wsiseg.errors import ConfigError

logger = logging.getLogger(__name__)

Amp: TypeAlias = Literal["auto", "fp16", "bf16", "off"]


def choose_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` means.

    Raises
    ------
    ConfigError
        If there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is no device", where="--device", mend="Use auto, cpu, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"{name!r} is not supported", where="--device", mend="Use auto, cpu, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        found = f"only {count} CUDA device{'s' * (count > 1)}" if count else "no CUDA device"
        raise ConfigError(f"there is {found} here", where=f"--device {name}", mend="Use --device auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("there is no Apple GPU here", where=f"--device {name}", mend="Use --device auto")
    return device


def choose_dtype(amp: Amp, device: torch.device) -> torch.dtype | None:
    """Return the number format for mixed precision, or None for plain float32; warn where that is slow."""
    if amp == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if amp == "bf16" and device.type == "cpu" and _lacks_bf16():
        logger.warning("this processor has no instructions for bf16, which takes it many times as long as --amp off")
    return {"fp16": torch.float16, "bf16": torch.bfloat16, "off": None}[amp]


def _lacks_bf16() -> bool:
    """Tell whether it is certain that the processor computes in bf16 by software."""
    # Versions of torch that cannot tell what a processor has say nothing.
    told: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return told.get("architecture") == "x86_64" and not (told.get("avx512_bf16") or told.get("amx_bf16"))


def in_best_layout(module: nn.Module) -> nn.Module:
    """Return a network with its weights, in place, in the order in memory that suits its convolutions.

    Those of images want channels last; those of volumes stay as they are.
    """
    if any(weight.ndim > 4 for weight in module.parameters()):  # noqa: PLR2004 - channels, rows and columns
        return module
    return module.to(memory_format=torch.channels_last)
