"""What all tests share: the folders of recorded fixtures and real samples, and how the whole suite is run."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: threads cost more than they give
PROCESSES = 2

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


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the whole suite among processes, a file at a time; some files or tests alone, or `-n 0`, run in one.

    It does without pytest-xdist, where that is absent.
    """
    option = config.option
    if hasattr(config, "workerinput") or "PYTEST_XDIST_WORKER" in os.environ:
        return  # one of these processes: it must not start others
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    if whole and config.pluginmanager.hasplugin("xdist") and option.numprocesses is None and not option.usepdb:
        option.numprocesses, option.dist = PROCESSES, "loadfile"
