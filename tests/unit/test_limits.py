"""The tightest of machine, cgroup and scheduler is what a process may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wsiseg import limits

if TYPE_CHECKING:
    from pathlib import Path

SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU")


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "cgroup"
    (root / "jobs" / "mine").mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("0::/jobs/mine\n")
    monkeypatch.setattr(limits, "CGROUP_ROOT", root)
    monkeypatch.setattr(limits, "CGROUP_MEMBERSHIP", membership)
    return root


@pytest.mark.usefixtures("cgroup")
def test_without_limits_the_machine_counts() -> None:
    assert set(limits.memory_limits()) == {"machine"}
    assert "cgroup" not in limits.cpu_limits()
    assert limits.cpu_limit() >= 1


def test_a_group_around_ours_limits_us_too(cgroup: Path) -> None:
    (cgroup / "jobs" / "mine" / "memory.max").write_text("max\n")
    (cgroup / "jobs" / "memory.max").write_text("1000000\n")
    (cgroup / "jobs" / "mine" / "cpu.max").write_text("50000 100000\n")

    assert limits.memory_limit() == 1_000_000
    assert limits.cpu_limits()["cgroup"] == 1


def test_version_1_groups_are_read(cgroup: Path, tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("4:memory:/a\n1:cpu,cpuacct:/b\n0::/\n")
    for folder in ("memory/a", "cpu/b"):
        (cgroup / folder).mkdir(parents=True)
    (cgroup / "memory" / "a" / "memory.limit_in_bytes").write_text("2000000")
    (cgroup / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    (cgroup / "cpu" / "b" / "cpu.cfs_quota_us").write_text("250000")
    (cgroup / "cpu" / "b" / "cpu.cfs_period_us").write_text("100000")

    assert limits.memory_limit() == 2_000_000
    assert limits.cpu_limits()["cgroup"] == 3


@pytest.mark.usefixtures("cgroup")
def test_slurm_counts_in_mebibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "10")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")

    assert limits.memory_limits()["SLURM_MEM_PER_CPU"] == 30 << 20
    assert "SLURM_MEM_PER_NODE" not in limits.memory_limits()
    assert limits.cpu_limits()["SLURM_CPUS_PER_TASK"] == 3


def test_nonsense_is_no_limit(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cgroup / "memory.max").write_bytes(b"\xff\xfe")
    (cgroup / "cpu.max").write_text("many few")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "lots")

    assert "cgroup" not in limits.memory_limits()
    assert set(limits.cpu_limits()) <= {"machine", "affinity"}
