"""The recorded model, and the command line in an empty folder."""

import pytest

from tests.commands.conftest import run_command
from tests.core.conversion.recorded import Recorded


@pytest.fixture(scope="session")
def recorded(parity):
    if not (parity / "maft" / "maft_e2e_config.json").is_file():
        pytest.skip("no recorded MAFT model")
    return Recorded(parity / "maft")


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OVSEG_RUNS", raising=False)
    return run_command
