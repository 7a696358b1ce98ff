"""Several processes: they train to the weights of one, stop together, and what stopped them is told once."""

import errno
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from ovseg_cli.core.errors import MachineError, OvsegError, Terminated, UsageError
from ovseg_cli.core.files import folder_lock
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runtime import Place, find_place, open_runtime
from ovseg_cli.core.training import checkpoint, loop, processes
from ovseg_cli.core.training.checkpoint import load_checkpoint
from ovseg_cli.core.training.group import ONE
from ovseg_cli.core.training.loop import fit
from ovseg_cli.core.training.processes import Failure, explain, launch_if_needed, open_group
from tests.core.training import forks
from tests.core.training.parts import Sums, settings, train, weights

PLAIN = {"total": 10, "ema": 0.8, "eval_every": 4, "save_every": 3}
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_curves", lambda *_: False)
        yield


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Weights of one process that takes the global batch whole."""
    return weights(train(tmp_path_factory.mktemp("one"), **PLAIN))


def together(folder, processes=2, **options):
    """Train in several processes; returns their exit codes and the weights that each ended with."""

    def act():
        with open_group("cpu") as group:
            task = train(folder, group=group, **options)
            torch.save(weights(task), Path(folder, f"end-{group.rank}.pt"))

    folder.mkdir(exist_ok=True)
    codes = forks.codes(forks.start(act, processes, folder))
    ends = [folder / f"end-{rank}.pt" for rank in range(processes)]
    return codes, [torch.load(end) for end in ends if end.exists()]


CUTS = [(2, 1), (1, 2), (2, 2), (4, 1)]


@pytest.mark.parametrize(("processes", "accumulate"), CUTS, ids=[f"{p}-processes-{a}-micro-batches" for p, a in CUTS])
def test_cut_steps_give_the_weights_of_whole_ones(tmp_path, one, processes, accumulate):
    """Sums in another order: float32 keeps 7 digits, and ten steps of AdamW lose one of them."""
    if processes == 1:
        ends = [weights(train(tmp_path, accumulate=accumulate, **PLAIN))]
    else:
        codes, ends = together(tmp_path, processes, accumulate=accumulate, **PLAIN)
        assert codes == [0] * processes
    assert torch.allclose(ends[0], one, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(end, ends[0]) for end in ends)


def test_log_of_several_processes_tells_of_the_global_batch(tmp_path):
    together(tmp_path / "two", **PLAIN)
    train(tmp_path / "one", **PLAIN)
    two, one = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    )
    assert len(two) == len(one) == 7
    for a, b in zip(two, one, strict=True):
        assert a.keys() == b.keys() and a["step"] == b["step"]
        assert a.get("terms", {}) == pytest.approx(b.get("terms", {}), rel=1e-5)
        assert a.get("evaluation", {}).get("norm", 0) == pytest.approx(b.get("evaluation", {}).get("norm", 0), rel=1e-5)


@pytest.fixture(scope="module")
def random_two(tmp_path_factory):
    """Weights of two processes with dropout, which draw random numbers of their own."""
    codes, ends = together(tmp_path_factory.mktemp("two"), dropout=0.5, **PLAIN)
    assert codes == [0, 0]
    return ends[0]


def at(step, rank, act):
    """A hook for one process: `act` when it makes a batch."""
    return lambda s, part: act() if (s, part) == (step, rank) else None


@pytest.mark.parametrize("rank", [0, 1])
def test_killed_process_stops_the_other_and_both_resume_to_the_same_bits(tmp_path, random_two, rank):
    hook = at(7, rank, lambda: os.kill(os.getpid(), signal.SIGKILL))
    codes, _ = together(tmp_path, dropout=0.5, hook=hook, **PLAIN)
    assert codes[rank] == -signal.SIGKILL and codes[1 - rank] == 4
    assert "another process has left" in (tmp_path / f"error-{1 - rank}").read_text()
    codes, ends = together(tmp_path, dropout=0.5, resume=True, **PLAIN)
    assert codes == [0, 0] and all(torch.equal(end, random_two) for end in ends)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_to_one_process_saves_in_all_at_the_same_step(tmp_path, random_two, sent, code):
    hook = at(4, 1, lambda: os.kill(os.getpid(), sent))
    codes, _ = together(tmp_path, dropout=0.5, hook=hook, **PLAIN)
    assert codes == [code, code]
    assert load_checkpoint(tmp_path / "checkpoints", Silent()).step == 5
    codes, ends = together(tmp_path, dropout=0.5, resume=True, **PLAIN)
    assert codes == [0, 0] and all(torch.equal(end, random_two) for end in ends)


@pytest.mark.parametrize(("sent_in", "saved"), [(4, 4), (5, 6), (10, 10)])
def test_signal_after_the_others_were_told_waits_until_they_ask(tmp_path, random_two, sent_in, saved):
    """They ask in the next step, before an evaluation (of step 4), and at the end."""

    def after(calls):
        if calls == sent_in and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    codes, _ = together(tmp_path, dropout=0.5, after=after, **PLAIN)
    assert codes == [143, 143]
    assert load_checkpoint(tmp_path / "checkpoints", Silent()).step == saved
    codes, ends = together(tmp_path, dropout=0.5, resume=True, **PLAIN)
    assert codes == [0, 0] and all(torch.equal(end, random_two) for end in ends)


def test_process_without_its_launcher_saves_and_leaves(tmp_path):
    def act():
        with open_group("cpu"):
            group = type(ONE)(launcher=1 if os.getppid() != 1 else 2)
            train(tmp_path, group=group, **PLAIN)

    assert forks.codes(forks.start(act)) == [143]
    assert load_checkpoint(tmp_path / "checkpoints", Silent()).step == 1


def test_nan_in_one_process_is_told_by_all_and_keeps_the_checkpoint(tmp_path):
    codes, _ = together(tmp_path, nan_at=5, **PLAIN)
    assert codes == [1, 1]
    told = {(tmp_path / f"error-{rank}").read_text() for rank in (0, 1)}
    assert len(told) == 1 and "'rare' is nan in step 5" in next(iter(told))
    kept = load_checkpoint(tmp_path / "checkpoints", Silent())
    assert kept.step == 4 and all(torch.isfinite(w).all() for w in kept.weights.values())


def test_full_disk_of_the_main_process_ends_all(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "write_bytes", full)
    codes, _ = together(tmp_path, **PLAIN)
    assert codes == [4, 4]
    assert all("the disk is full" in (tmp_path / f"error-{rank}").read_text() for rank in (0, 1))


def test_run_goes_on_with_another_number_of_processes_and_says_so(tmp_path, one):
    def hook(step, part):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    codes, _ = together(tmp_path, hook=hook, **PLAIN)
    assert codes == [143, 143]
    options = {key: value for key, value in PLAIN.items() if key != "total"}
    task, reporter = Sums(), Silent()
    fit(task, settings(10, **options), tmp_path, reporter, resume=True)
    assert torch.allclose(weights(task), one, rtol=1e-5, atol=1e-6)
    assert "began with 2 and continues with 1" in reporter.warnings[0]


def test_group_of_two_agrees(tmp_path):
    def act():
        with open_group("cpu") as group:
            rank = group.rank
            assert group.world_size == 2 and group.is_main == (rank == 0)
            assert group.sum({"b": 1.0 + rank, "a": 2.0**53}) == {"b": 3.0, "a": 2.0**54}
            assert group.gather("x" * (10 * rank + 1)) == ["x", "x" * 11]
            assert group.broadcast({"path": Path("a")} if rank == 0 else None) == {"path": Path("a")}
            with group.main_first():
                seen = (tmp_path / "made").exists()
                (tmp_path / "made").touch()
            assert seen == (rank == 1)
            with group.main_holds(lambda: folder_lock(tmp_path / "locked", "a test")):
                assert (tmp_path / "locked" / ".lock").exists()
            with pytest.raises(UsageError, match="only here") as caught:
                group.on_main(lambda: (_ for _ in ()).throw(UsageError("only here", "mend")))
            assert caught.value.mend == "mend"
            assert group.quiet(reporter := Silent()) is reporter or rank == 1

    assert forks.codes(forks.start(act, 2)) == [0, 0]


def test_alone_a_group_does_nothing(tmp_path):
    with open_group("cpu") as group:
        assert group is ONE
    assert ONE.sum({"a": 1}) == {"a": 1} and ONE.gather(3) == [3] and ONE.broadcast(3) == 3
    assert ONE.on_main(lambda: 4) == 4
    ONE.barrier()
    with ONE.main_first(), ONE.main_holds(lambda: folder_lock(tmp_path, "a test")):
        assert (tmp_path / ".lock").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 2}, "--nodes 2 --rdzv HOST:29400"),
        ({"nodes": 0}, "one machine at least"),
        ({"rdzv": "a:1"}, "--nodes 2"),
        ({"nodes": 2, "rdzv": "host"}, "no HOST:PORT"),
        ({"nodes": 2, "rdzv": ":29400"}, "no HOST:PORT"),
        ({"nodes": 2, "rdzv": "host:99999"}, "no HOST:PORT"),
        ({"gpus": -1}, "cannot be negative"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        launch_if_needed(**{"gpus": 0, **options})


def test_more_gpus_than_there_are_start_nothing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes, "_launch", lambda *_: pytest.fail("something was started"))
    with pytest.raises(MachineError, match="this machine has 2 GPUs"):
        launch_if_needed(4)


@pytest.mark.parametrize(("gpus", "started"), [(None, 2), (2, 2), (1, None), (0, None)])
def test_a_process_is_started_for_each_gpu(monkeypatch, gpus, started):
    found = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes, "_launch", lambda *arguments: found.append(arguments))
    assert launch_if_needed(gpus, argv=["train", "x"]) == (0 if started else None)
    expected = [(2, 1, "localhost:0", ["-m", "ovseg_cli.app", "train", "x"], False)] if started else []
    assert found == expected


def test_worker_starts_nobody(monkeypatch):
    monkeypatch.setattr(processes, "_launch", lambda *_: pytest.fail("something was started"))
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert find_place() == Place(1, 2, 1, 2)
    assert launch_if_needed(0, nodes=2, rdzv="host:29400") is None


@pytest.mark.parametrize("rank", ["2", "-1", "x", ""])
def test_environment_of_no_launcher_is_refused(monkeypatch, rank):
    for name, value in {"RANK": rank, "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"RANK={rank}"):
        find_place()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UsageError, match="2 processes were started on this machine, which are to share 1 GPU"):
        open_runtime()
    assert str(open_runtime(0).device) == "cpu"


def failure(rank, kind, code, moment):
    return Failure(rank, f"{kind} of {rank}", "mend", code, kind, moment)


LOST, DATA = failure(0, "lost", 4, 1), failure(1, "DataError", 3, 2)
CAUSES = {
    "an error, though told later": ({0: (4, 10), 1: (3, 11)}, [LOST, DATA], "DataError of 1", 3),
    "a kill": ({0: (4, 10), 1: (-9, 11)}, [LOST], "worker 1 (process 11) was killed by SIGKILL", 4),
    "another machine's": ({0: (4, 10)}, [LOST], "another process of this work ended", 4),
    "no word": ({0: (7, 10)}, [], "worker 0 (process 10) left with exit code 7", 4),
}


@pytest.mark.parametrize(("exits", "told", "words", "code"), CAUSES.values(), ids=CAUSES)
def test_cause_is_found_among_the_failures(exits, told, words, code):
    found = explain(exits, told)
    assert isinstance(found, OvsegError) and words in found.message and found.exit_code == code


@pytest.mark.parametrize(("kind", "raised"), [("Terminated", Terminated), ("KeyboardInterrupt", KeyboardInterrupt)])
def test_signal_that_workers_left_for_is_passed_on(kind, raised):
    assert isinstance(explain({0: (143, 1), 1: (143, 2)}, [failure(0, kind, 143, 1)]), raised)


def launched(folder, options, count=2):
    """What becomes of workers that torch's own launcher starts on this machine; runs in a forked process."""
    script = str(ROOT / "tests" / "core" / "training" / "parts.py")
    os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    processes._launch(count, 1, "localhost:0", [script, str(folder), options])


@pytest.mark.parametrize("quiet", [True, False])
def test_what_workers_print_can_be_dropped_but_not_their_messages(capfd, quiet):
    processes._launch(1, 1, "localhost:0", ["-c", "import sys; print('data'); print('words', file=sys.stderr)"], quiet)
    told = capfd.readouterr()
    assert told.out == ("" if quiet else "data\n") and "words" in told.err


def test_launcher_names_a_killed_worker(tmp_path):
    act = lambda: launched(tmp_path / "run", '{"total": 100000, "pause": 0.01, "save_every": 1}')  # noqa: E731
    children = forks.start(act, output=tmp_path)
    forks.wait_until((tmp_path / "run" / "reached-5-1").exists)
    os.kill(workers_of(children[0])["1"], signal.SIGKILL)
    assert forks.codes(children, seconds=120) == [4]
    assert re.search(r"worker 1 \(process \d+\) was killed by SIGKILL", (tmp_path / "error-0").read_text())


def workers_of(launcher):
    """Process ids of the workers of a launcher, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            variables = dict(item.partition("=")[::2] for item in (folder / "environ").read_text().split("\0"))
        except OSError:
            continue
        if int(parent) == launcher and "RANK" in variables:
            found[variables["RANK"]] = int(folder.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_launcher_passes_a_signal_on_and_leaves_when_all_have_saved(tmp_path, sent, code):
    act = lambda: launched(tmp_path / "run", '{"total": 100000, "pause": 0.01, "save_every": 1000}')  # noqa: E731
    children = forks.start(act)
    forks.wait_until((tmp_path / "run" / "reached-5-1").exists)
    os.kill(children[0], sent)
    assert forks.codes(children) == [code]
    assert load_checkpoint(tmp_path / "run" / "checkpoints", Silent()).step > 4


def listens(port):
    try:
        with socket.create_connection(("localhost", port), timeout=1):
            return True
    except OSError:
        return False


def test_two_machines_train_to_the_weights_of_one_process(tmp_path, one):
    """Two launchers on this machine, as the same command typed on two."""
    options = json.dumps(PLAIN)
    port = forks.free_port()
    endpoint = f"localhost:{port}"

    def act():
        os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
        launch_if_needed(0, 2, endpoint, [str(tmp_path), options], module="tests.core.training.parts")

    first = forks.start(act)
    forks.wait_until(lambda: listens(port))
    assert forks.codes([*first, *forks.start(act)], seconds=120) == [0, 0]
    for rank in (0, 1):
        state = torch.load(tmp_path / f"end-{rank}.pt")
        assert torch.allclose(torch.cat([w.flatten() for w in state.values()]), one, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_torchrun_trains_to_the_weights_of_one_process(tmp_path, one):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "--local-addr=localhost", "-m", "tests.core.training.parts"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path), json.dumps(PLAIN)], cwd=ROOT, env=environment, check=True, timeout=300)
    state = torch.load(tmp_path / "end-1.pt")
    assert torch.allclose(torch.cat([w.flatten() for w in state.values()]), one, rtol=1e-5, atol=1e-6)


class Store:
    """Counters that threads share, as processes share a TCPStore's."""

    def __init__(self):
        self.counts, self.lock, self.latest = {}, threading.Lock(), 0.0

    def add(self, key, number):
        with self.lock:
            if number:
                self.latest = time.monotonic()
            self.counts[key] = self.counts.get(key, 0) + number
            return self.counts[key]


def leaving(monkeypatch, delays):
    """When each process came to the end of its work and when it left, and when the last one said that it leaves."""
    monkeypatch.setattr(processes, "_groups", itertools.repeat(0))
    store, times = Store(), {}

    def act(rank):
        time.sleep(delays[rank])
        came = time.monotonic()
        processes._leave_together(store, rank, len(delays))
        times[rank] = (came, time.monotonic())

    threads = [threading.Thread(target=act, args=(rank,)) for rank in range(len(delays)) if delays[rank] is not None]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, store.latest


@pytest.mark.parametrize("delays", [(0.3, 0.0, 0.0), (0.0, 0.3, 0.0)])
def test_nobody_leaves_before_all_are_done_and_the_first_process_leaves_last(monkeypatch, delays):
    times, latest = leaving(monkeypatch, delays)
    last = max(came for came, _ in times.values())
    assert all(left >= last for _, left in times.values())
    assert times[0][1] >= latest, "it waits until the others have said that they leave"


def test_one_that_never_comes_is_not_waited_for_forever(monkeypatch):
    monkeypatch.setattr(processes, "LEAVING_SECONDS", 0.1)
    times, _ = leaving(monkeypatch, (0.0, None))
    assert 0.1 <= times[0][1] - times[0][0] < 5
