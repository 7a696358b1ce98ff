"""How many files are worked on at once: a bounded, ordered map over processes that stops cleanly."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Protocol, TypeVar

from ovseg_cli.core.errors import MachineError

T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)

CHUNK = 16
PATIENCE = 2.0
"""Seconds of work in this process before others are started, which takes about as long."""
_WORTH_IT = 4  # processes are started if the rest would take this many times PATIENCE
_LEFT_TO_THE_PARENT = (signal.SIGINT, signal.SIGTERM)


class Many(Protocol[T_co]):
    """What can be counted and gone through."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


def ordered_map(function: Callable[[T], R], items: Many[T], workers: int = 1, chunk: int = CHUNK) -> Iterator[R]:
    """Yield `function(item)` for each item, in order, at most a few chunks ahead of the reader.

    Work begins in this process; if that shows that much is left, other processes take over.

    Args:
        function: Picklable where workers > 1.
        items: What to work on; it is counted, and gone through once.
        workers: Processes; with 1 everything happens in this one.
        chunk: Items that a process takes at once; an interruption waits for those that are begun.

    Raises:
        MachineError: A worker died, for instance for lack of memory.
    """
    started, left = time.monotonic(), iter(items)
    for done, item in enumerate(left):
        elapsed = time.monotonic() - started
        if workers > 1 and elapsed >= PATIENCE and elapsed * (len(items) - done) > _WORTH_IT * PATIENCE * done:
            yield from _in_processes(function, itertools.chain([item], left), workers, chunk)
            return
        yield function(item)


def _in_processes(function: Callable[[T], R], items: Iterable[T], workers: int, size: int) -> Iterator[R]:
    # "spawn", because a forked copy of a process that has started torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_the_parent)
    pending: deque[Future[list[R]]] = deque()
    try:
        for chunk in _chunks(items, size):
            with _signals_held():
                pending.append(pool.submit(_apply, function, chunk))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise MachineError(
            "a worker process died, which is often a lack of memory.", "Run it again with --workers 1; it goes on."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _apply(function: Callable[[T], R], chunk: list[T]) -> list[R]:
    return [function(item) for item in chunk]


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM while a process is started, which inherits that until it ignores them itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_the_parent() -> None:
    """In a worker: leave signals to the parent, and end when it ends, however it does."""
    for number in _LEFT_TO_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEFT_TO_THE_PARENT)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
