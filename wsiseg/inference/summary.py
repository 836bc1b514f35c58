"""What a finished prediction says about itself, readable without any of the libraries that made it."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wsiseg import __version__, checkpoint
from wsiseg.atomic import write_bytes
from wsiseg.errors import StoreError
from wsiseg.slides.fingerprint import fingerprint

if TYPE_CHECKING:
    from wsiseg.inference.settings import PredictSettings

SUMMARY: Final = "summary.json"
# Beside it until all is done.
WORK: Final = ".work"
SCHEMA_VERSION: Final = 1
_LIBRARIES: Final = ("torch", "numpy", "zarr", "scipy", "shapely", "tifffile", "imagecodecs", "openslide-python")

# JSON.
Json = dict[str, Any]


def plan_of(slide: Path, settings: PredictSettings, *, reader: str | None, slide_mpp: float | None) -> Json:
    """Return all that a prediction depends on, to tell whether one on disk is the one that is asked for.

    Raises
    ------
    DataError
        If there is no such model.
    SlideError
        If the slide cannot be read.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "slide": fingerprint(slide),
        "model": checkpoint.fingerprint(settings.model),
        "reader": reader,
        "slide_mpp": slide_mpp,
        # The same model may lie elsewhere; its fingerprint says enough. Slides keep all parts.
        "settings": settings.model_dump(mode="json", exclude={"model", "largest_component"}),
    }


def settled(plan: Json) -> Json:
    """Return what the labels depend on: the plan without the outputs that are made of them."""
    return {**plan, "settings": {**plan["settings"], "outputs": None}}


def read_summary(folder: Path, plan: Json) -> Json | None:
    """Return the summary of a finished prediction, whatever its outputs, or None where none is finished.

    Raises
    ------
    StoreError
        If a prediction of another plan is there.
    """
    path = folder / SUMMARY
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(_differences(settled(plan), settled(summary["plan"])))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError("the summary is damaged", where=path, mend="Use --overwrite") from error
    if changed:
        raise StoreError(
            f"a prediction made otherwise is here ({', '.join(changed)} differ)",
            where=folder,
            mend="Use another output folder, or --overwrite",
        )
    return dict(summary)


def write_summary(folder: Path, content: Json) -> None:
    """Write the summary, whole or not at all; its presence says that the prediction is complete."""
    write_bytes(folder / SUMMARY, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def software() -> dict[str, str]:
    """Return the versions of what computed the prediction."""
    versions = {"wsiseg": __version__, "python": platform.python_version(), "platform": sys.platform}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def peak_ram() -> int:
    """Return the largest amount of memory this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage tells includes the peak of the process that started this one.
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _differences(one: Json, other: Json, prefix: str = "") -> list[str]:
    found = []
    for key in {*one, *other}:
        mine, theirs = one.get(key), other.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += _differences(mine, theirs, f"{prefix}{key}.")
        elif mine != theirs:
            found.append(f"{prefix}{key}".removeprefix("settings."))
    return found
