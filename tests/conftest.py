"""Fixtures shared by every test."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real samples: $WAFER_LAB_REAL_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("WAFER_LAB_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "wm811k_sample.npz").exists():
        pytest.skip(f"no real samples at {folder}; point WAFER_LAB_REAL_DATA at them")
    return folder
