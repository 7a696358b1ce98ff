"""Ctrl-C and SIGTERM in every long step: exit codes 130 and 143, nothing half-written, and the work goes on."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands.processes import START, Forked

ROOT = Path(__file__).resolve().parents[2]
STEPS = {
    "prepare": (["prepare", "toy", "--workers", "2"], "datasets/toy/index/*"),
    "train": (
        ["train", "toy-clip", "--set", "save_every=2", "--set", "batch_size=8", "--gpus", "0"],
        "runs/*/metrics.jsonl",
    ),
    "eval": (["eval", "maskclip", "--data", "toy", "--gpus", "0", "--set", "windows_per_batch=1"], "runs/*/results/*"),
    "predict": (
        ["predict", "maskclip", "DATA/toy/images/val", "--classes", "snow, sand", "--clip", "toy-clip", "--gpus", "0"],
        "predictions/*.json",
    ),
}


def start(arguments: list[str], folder: Path, world: Path) -> Forked | subprocess.Popen[str]:
    """Start a long step; one that brings processes of its own is started as a user starts it."""
    environment = {"PYTHONPATH": str(ROOT), "OVSEG_CACHE": str(world / "cache"), "OMP_NUM_THREADS": "1"}
    words = [a.replace("DATA", str(world / "datasets")) for a in arguments]
    if arguments[0] != "prepare":
        return Forked(words, folder, {**environment, "OVSEG_DATA": str(world / "datasets")})
    return subprocess.Popen(
        [*START, *words], cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(folder: Path, pattern: str, process: Forked | subprocess.Popen[str]) -> None:
    """Wait until the long step has begun to write."""
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in folder.glob(pattern) if path.is_file()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the step never began"
        time.sleep(0.02)


CASES = [(step, signal.SIGINT, 130) for step in STEPS] + [(step, signal.SIGTERM, 143) for step in ("train", "eval")]


@pytest.mark.parametrize(("step", "sent", "code"), CASES, ids=[f"{step}-{sent.name}" for step, sent, _ in CASES])
def test_stopped_step_leaves_whole_files(
    step: str, sent: signal.Signals, code: int, world: Path, tmp_path: Path
) -> None:
    arguments, sign = STEPS[step]
    process = start(arguments, tmp_path, world)
    try:
        wait_for(tmp_path, sign, process)
        os.killpg(process.pid, sent)  # as a terminal or a scheduler does: the whole group
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == code, err
    assert "Traceback" not in err and not out
    assert not list(tmp_path.rglob("*.part")), "a half-written file was left"
    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_text())


def test_training_that_was_stopped_goes_on_to_its_end(world: Path, tmp_path: Path) -> None:
    arguments = ["train", "toy-clip", "--gpus", "0"]
    for setting in ("iterations=60", "batch_size=4", "save_every=1", "workers=0", "figure_scenes=2"):
        arguments += ["--set", setting]
    process = start(arguments, tmp_path, world)
    wait_for(tmp_path, "runs/*/checkpoints/*", process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    run = next((tmp_path / "runs").iterdir())
    assert not (run / "finished").exists() and not (run / "clip.safetensors").exists()
    resumed = start([*arguments, "--resume"], tmp_path, world)
    _, err = resumed.communicate(timeout=240)
    assert resumed.returncode == 0 and "from step" in err, err
    assert (run / "finished").exists() and (run / "clip.safetensors").exists()
