"""Real processes for tests, forked from this one: torch is imported once, and each can be killed."""

import os
import signal
import socket
import time
import traceback
from pathlib import Path

from ovseg_cli.core.errors import OvsegError, Terminated

CODES = {"KeyboardInterrupt": 130, "Terminated": 143}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(act, processes=1, output=None):
    """Fork processes that see a launcher's environment and call `act()`; returns their ids, by rank.

    Each leaves with the code that the command line would give, and writes an error's words to `output`, if given.
    """
    port = free_port()
    return [_fork(act, rank, processes, port, output) for rank in range(processes)]


def _fork(act, rank, processes, port, output):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGTERM, _terminated)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if processes > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            os.environ.update({name: str(value) for name, value in place.items()})
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        act()
        code = 0
    except OvsegError as error:
        code = error.exit_code
        if output is not None:
            Path(output, f"error-{rank}").write_text(f"{type(error).__name__}: {error}")
    except BaseException as error:
        code = CODES.get(type(error).__name__, 1)
        if code == 1:
            traceback.print_exc()
    finally:
        os._exit(code)


def _terminated(number, frame):
    raise Terminated


def codes(children, seconds=60):
    """Wait for processes and return their exit codes, negative for the signal that killed one."""
    found, deadline = {}, time.monotonic() + seconds
    while len(found) < len(children) and time.monotonic() < deadline:
        for child in children:
            if child not in found and (status := os.waitpid(child, os.WNOHANG)) != (0, 0):
                found[child] = os.waitstatus_to_exitcode(status[1])
        time.sleep(0.01)
    for child in set(children) - set(found):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError(f"process {children.index(child)} did not end")
    return [found[child] for child in children]


def wait_until(happened, seconds=120):
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
