"""What this process may use: processors and memory as the system, the cgroup and the scheduler give them.

A machine's own totals mislead in a container or a batch job, which is killed when it takes them.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")


def cpu_limit() -> int:
    """Return how many processors this process may keep busy, at least 1."""
    return min(cpu_limits().values())


def memory_limit() -> int:
    """Return how many bytes of memory this process may take."""
    return min(memory_limits().values())


def cpu_limits() -> dict[str, int]:
    """Return every limit on processors by who sets it."""
    limits = {"machine": os.cpu_count() or 1}
    if hasattr(os, "sched_getaffinity"):
        limits["affinity"] = len(os.sched_getaffinity(0))
    quotas = [*_cgroup_quotas()]
    if quotas:
        limits["cgroup"] = max(1, math.ceil(min(quotas)))
    slurm = _whole_number(os.environ.get("SLURM_CPUS_PER_TASK"))
    if slurm:
        limits["SLURM_CPUS_PER_TASK"] = slurm
    return limits


def memory_limits() -> dict[str, int]:
    """Return every limit on memory in bytes by who sets it."""
    limits = {"machine": int(psutil.virtual_memory().total)}
    cgroup = [*_cgroup_memory()]
    if cgroup:
        limits["cgroup"] = min(cgroup)
    # Slurm counts in MiB, and 0 means all of the node.
    node = _whole_number(os.environ.get("SLURM_MEM_PER_NODE"))
    if node:
        limits["SLURM_MEM_PER_NODE"] = node << 20
    per_cpu = _whole_number(os.environ.get("SLURM_MEM_PER_CPU"))
    if per_cpu:
        cpus = _whole_number(os.environ.get("SLURM_CPUS_PER_TASK")) or 1
        limits["SLURM_MEM_PER_CPU"] = (per_cpu * cpus) << 20
    return limits


def _cgroup_quotas() -> Iterator[float]:
    for folder in _cgroup_folders("cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not period:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        # "max" and -1 mean no limit.
        if _whole_number(quota) and _whole_number(period):
            yield int(quota) / int(period)


def _cgroup_memory() -> Iterator[int]:
    total = int(psutil.virtual_memory().total)
    for folder in _cgroup_folders("memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limit = _whole_number(_text(folder / name))
            # Version 1 writes a huge number for no limit.
            if limit and limit < total:
                yield limit


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process' group and of all groups around it, in both versions."""
    yield CGROUP_ROOT
    yield CGROUP_ROOT / controller
    for line in _text(CGROUP_MEMBERSHIP).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUP_ROOT / controller if controllers else CGROUP_ROOT
        inside = Path(group.lstrip("/"))
        yield from (root / part for part in (inside, *inside.parents) if part != Path())


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _whole_number(text: str | None) -> int:
    return int(text) if text is not None and text.strip().isdigit() else 0
