"""Imports point down the layers only, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import wsiseg

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(wsiseg.__file__).parent

LAYERS = (
    ("L0 words", {"errors", "geometry", "labels", "progress", "atomic", "urls"}),
    (
        "L1 plain logic",
        {
            "grid",
            "config",
            "manifest",
            "journal",
            "lock",
            "stopping",
            "limits",
            "executors",
            "centroids",
            "level_sets",
            "objects",
            "volumes",
            "white",
        },
    ),
    (
        "L2 bytes and maths",
        {
            "slides",
            "stores",
            "nets",
            "heads",
            "losses",
            "ramps",
            "cam",
            "metrics",
            "checkpoint",
            "initial_weights",
            "rasters",
            "nifti",
            "annotations",
            "classical",
        },
    ),
    ("L3 steps", {"tissue", "tiling", "ingestion", "evaluation", "selection", "synthesis", "methods"}),
    ("L4 engines", {"training", "inference"}),
    ("L5 jobs", {"tasks"}),
    ("L6 terminal", {"cli"}),
)
LEVEL = {member: level for level, (_, members) in enumerate(LAYERS) for member in members}

# library → members that may import it at module level; None: nobody at module level.
HOMES = {
    "torch": {"nets", "heads", "losses", "cam", "selection", "synthesis", "methods", "training", "inference"},
    "torchvision": {"nets", "heads", "methods"},
    "segmentation_models_pytorch": {"nets"},
    "timm": {"nets"},
    "zarr": {"stores"},
    "openslide": {"slides"},
    "tiffslide": {"slides"},
    "tifffile": {"slides", "inference"},
    "imagecodecs": {"slides", "stores"},
    "dask": {"executors"},
    "shapely": {"annotations", "inference"},
    # Parts of an extra: whoever needs them imports them where they are used.
    "nibabel": set(),
    "h5py": set(),
    "typer": {"cli"},
    "click": {"cli"},
    "rich": {"cli"},
}


def modules() -> Iterator[tuple[str, str, ast.Module]]:
    """Yield (member, path, tree) of every module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "__init__":
            yield parts[0], "/".join(parts), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (dotted name, line) of every import in the tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno


def at_import_time(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the imports that run when the module is imported: not in functions, not for type checkers."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield from imports(node)


MODULES = list(modules())


@pytest.mark.parametrize(("member", "path", "tree"), MODULES, ids=[path for _, path, _ in MODULES])
def test_imports_point_down(member: str, path: str, tree: ast.Module) -> None:
    assert member in LEVEL, f"{path} belongs to no layer"
    for name, line in imports(tree):
        parts = name.split(".")
        if parts[0] != "wsiseg" or len(parts) < 2 or parts[1] == member:
            continue
        assert LEVEL[parts[1]] < LEVEL[member], f"{path}:{line} imports {name}, which is not below it"


@pytest.mark.parametrize(("member", "path", "tree"), MODULES, ids=[path for _, path, _ in MODULES])
def test_heavy_libraries_stay_at_home(member: str, path: str, tree: ast.Module) -> None:
    for name, line in at_import_time(tree):
        library = name.split(".")[0]
        assert member in HOMES.get(library, {member}), f"{path}:{line} imports {library}"


def test_modules_are_of_a_size_that_can_be_read() -> None:
    lines = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }

    assert {name: count for name, count in lines.items() if count > 300} == {}
