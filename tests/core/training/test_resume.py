"""Killed at any moment, once or twice: the run goes on to the very bits of one that was never killed.

Everything that could leave a trace is on: accumulation, dropout, a moving average, evaluations that draw random
numbers.
The processes are real, and die by SIGKILL.
"""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from ovseg_cli.core.errors import DataError, MachineError, UsageError
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.training import checkpoint, loop, position
from ovseg_cli.core.training.checkpoint import load_checkpoint
from ovseg_cli.core.training.loop import fit
from tests.core.training import forks
from tests.core.training.parts import Sums, settings, train, weights

ALL = {"total": 12, "accumulate": 2, "ema": 0.8, "eval_every": 4, "save_every": 3, "dropout": 0.5}
TIMES = ("seconds", "images_per_second", "waited_share")


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Draw no curves, which would take most of the time; test_curves.py draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_curves", lambda *_: False)
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return weights(train(folder, **ALL)), read_log(folder)


def read_log(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(module, name, number, before=True):
    """Replace a function by one that is the death of the process at its `number`-th call, before or after it acts."""
    original, calls = getattr(module, name), []

    def mortal(*arguments, **options):
        calls.append(name)
        if before and len(calls) == number:
            die()
        result = original(*arguments, **options)
        if len(calls) == number:
            die()
        return result

    setattr(module, name, mortal)


def at_batch(step, part):
    return lambda: train_hooked(lambda s, p: die() if (s, p) == (step, part) else None)


def at_call(module, name, number, before=True, workers=0):
    def prepare():
        die_at_call(module, name, number, before)
        return train_hooked(None, workers)

    return prepare


def train_hooked(hook, workers=0):
    return lambda folder, resume: train(folder, resume=resume, hook=hook, workers=workers, **ALL)


MOMENTS = {
    "first batch": at_batch(0, 0),
    "before a checkpoint": at_batch(2, 1),
    "between micro-batches": at_batch(5, 1),
    "in the middle of a checkpoint's files": at_call(checkpoint, "write_bytes", 4),
    "between a checkpoint and its pointer": at_call(checkpoint, "write_json", 6),
    "after a checkpoint": at_call(checkpoint, "write_json", 8, before=False),
    "while workers make batches": at_call(position, "random_states", 9, workers=2),
    "before an evaluation's curves": at_call(loop, "draw_curves", 2),
    "after an evaluation": at_call(loop, "draw_curves", 2, before=False),
    "at the end": at_call(loop, "draw_curves", 4),
}


def killed(moment, folder, resume):
    assert forks.codes(forks.start(lambda: MOMENTS[moment]()(folder, resume))) == [-signal.SIGKILL]


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_run_continues_to_the_same_bits_and_the_same_log(tmp_path, straight, moment):
    killed(moment, tmp_path, False)
    begun = (tmp_path / "checkpoints" / "latest.json").exists()
    task = train(tmp_path, resume=begun, **ALL)
    assert torch.equal(weights(task), straight[0])
    assert read_log(tmp_path) == straight[1]


def test_run_that_is_killed_twice_continues_to_the_same_bits(tmp_path, straight):
    killed("between micro-batches", tmp_path, False)
    killed("after an evaluation", tmp_path, True)
    assert load_checkpoint(tmp_path / "checkpoints", Silent()).step == 8
    task = train(tmp_path, resume=True, **ALL)
    assert torch.equal(weights(task), straight[0])
    assert read_log(tmp_path) == straight[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_sigterm_saves_the_step_and_leaves_with_143(tmp_path, straight, workers):
    def hook(step, part):
        if (step, part) == (4, 1):
            os.kill(trainer, signal.SIGTERM)

    def act():
        nonlocal trainer
        trainer = os.getpid()
        train(tmp_path, hook=hook, workers=workers, **ALL)

    trainer = 0
    assert forks.codes(forks.start(act)) == [143]
    assert load_checkpoint(tmp_path / "checkpoints", Silent()).step in ((5,) if not workers else range(1, 6))
    assert torch.equal(weights(train(tmp_path, resume=True, **ALL)), straight[0])


def test_sigterm_in_an_evaluation_ends_it_at_once(tmp_path, straight):
    class Slow(Sums):
        def evaluate(self):
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the evaluation went on")

    options = {key: value for key, value in ALL.items() if key not in ("total", "dropout")}
    act = lambda: fit(Slow(0.5, noise=1.0), settings(12, **options), tmp_path, Silent())  # noqa: E731
    assert forks.codes(forks.start(act)) == [143]
    assert load_checkpoint(tmp_path / "checkpoints", Silent()).step == 4
    assert torch.equal(weights(train(tmp_path, resume=True, **ALL)), straight[0])
    assert read_log(tmp_path) == straight[1]


def test_evaluation_scores_the_average_and_leaves_no_trace(tmp_path, straight):
    without = train(tmp_path, **{**ALL, "eval_every": 0})
    assert torch.equal(weights(without), straight[0])
    assert [line["step"] for line in straight[1] if "evaluation" in line] == [4, 8, 12]


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_while_saving_keeps_the_last_checkpoint_and_the_run_goes_on_from_it(tmp_path, straight, monkeypatch):
    write, calls = checkpoint.write_bytes, []

    def fills_up(path, data):
        calls.append(path)
        full_disk() if len(calls) > 2 else write(path, data)

    monkeypatch.setattr(checkpoint, "write_bytes", fills_up)
    with pytest.raises(MachineError, match="the disk is full") as caught:
        train(tmp_path, **ALL)
    assert caught.value.exit_code == 4
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["latest.json", "step-00000003"]
    monkeypatch.undo()
    assert torch.equal(weights(train(tmp_path, resume=True, **ALL)), straight[0])


def test_full_disk_while_logging_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *a, **k: full_disk() if "metrics" in str(a[0]) else OPEN(*a, **k))
    with pytest.raises(MachineError, match=r"metrics.jsonl: the disk is full"):
        train(tmp_path, **ALL)


OPEN = open


def test_resume_of_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint to resume from"):
        train(tmp_path, resume=True, **ALL)


def test_data_that_changed_since_the_run_began_are_named(tmp_path):
    train(tmp_path, identity={"data": "a", "CLIP": "c"}, **{**ALL, "total": 3})
    with pytest.raises(DataError, match="data is not what this run began with"):
        train(tmp_path, identity={"data": "b", "CLIP": "c"}, resume=True, **ALL)
    train(tmp_path, identity={"data": "a", "CLIP": "c"}, resume=True, **ALL)


def test_model_of_other_settings_is_refused(tmp_path):
    train(tmp_path, **{**ALL, "total": 3})
    task = Sums()
    task.module["rare"] = torch.nn.Linear(16, 2)
    options = {key: value for key, value in ALL.items() if key not in ("total", "dropout")}
    with pytest.raises(DataError, match=r"'rare.weight' is \(1, 16\) here and \(2, 16\) in the model"):
        fit(task, settings(12, **options), tmp_path, Silent(), resume=True)


def test_checkpoint_of_another_version_is_named(tmp_path, monkeypatch):
    train(tmp_path, **{**ALL, "total": 3})
    monkeypatch.setattr(checkpoint, "SCHEMA", checkpoint.SCHEMA + 1)
    with pytest.raises(DataError, match=f"checkpoint schema {checkpoint.SCHEMA - 1}, this ovseg reads"):
        train(tmp_path, resume=True, **ALL)


def test_other_circumstances_are_said_once_each(tmp_path, monkeypatch):
    train(tmp_path, **{**ALL, "total": 3})
    monkeypatch.setattr("ovseg_cli.core.training.position.__version__", "9.9")
    reporter = Silent()
    options = {key: value for key, value in ALL.items() if key not in ("total", "dropout")}
    fit(Sums(), settings(6, **{**options, "precision": "bfloat16"}), tmp_path, reporter, resume=True)
    said = " ".join(reporter.warnings)
    assert (
        len(reporter.warnings) == 2 and "continues with 9.9" in said and "float32 and continues with bfloat16" in said
    )


def test_frozen_weights_are_not_saved(tmp_path):
    train(Path(tmp_path), **{**ALL, "total": 3})
    kept = load_checkpoint(tmp_path / "checkpoints", Silent())
    assert {name.split(".")[0] for name in kept.weights} == {"trunk", "head", "rare"}
