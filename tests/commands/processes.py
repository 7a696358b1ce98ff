"""`ovseg …` as a process of its own that can be killed, forked from this one: torch is imported once for all."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

START = [sys.executable, "-m", "ovseg_cli.app"]
"""How a real one is started."""


class Forked:
    """A process in a session of its own, with the part of Popen's manners that tests need.

    Args:
        arguments: What is typed after `ovseg`.
        folder: Where; None stays here.
        environment: Variables that are set beside those of this process.

    Attributes:
        pid: Its id, also that of its group.
        returncode: As Popen's: None while it runs, negative for the signal that killed it.
    """

    def __init__(self, arguments: list[str], folder: Path | None = None, environment: dict[str, str] | None = None):
        self.returncode: int | None = None
        self._streams = [tempfile.TemporaryFile() for _ in range(2)]
        self.pid = os.fork()
        if self.pid == 0:
            self._become(arguments, folder, environment or {})

    def _become(self, arguments: list[str], folder: Path | None, environment: dict[str, str]) -> None:
        code = 1
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(folder or ".")
            os.environ.update(environment)
            for number, stream in enumerate(self._streams, 1):
                os.dup2(stream.fileno(), number)
            sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
            sys.argv = ["ovseg", *arguments]
            code = _exit_code_of_the_program()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode

    def communicate(self, timeout: float = 240) -> tuple[str, str]:
        """Wait for its end; return what it wrote to stdout and stderr."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the process did not end: {self._told()}")
            time.sleep(0.01)
        return self._told()

    def _told(self) -> tuple[str, str]:
        texts = []
        for stream in self._streams:
            stream.seek(0)
            texts.append(stream.read().decode())
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Send a signal to it, where it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and wait until it is gone."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.communicate()


def _exit_code_of_the_program() -> int:
    import torch

    from ovseg_cli import app

    torch.set_num_threads(1)
    try:
        app.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _in_place_of_popen(command: list[str], env: dict[str, str], **_: Any) -> Forked:
    assert command[:3] == START, "what is started is the program itself"
    return Forked(command[3:], environment=env)


forking = SimpleNamespace(Popen=_in_place_of_popen, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
"""In place of `subprocess`, for code that starts the program through `Popen`."""
