"""The checks of the project: ``nox`` runs lint, types and tests; the others on request."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "uv|virtualenv"

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
# Versions the project is tested with; users get whatever satisfies pyproject.toml.
CONSTRAINTS = "constraints.txt"


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with its dependency groups at the tested versions."""
    session.install("-c", CONSTRAINTS, ".", *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and layout."""
    session.install("-c", CONSTRAINTS, *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types strictly, tests included."""
    install(session, "test", "types")
    session.install("-c", CONSTRAINTS, "nox")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the default tests; arguments after ``--`` go to pytest."""
    install(session, "test")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session(python=PYTHONS)
def versions(session: nox.Session) -> None:
    """Run the default tests under every supported Python."""
    install(session, "test")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take longer."""
    install(session, "test")
    session.run("pytest", "-m", "slow and not gpu", "--timeout", "1800", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device."""
    install(session, "test")
    session.run("pytest", "-m", "gpu", *session.posargs)


@nox.session(venv_backend="uv")
def minimums(session: nox.Session) -> None:
    """Run the default tests with the oldest versions that pyproject.toml admits."""
    groups = nox.project.dependency_groups(PYPROJECT, "test")
    session.install("--resolution", "lowest-direct", ".", *groups)
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed and memory on generated slides and patches, as ratios; ``-- --device cuda`` predicts on a GPU."""
    install(session, "test")
    folder = Path(session.create_tmp())
    small, large = str(folder / "20k.svs"), str(folder / "40k.svs")
    session.run("python", "benchmarks/make_slide.py", small, "--size", "20000")
    session.run("python", "benchmarks/make_slide.py", large, "--size", "40000")
    session.run("python", "benchmarks/reading.py", "--slide", small)
    session.run("python", "benchmarks/tiling.py", "--slide", small)
    session.run("python", "benchmarks/polygons.py")
    session.run("python", "benchmarks/predict.py", "speed", small, *session.posargs)
    session.run("python", "benchmarks/predict.py", "memory", small, large)
    session.run("python", "benchmarks/pseudo_masks.py")
    session.run("python", "benchmarks/training_wait.py")
    session.run("python", "benchmarks/mutual_step.py")
    session.run("python", "benchmarks/volumes.py")
    for part in ("features", "scores", "memory"):
        session.run("python", "benchmarks/selection.py", part)
    session.run("python", "benchmarks/synthesis.py", "--preset", "cpu")


@nox.session
def readme(session: nox.Session) -> None:
    """Do in a fresh environment what the README tells a new user to do."""
    session.install(".")
    folder = Path(session.create_tmp())
    shutil.rmtree(folder / "demo", ignore_errors=True)
    session.run("wsiseg", "--help")
    session.run("wsiseg", "doctor")
    session.run("wsiseg", "demo", "-o", str(folder / "demo"))
