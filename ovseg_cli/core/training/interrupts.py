"""How a signal waits until a training step is whole: it sets a flag, and the loop stops between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ovseg_cli.core.errors import Terminated


class StopRequest:
    """Remembers that somebody asked to stop, and how."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __bool__(self) -> bool:
        return self.received is not None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one waits for the step's end, a second one does not."""
        if self.received is not None:
            self.leave(number)
        self.received = number

    def leave(self, number: int | None = None) -> None:
        """Raise what the signal means: KeyboardInterrupt or Terminated."""
        number = number or self.received
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated


@contextmanager
def stop_between_steps() -> Iterator[StopRequest]:
    """While the block runs, SIGINT and SIGTERM only set a flag; afterwards the old handlers are back.

    Outside the main thread, where Python allows no handlers and delivers no signals, the flag is never set.
    """
    request = StopRequest()
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
