"""Commands in several processes, started by torch's own launcher as a user would."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
LAUNCHER += ["--rdzv-endpoint=localhost:0", "--local-addr=localhost"]


def launch(world: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    places = {"OVSEG_DATA": world / "datasets", "OVSEG_RUNS": folder / "runs", "OVSEG_CACHE": world / "cache"}
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **{k: str(v) for k, v in places.items()},
    }
    command = [*LAUNCHER, "-m", "ovseg_cli.app", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)


def test_eval_in_two_processes_counts_as_in_one_and_prints_once(cli, world, tmp_path, monkeypatch):
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
    alone, two = cli(*asked), launch(world, tmp_path, *asked)
    assert alone.code == 0 and two.returncode == 0, alone.err + two.stderr
    documents = [json.loads(alone.out), json.loads(two.stdout)]
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
