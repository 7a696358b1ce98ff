"""Worker processes: order, and what becomes of them when the parent is interrupted or killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovseg_cli.core.data import parallel
from ovseg_cli.core.data.parallel import ordered_map

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import time
from ovseg_cli.core.data import parallel
parallel.PATIENCE = 0.0
for _ in parallel.ordered_map(time.sleep, [0.02] * 3000, 2):
    print("one", flush=True)
"""


def _start() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def _workers(parent: int) -> list[int]:
    """Pids of living worker processes of a parent; a dead one that nobody has waited for does not count."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, above = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            words = (path / "cmdline").read_text()
        except OSError:
            continue
        if int(above) == parent and state != "Z" and "spawn_main" in words:
            found.append(int(path.name))
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(condition, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_results_come_in_order_from_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PATIENCE", 0.0)
    assert list(ordered_map(abs, [-n for n in range(100)], 2)) == list(range(100))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the workers")
@pytest.mark.parametrize("later", [0.0, 0.05, 0.5], ids=["being started", "importing", "at work"])
def test_ctrl_c_reaches_the_parent_alone(later: float) -> None:
    process = _start()
    try:
        _until(lambda: _workers(process.pid), "no worker was started")
        time.sleep(later)
        workers = _workers(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
        _, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert err.count("Traceback") == 1 and err.rstrip().endswith("KeyboardInterrupt"), err
    assert "Process SpawnProcess" not in err
    assert not any(_is_alive(pid) for pid in workers)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the workers")
def test_workers_end_with_a_killed_parent() -> None:
    process = _start()
    try:
        _until(lambda: len(_workers(process.pid)) == 2, "no two workers were started")
        workers = _workers(process.pid)
        process.kill()
        _until(lambda: not any(_is_alive(pid) for pid in workers), "workers outlived their parent")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
