import errno
import os
import random

import numpy as np
import pytest
import torch

from ovseg_cli.core.errors import DataError, MachineError, UsageError
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.training import checkpoint as module
from ovseg_cli.core.training.checkpoint import (
    Checkpoint,
    has_checkpoint,
    load_checkpoint,
    random_states,
    save_checkpoint,
    set_random_states,
)


def at(step):
    return Checkpoint(step, {"w": torch.full((3,), float(step))}, {"note": [step, "x"], "t": torch.arange(step)})


def test_what_was_saved_comes_back(tmp_path):
    save_checkpoint(tmp_path, at(7))
    found = load_checkpoint(tmp_path, Silent())
    assert found.step == 7 and torch.equal(found.weights["w"], at(7).weights["w"])
    assert found.state["note"] == [7, "x"] and torch.equal(found.state["t"], torch.arange(7))


def test_newest_wins_and_only_two_stay(tmp_path):
    for step in (5, 10, 100):
        save_checkpoint(tmp_path, at(step))
        assert load_checkpoint(tmp_path, Silent()).step == step
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000010", "step-00000100"]


def test_a_future_that_was_taken_back_is_removed(tmp_path):
    for step in (5, 10):
        newest = save_checkpoint(tmp_path, at(step))
    (newest / "state.pt").write_bytes(b"")  # the run goes on from step 5
    save_checkpoint(tmp_path, at(7))
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000005", "step-00000007"]


def test_same_step_can_be_saved_again(tmp_path):
    save_checkpoint(tmp_path, at(5))
    save_checkpoint(tmp_path, at(5))
    assert load_checkpoint(tmp_path, Silent()).step == 5


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["truncate", "remove", "flip"])
def test_broken_newest_falls_back_to_the_one_before_and_says_so(tmp_path, name, damage):
    save_checkpoint(tmp_path, at(5))
    newest = save_checkpoint(tmp_path, at(10)) / name
    content = newest.read_bytes()
    if damage == "remove":
        newest.unlink()
    elif damage == "truncate":
        newest.write_bytes(content[: len(content) // 2])
    else:
        newest.write_bytes(content[:-9] + bytes(255 - b for b in content[-9:]))
    reporter = Silent()
    assert load_checkpoint(tmp_path, reporter).step == 5
    assert len(reporter.warnings) == 1 and "step-00000010" in reporter.warnings[0]


def test_all_broken_is_an_error_with_the_way_out(tmp_path):
    (save_checkpoint(tmp_path, at(5)) / "state.pt").write_bytes(b"")
    with pytest.raises(DataError, match="--resume"):
        load_checkpoint(tmp_path, Silent())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"folder": "step-99999999"}', '{"folder": "a"}', '{"folder": 3}'])
def test_broken_pointer_does_not_lose_the_run(tmp_path, text):
    save_checkpoint(tmp_path, at(5))
    (tmp_path / "latest.json").write_text(text)
    assert load_checkpoint(tmp_path, Silent()).step == 5


def test_nothing_to_resume_is_a_usage_error(tmp_path):
    assert not has_checkpoint(tmp_path) and not has_checkpoint(tmp_path / "absent")
    with pytest.raises(UsageError, match="without --resume"):
        load_checkpoint(tmp_path, Silent())


def test_kill_between_folder_and_pointer_keeps_the_older_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, at(5))

    def killed(path, document):
        if path.name == "latest.json":
            raise KeyboardInterrupt
        original(path, document)

    original = module.write_json
    monkeypatch.setattr(module, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, at(10))
    assert load_checkpoint(tmp_path, Silent()).step == 5


def test_full_disk_keeps_the_older_checkpoint_and_leaves_no_half_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, at(5))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_bytes", full)
    with pytest.raises(MachineError, match="the disk is full"):
        save_checkpoint(tmp_path, at(10))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest.json", "step-00000005"]


def test_other_schema_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SCHEMA", 2)
    save_checkpoint(tmp_path, at(5))
    monkeypatch.setattr(module, "SCHEMA", 1)
    reporter = Silent()
    with pytest.raises(DataError):
        load_checkpoint(tmp_path, reporter)
    assert "schema 2" in reporter.warnings[0]


def test_code_in_a_state_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    path = save_checkpoint(tmp_path, at(5))
    torch.save({"x": Evil()}, path / "state.pt")
    header = module.read_json(path / "checkpoint.json", "header")
    header["sha256"]["state.pt"] = module.sha256_file(path / "state.pt")
    module.write_json(path / "checkpoint.json", header)
    with pytest.raises(DataError):
        load_checkpoint(tmp_path, Silent())
    assert not (tmp_path / "ran").exists()


def draws():
    return random.gauss(0, 1), np.random.standard_normal(), torch.randn(2).tolist()


def test_random_states_come_back_even_with_a_cached_gauss(tmp_path):
    draws()  # leaves a cached second value in Python's and numpy's generators
    save_checkpoint(tmp_path, Checkpoint(1, {}, {"random": random_states()}))
    expected = draws(), draws()
    draws()
    set_random_states(load_checkpoint(tmp_path, Silent()).state["random"])
    assert (draws(), draws()) == expected
