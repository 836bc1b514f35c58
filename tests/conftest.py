"""What all tests share: real data where it is, and quiet, single-threaded numerics."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import wsiseg


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real slides and labelled images, or skip."""
    folder = os.environ.get("WSISEG_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("WSISEG_TEST_DATA names no folder of test data")
    return Path(folder)


@pytest.fixture(scope="session")
def cmu_svs() -> Path:
    """Return the small real slide that the package ships."""
    return Path(wsiseg.__file__).parent / "demo_data" / "CMU-1-Small-Region.svs"
