"""A place where the commands run: a prepared toy world and one scored run, made once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ovseg_cli.app import app
from ovseg_cli.commands import console


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


def run_command(*arguments: str) -> Answer:
    console.debug = False
    done = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="ovseg")
    return Answer(done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `datasets/toy` and, in `runs/`, one scored run of maskclip on 24 pictures."""
    place = tmp_path_factory.mktemp("world")
    patch = pytest.MonkeyPatch()
    patch.chdir(place)
    patch.setenv("OVSEG_CACHE", str(place / "cache"))
    for arguments in (
        ["prepare", "toy", "--workers", "1"],
        ["eval", "maskclip", "--data", "toy", "--limit", "24", "--gpus", "0"],
    ):
        answer = run_command(*arguments)
        assert answer.code == 0, answer.err
    patch.undo()
    return place


@pytest.fixture
def cli(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Run a command in an empty folder; data and runs of `world` are found through the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVSEG_DATA", str(world / "datasets"))
    monkeypatch.setenv("OVSEG_RUNS", str(world / "runs"))
    monkeypatch.setenv("OVSEG_CACHE", str(world / "cache"))
    return run_command


@pytest.fixture
def picture(world: Path) -> Path:
    """One picture of the toy world."""
    return sorted((world / "datasets" / "toy" / "images" / "val").glob("*.png"))[0]
