"""The job behind ``wsiseg doctor``: whether this machine and this installation are fit for work."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import wsiseg
from wsiseg.limits import cpu_limits, memory_limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

GIB = 1 << 30
LIBRARIES = ("numpy", "torch", "torchvision", "timm", "zarr", "tifffile", "imagecodecs", "openslide", "tiffslide")
# Distribution that brings a module, where their names differ.
DISTRIBUTIONS = {"openslide": "openslide-python"}
EXTRAS = {"remote": ("aiohttp", "s3fs"), "parquet": ("geopandas", "pyarrow"), "volumes": ("h5py", "nibabel")}
LITTLE_MEMORY, LITTLE_SHARED, LITTLE_DISK = 4 * GIB, GIB // 4, 10 * GIB


class Status(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    HINT = "hint"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    name
        What it is.
    status
        Whether it is in order.
    finding
        What was found.
    fix
        What to do about it, empty where nothing is to be done.
    """

    name: str
    status: Status
    finding: str
    fix: str = ""


def examine() -> list[Finding]:
    """Return everything worth knowing about this machine and this installation."""
    return [
        _python(),
        *(_library(name) for name in LIBRARIES),
        _codecs(),
        *_devices(),
        _processors(),
        _memory(),
        *_shared_memory(),
        _space("temporary files", Path(tempfile.gettempdir()), "Set TMPDIR to a larger disk"),
        _space("this folder", Path.cwd(), "Write results to a larger disk"),
        _weights(Path(wsiseg.__file__).parent / "weights"),
        *(_extra(name, modules) for name, modules in EXTRAS.items()),
    ]


def is_fit(findings: Iterable[Finding]) -> bool:
    """Tell whether nothing that is needed is broken."""
    return all(finding.status is not Status.BROKEN for finding in findings)


def _python() -> Finding:
    text = f"{platform.python_version()}, {platform.system()} {platform.machine()}, wsiseg {wsiseg.__version__}"
    if sys.version_info < (3, 11):  # noqa: UP036 - an installation may be forced
        return Finding(name="python", status=Status.BROKEN, finding=text, fix="Install Python 3.11 or newer")
    return Finding(name="python", status=Status.OK, finding=text)


def _library(name: str) -> Finding:
    try:
        module = importlib.import_module(name)
        version = importlib.metadata.version(DISTRIBUTIONS.get(name, name))
    except Exception as error:  # noqa: BLE001 - whatever keeps it from loading is the finding
        fix = f"pip install --force-reinstall {DISTRIBUTIONS.get(name, name)}"
        return Finding(name=name, status=Status.BROKEN, finding=f"cannot be loaded: {error}", fix=fix)
    native = getattr(module, "__library_version__", None) if name == "openslide" else None
    return Finding(name=name, status=Status.OK, finding=version if native is None else f"{version}, library {native}")


def _codecs() -> Finding:
    from wsiseg.slides.tiff_codecs import missing_codecs

    missing = missing_codecs()
    if missing:
        fix = "pip install --upgrade imagecodecs"
        return Finding(name="codecs", status=Status.BROKEN, finding=f"missing: {', '.join(missing)}", fix=fix)
    return Finding(name="codecs", status=Status.OK, finding="JPEG, JPEG 2000, LZW, Deflate")


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - see _library
        fix = "pip install --force-reinstall torch"
        yield Finding(name="devices", status=Status.BROKEN, finding=f"torch cannot be loaded: {error}", fix=fix)
        return
    yield Finding(name="cpu", status=Status.OK, finding=f"{torch.get_num_threads()} threads for networks")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            text = f"{device.name}, {device.total_memory / GIB:.0f} GiB"
            yield Finding(name=f"cuda:{index}", status=Status.OK, finding=text)
    elif shutil.which("nvidia-smi") is not None:
        yield Finding(
            name="cuda",
            status=Status.HINT,
            finding=f"a driver is here, but torch {torch.__version__} finds no GPU",
            fix="Install the torch build for your CUDA version, or ask the scheduler for a GPU",
        )
    else:
        yield Finding(name="cuda", status=Status.OK, finding="none; networks run on the CPU")
    if torch.backends.mps.is_available():
        yield Finding(name="mps", status=Status.OK, finding="Apple GPU")


def _processors() -> Finding:
    limits = cpu_limits()
    return Finding(
        name="processors", status=Status.OK, finding=_tightest(limits, {key: str(limits[key]) for key in limits})
    )


def _memory() -> Finding:
    limits = memory_limits()
    text = _tightest(limits, {key: f"{limits[key] / GIB:.1f} GiB" for key in limits})
    text += f"; {psutil.virtual_memory().available / GIB:.1f} GiB of the machine's are free"
    if min(limits.values()) < LITTLE_MEMORY:
        fix = "Ask for 4 GiB or more, or use --max-ram and a small --batch-size"
        return Finding(name="memory", status=Status.HINT, finding=text, fix=fix)
    return Finding(name="memory", status=Status.OK, finding=text)


def _tightest(limits: Mapping[str, int], shown: Mapping[str, str]) -> str:
    first = min(limits, key=lambda key: limits[key])
    others = ", ".join(f"{key} {shown[key]}" for key in limits if key != first)
    return f"{shown[first]} by {first}" + (f" ({others})" if others else "")


def _shared_memory(place: Path = Path("/dev/shm")) -> Iterator[Finding]:  # noqa: S108 - it is looked at, not written
    if not place.is_dir():
        return
    free = shutil.disk_usage(place).free
    text = f"{free / GIB:.2f} GiB free in {place}"
    if free < LITTLE_SHARED:
        fix = "Start the container with --shm-size=2g, or train with --num-workers 0"
        yield Finding(name="shared memory", status=Status.HINT, finding=text, fix=fix)
    else:
        yield Finding(name="shared memory", status=Status.OK, finding=text)


def _space(name: str, place: Path, fix: str) -> Finding:
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(name=name, status=Status.BROKEN, finding=f"{place}: {error.strerror}", fix=fix)
    text = f"{free / GIB:.1f} GiB free in {place}"
    if not os.access(place, os.W_OK):
        return Finding(name=name, status=Status.HINT, finding=f"{place} cannot be written to", fix=fix)
    if free < LITTLE_DISK:
        return Finding(name=name, status=Status.HINT, finding=text, fix=fix)
    return Finding(name=name, status=Status.OK, finding=text)


def _weights(folder: Path) -> Finding:
    models = sorted(path.parent for path in folder.glob("*/model.json"))
    if not models:
        fix = "Install wsiseg again, or pass --model with a folder of your own"
        return Finding(name="shipped models", status=Status.BROKEN, finding=f"none in {folder}", fix=fix)
    incomplete = [model.name for model in models if not (model / "model.safetensors").is_file()]
    if incomplete:
        text = f"without weights: {', '.join(incomplete)}"
        return Finding(name="shipped models", status=Status.BROKEN, finding=text, fix="Install wsiseg again")
    return Finding(name="shipped models", status=Status.OK, finding=", ".join(model.name for model in models))


def _extra(name: str, modules: tuple[str, ...]) -> Finding:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        fix = f"pip install 'wsiseg[{name}]' if you want it"
        return Finding(name=f"extra {name}", status=Status.HINT, finding=f"without {', '.join(missing)}", fix=fix)
    return Finding(name=f"extra {name}", status=Status.OK, finding="installed")
