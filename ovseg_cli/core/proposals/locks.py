"""Who makes the proposals of which picture, where several processes fill one cache? Locks that die with their holder.

One file, `.lock`, of which each process locks single bytes: the first says that somebody fills the cache, the others
stand for one picture each. The kernel frees what a killed process held, so nothing is ever left to clean up, and the
processes may be workers of one command, ranks of torch's launcher or commands that know nothing of each other.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from ovseg_cli.core.errors import MachineError
from ovseg_cli.core.files import explain_os_error, make_folder

_FILLING, _FIRST_PICTURE = 0, 1


class Locks:
    """The locks of one cache, held by this process; a context manager that closes the file, which frees them all.

    Args:
        folder: Folder of the cache.
    """

    def __init__(self, folder: Path):
        self.path = make_folder(folder) / ".lock"
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def __enter__(self) -> "Locks":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)

    def begin_alone(self) -> bool:
        """Say that this process fills the cache, unless others do already."""
        return self._lock(_FILLING, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def begin(self) -> None:
        """Say that this process fills the cache, perhaps beside others; after `begin_alone` lets others in."""
        self._lock(_FILLING, fcntl.LOCK_SH)

    def require_alone(self, what: str) -> None:
        """Say that this process works on the cache alone.

        Raises:
            MachineError: Another process fills it.
        """
        if not self.begin_alone():
            raise MachineError(
                f"{self.path.parent}: {what} is impossible while another process makes proposals here.",
                "Wait until it has finished, then try again.",
            )

    @contextlib.contextmanager
    def picture(self, index: int, wait: bool = False) -> Iterator[bool]:
        """Hold one picture while the block runs; gives False where another process holds it.

        Args:
            index: Its place in the subset.
            wait: Wait until the other process is done with it, or dead.
        """
        held = self._lock(_FIRST_PICTURE + index, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            yield held
        finally:
            if held:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _FIRST_PICTURE + index)

    def _lock(self, byte: int, operation: int) -> bool:
        try:
            fcntl.lockf(self._file, operation, 1, byte)
        except (BlockingIOError, PermissionError):  # what a lock held elsewhere is called depends on the system
            return False
        except OSError as error:
            raise MachineError(
                f"{self.path}: this file system has no locks ({error.strerror}).", "Choose another --data-root."
            ) from error
        return True
