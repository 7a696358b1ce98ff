"""Commands in several processes, started as torch's own launcher starts them."""

import json
from pathlib import Path

from tests.commands.processes import Forked
from tests.core.training.forks import free_port


def launch(folder: Path, *arguments: str) -> list[Forked]:
    """Two processes in the environment that torch's launcher makes."""
    shared = {"OVSEG_RUNS": str(folder / "runs"), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [Forked(list(arguments), folder, {**shared, **rank}) for rank in ranks]


def test_eval_in_two_processes_counts_as_in_one_and_prints_once(cli, tmp_path, monkeypatch):
    asked = [
        "eval",
        "maskclip",
        "--data",
        "toy",
        "--gpus",
        "0",
        "--limit",
        "9",
        "--set",
        "windows_per_batch=2",
        "--json",
    ]
    monkeypatch.setenv("OVSEG_RUNS", str(tmp_path / "one"))
    alone, two = cli(*asked), launch(tmp_path, *asked)
    (first, told), (second, _) = (process.communicate() for process in two)
    assert alone.code == 0 and [process.returncode for process in two] == [0, 0], alone.err + told
    assert not second, "only the first process prints"
    documents = [json.loads(alone.out), json.loads(first)]
    assert documents[0]["schema"] == documents[1]["schema"]
    files = [next(tmp_path.glob(f"{name}/*/results/*")) for name in ("one", "runs")]
    assert [len(list(path.parent.iterdir())) for path in files] == [1, 1]  # no journal is left
    first, second = (json.loads(path.read_text()) for path in files)
    assert first["counts"] == second["counts"] and first["images"] == second["images"]
    assert second["environment"]["processes"] == 2


def test_more_gpus_than_there_are_end_with_code_4_before_anything_is_made(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("OVSEG_RUNS", str(tmp_path / "runs"))
    answer = cli("eval", "maskclip", "--data", "toy", "--gpus", "64")
    assert answer.code == 4 and "--gpus 64: this machine has" in answer.err
    assert not (tmp_path / "runs").exists()
