"""Files that are whole or absent, whenever Ctrl-C comes."""

import gc
import sys
from itertools import count
from pathlib import Path

import pytest

from ovseg_cli.core import files
from ovseg_cli.core.errors import MachineError
from ovseg_cli.core.files import atomic_write, write_text


def test_a_block_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "a.txt", "w") as stream:
        stream.write("new")
        1 / 0  # noqa: B018
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    with pytest.raises(MachineError, match="file"):
        write_text(tmp_path / "a" / "b", "")


def _interrupted_at(step: int, path: Path) -> bool:
    """Write a file and raise KeyboardInterrupt before its `step`-th bytecode; False where it has no so many."""
    left = step

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename != files.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        write_text(path, "new")
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_ctrl_c_at_any_bytecode_leaves_the_old_file_or_the_new_and_nothing_else(tmp_path: Path) -> None:
    path, seen = tmp_path / "a.txt", set()
    for step in count(1):
        path.write_text("old")
        stopped = _interrupted_at(step, path)
        if len(list(tmp_path.iterdir())) > 1:
            gc.collect()  # what the exception still held is closed
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"], f"stopped at bytecode {step}"
        seen.add(path.read_text())
        if not stopped:
            break
    assert step > 50 and seen == {"old", "new"}
