"""How does one command become several processes, and how do they end? Imports no torch until it has to.

A command that may run in several processes does, once its options are checked:

    code = launch_if_needed(gpus, nodes, rdzv)     # the first process starts the others and waits for them
    if code is not None:
        raise typer.Exit(code)
    runtime = open_runtime(gpus, seed)             # every worker gets here, with the same arguments
    with open_group(runtime.device) as group:      # group.py; does nothing for a single process
        ...

Workers are started by module name through torch's elastic launcher (`python -m ovseg_cli.app <the same arguments>`).
What stops one of them is written to a file, and told once, by the process that started them; it leaves with the exit
code of the first failure. Under `torchrun` the launcher is the user's own: `launch_if_needed` does nothing.
"""

import itertools
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.errors import MachineError, OvsegError, Terminated, UsageError
from ovseg_cli.core.runtime import count_gpus, find_place

if TYPE_CHECKING:
    import torch

    from ovseg_cli.core.training.group import Group

SHUTDOWN_SECONDS = 90
"""How long workers may take to finish their step and save before they are killed."""
PATIENCE_MINUTES = 60
"""How long a process waits for the others, which may be saving or scoring."""
LEAVING_SECONDS = 10.0
"""How long a process that is done waits for the others' last calls."""
_groups = itertools.count()
"""Numbers the groups that a process joins, one after another; the same everywhere."""
_FAILURES = "OVSEG_FAILURES"
_LOST, _GO_ON = "lost", "Go on with --resume, where the command has it."


class WorkerFailure(OvsegError):
    """What stopped a worker, told by the process that started it, with the worker's exit code."""

    def __init__(self, message: str, mend: str | None, exit_code: int):
        super().__init__(message, mend)
        self.exit_code = exit_code


class LostProcess(MachineError):
    """Another process of the same work is gone: the consequence of a failure, never its cause."""


def launch_if_needed(
    gpus: int | None,
    nodes: int = 1,
    rdzv: str | None = None,
    argv: Sequence[str] | None = None,
    module: str = "ovseg_cli.app",
    quiet: bool = False,
) -> int | None:
    """Start a process for each GPU asked for, and wait for them.

    Args:
        gpus: What `--gpus` said; on each machine, where there are several.
        nodes: How many machines; the same command is typed on each.
        rdzv: HOST:PORT of one of them, where they meet.
        argv: Arguments of the workers; None: those of this process.
        module: What the workers run.
        quiet: Drop what they print to stdout; messages and progress stay.

    Returns:
        None where there is nothing to start: one process is enough, or this is one of several already. 0 when all
        workers have finished.

    Raises:
        UsageError: `--nodes` and `--rdzv` do not fit.
        MachineError: Fewer GPUs than asked for; a worker was killed.
        WorkerFailure: A worker failed; message and exit code are its own.
        Terminated, KeyboardInterrupt: After all workers have left.
    """
    endpoint = _endpoint(nodes, rdzv)
    if find_place().world_size > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        return None
    count = max(1, count_gpus(gpus))
    if count * nodes == 1:
        return None
    arguments = list(sys.argv[1:] if argv is None else argv)
    _launch(count, nodes, endpoint, ["-m", module, *arguments], quiet)
    return 0


def _endpoint(nodes: int, rdzv: str | None) -> str:
    """Check where machines meet; one machine meets itself at a port that is free."""
    if nodes < 1:
        raise UsageError(f"--nodes {nodes}: there is one machine at least.")
    if nodes == 1 and rdzv is None:
        return "localhost:0"
    if rdzv is None:
        mend = f"Name a port of one of them, the same on all: --nodes {nodes} --rdzv HOST:29400"
        raise UsageError(f"--nodes {nodes}: the machines must know where to meet.", mend)
    host, colon, port = rdzv.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--rdzv {rdzv}: this is no HOST:PORT.", "For instance --rdzv node0:29400")
    if nodes == 1:
        raise UsageError(f"--rdzv {rdzv}: one machine meets nobody.", "Say how many there are: --nodes 2")
    return rdzv


def _thread_count(processes: int) -> dict[str, str]:
    """Share the cores, where the user says nothing else."""
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _launch(count: int, nodes: int, endpoint: str, command: list[str], hushed: bool = False) -> None:
    """Run `python COMMAND` in `count` processes on this machine, and answer for what becomes of them."""
    with tempfile.TemporaryDirectory(prefix="ovseg-") as folder:
        quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR", **_thread_count(count), **os.environ}
        with _environment({**quiet, _FAILURES: folder}):
            _run_elastic(count, nodes, endpoint, command, Path(folder), hushed)


def _run_elastic(count: int, nodes: int, endpoint: str, command: list[str], folder: Path, hushed: bool) -> None:
    from dataclasses import fields

    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _silence_launcher()
    settings: dict[str, Any] = {
        "min_nodes": nodes,
        "max_nodes": nodes,
        "nproc_per_node": count,
        "run_id": "ovseg",
        "rdzv_backend": "c10d",
        "rdzv_endpoint": endpoint,
        "rdzv_configs": {"is_host": False} if _answers(endpoint) else {},
        "max_restarts": 0,
        "local_addr": _own_address(endpoint),
        "logs_specs": DefaultLogsSpecs(log_dir=str(folder), redirects=Std.OUT if hushed else Std.NONE),
        "signals_to_handle": "SIGTERM,SIGINT",
        "shutdown_timeout": int(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)),
    }
    known = {field.name for field in fields(LaunchConfig)}
    config = LaunchConfig(**{name: value for name, value in settings.items() if name in known})
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        elastic_launch(config, sys.executable)(*command)
    except SignalException as error:
        raise KeyboardInterrupt if error.sigval == signal.SIGINT else Terminated from None
    except ChildFailedError as error:
        exits = {rank: (failure.exitcode, failure.pid) for rank, failure in error.failures.items()}
        raise explain(exits, read_failures(folder), nodes) from None
    except (RuntimeError, ConnectionError, TimeoutError) as error:  # of the meeting of machines
        raise MachineError(
            f"the processes did not find each other at {endpoint} ({error}).", "Check --rdzv."
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _answers(endpoint: str) -> bool:
    """Whether somebody waits there already: then this process must not try to, be it on the same machine."""
    host, _, port = endpoint.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
        return int(port) > 0
    return False


def _silence_launcher() -> None:
    """Keep what torch's launcher logs off the screen: what went wrong is told by us, once. `LOGLEVEL` shows it."""
    import logging

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed") and "LOGLEVEL" not in os.environ:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _own_address(endpoint: str) -> str:
    """Address of this machine on the way to where machines meet; its host name may be known to nobody."""
    host = endpoint.rpartition(":")[0]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        return str(probe.getsockname()[0])
    return "localhost"


@dataclass(frozen=True)
class Failure:
    """What a worker wrote before it left.

    Attributes:
        rank: Its number.
        message, mend, exit_code: As they would have been shown.
        kind: "lost" where it left because another one had.
        moment: When, in nanoseconds.
    """

    rank: int
    message: str
    mend: str | None
    exit_code: int
    kind: str
    moment: int


def record_failure(message: str, mend: str | None, exit_code: int, error: BaseException) -> bool:
    """Write down why this process leaves, if the one that started it will tell.

    Returns:
        Whether it will; else the caller shows the failure itself.
    """
    folder = os.environ.get(_FAILURES)
    place = find_place()
    if folder is None or "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    kind = _LOST if isinstance(error, LostProcess) else type(error).__name__
    failure = Failure(place.rank, message, mend, exit_code, kind, time.time_ns())
    try:
        Path(folder, f"{place.rank}.json").write_text(json.dumps(vars(failure)), encoding="utf-8")
    except OSError:
        return False
    return True


def read_failures(folder: Path) -> list[Failure]:
    """Return what workers wrote, first failure first."""
    found = [Failure(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    return sorted(found, key=lambda failure: failure.moment)


def explain(exits: Mapping[int, tuple[int, int]], told: Sequence[Failure], nodes: int = 1) -> BaseException:
    """Find the cause among the failures of workers: an error, else a kill, else a signal that all got.

    Args:
        exits: Exit code (negative: the signal that killed it) and process id of each worker that failed, by rank.
        told: What workers wrote, first failure first.
        nodes: How many machines there are.
    """
    consequences = (_LOST, Terminated.__name__, KeyboardInterrupt.__name__)
    for failure in told:
        if failure.kind not in consequences:
            return WorkerFailure(failure.message, failure.mend, failure.exit_code)
    for rank, (code, pid) in exits.items():
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            what = f"worker {rank} (process {pid}) was killed by {name}; the others were stopped."
            return MachineError(what, f"{_GO_ON} A kill by nobody is often the machine's, for lack of memory.")
    kinds = [failure.kind for failure in told]
    if KeyboardInterrupt.__name__ in kinds:
        return KeyboardInterrupt()
    if Terminated.__name__ in kinds:
        return Terminated()
    if told:
        where = " on another machine" if nodes > 1 else ""
        return WorkerFailure(f"another process of this work ended{where}; this one stopped.", _GO_ON, 4)
    rank, (code, pid) = next(iter(exits.items()))
    return MachineError(f"worker {rank} (process {pid}) left with exit code {code} and no word.", _GO_ON)


@contextmanager
def open_group(device: "torch.device | str") -> Iterator["Group"]:
    """Join the other processes, where there are any: gradients over NCCL on GPUs, all else over gloo.

    Raises:
        LostProcess: Another process has left.
    """
    from ovseg_cli.core.training.group import ONE, Group

    place = find_place()
    if place.world_size == 1:
        yield ONE
        return
    import torch
    from torch import distributed

    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    launcher = os.getppid()
    from datetime import timedelta

    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=PATIENCE_MINUTES)
        )
        yield Group(place.rank, place.world_size, launcher)
        _leave_together(distributed.distributed_c10d._get_default_store(), place.rank, place.world_size)
        distributed.destroy_process_group()
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise LostProcess(f"process {place.rank}: another process has left ({error}).", _GO_ON) from error


def _leave_together(store: Any, rank: int, world_size: int) -> None:
    """Wait until all processes have finished their last call: to gloo one that leaves earlier looks like a lost one.

    The store is the first process's, or its launcher's: the first process leaves last.
    """
    number = next(_groups)
    for word, waits in (("done", True), ("left", rank == 0)):
        key, until = f"ovseg-{number}-{word}", time.monotonic() + LEAVING_SECONDS
        count = int(store.add(key, 1))
        while waits and count < world_size and time.monotonic() < until:
            time.sleep(0.01)
            count = int(store.add(key, 0))
