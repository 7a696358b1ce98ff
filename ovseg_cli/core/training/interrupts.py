"""How a signal waits until a training step is whole: it sets a flag, and the loop stops between two steps."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from ovseg_cli.core.errors import Terminated

_SIGNALS = {"sigterm": signal.SIGTERM, "sigint": signal.SIGINT}


class StopRequest:
    """Remembers that somebody asked to stop, and how; true once all processes have agreed to.

    Attributes:
        received: The first signal that this process got.
        agreed: The signal for which all stop after this step.
    """

    def __init__(self, launcher: int | None = None) -> None:
        self._launcher = launcher
        self.received: int | None = None
        self.agreed: int | None = None
        self._first = 0.0
        self._waits = True

    def __bool__(self) -> bool:
        return self.agreed is not None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: it waits for the step's end, but for a second Ctrl-C, which does not.

        A second SIGTERM waits too: a scheduler and a launcher may both pass one on. So does a second SIGINT at once.
        """
        insists = number == signal.SIGINT and self.received == number and time.monotonic() - self._first > 1.0
        if insists or not self._waits:
            self.leave(number)
        if self.received is None:
            self.received, self._first = number, time.monotonic()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While the block runs, a signal stops it; one that came before stops it before it begins."""
        self.leave_if_asked()
        self._waits = False
        try:
            yield
        finally:
            self._waits = True

    def flags(self) -> dict[str, float]:
        """Return what this process adds to the flags of all; a launcher that is gone cannot send its SIGTERM."""
        if self._launcher is not None and os.getppid() != self._launcher and self.received is None:
            self.received = signal.SIGTERM
        return {name: float(self.received == number) for name, number in _SIGNALS.items()}

    def agree(self, sums: Mapping[str, float]) -> None:
        """Stop after this step if any process was asked to: `sums` has all flags, their names in brackets."""
        self.agreed = next((number for name, number in _SIGNALS.items() if sums[f"({name})"]), None)

    def leave_if_asked(self) -> None:
        """Leave for a signal that this process got, agreed or not."""
        if self.received is not None:
            self.leave(self.received)

    def leave(self, number: int | None = None) -> None:
        """Raise what the signal means: KeyboardInterrupt or Terminated."""
        raise KeyboardInterrupt if (number or self.agreed) == signal.SIGINT else Terminated


@contextmanager
def stop_between_steps(launcher: int | None = None) -> Iterator[StopRequest]:
    """While the block runs, SIGINT and SIGTERM only set a flag; afterwards the old handlers are back.

    Outside the main thread, where Python allows no handlers and delivers no signals, no signal sets it.

    Args:
        launcher: The process that started this one; when it is gone, it is as if SIGTERM had come.
    """
    request = StopRequest(launcher)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals(_worker: int = 0) -> None:
    """Let a loader's worker ignore both signals: a terminal sends them to all, but only the loop decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
