"""What all tests share: the folders of recorded fixtures and real samples."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable) or ROOT / default)
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set {variable} to the folder of recorded fixtures")
    return folder


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of recorded weights, inputs and outputs of the papers' own modules."""
    return _folder("OVSEG_PARITY", "../shared/parity")


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of real samples in their original formats, and of the collected facts of each data set."""
    return _folder("OVSEG_SAMPLES", "../shared/data")
