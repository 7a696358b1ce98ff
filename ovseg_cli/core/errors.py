"""What can go wrong and what the user is told: one sentence, the command that mends it, an exit code.

Lower layers raise an `OvsegError` child; only `app.py` prints it. This module imports nothing heavy.
"""

import difflib
from collections.abc import Iterable


class OvsegError(Exception):
    """A failure that the user can understand and mend.

    Args:
        message: What, where and why, in one sentence.
        mend: The command or the step that mends it, or None where there is none.
    """

    exit_code = 1

    def __init__(self, message: str, mend: str | None = None):
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return self.message if not self.mend else f"{self.message} {self.mend}"


class UsageError(OvsegError):
    """Wrong usage or a wrong input value (a name, an option, a picture, a spec, a config)."""

    exit_code = 2


class DataError(OvsegError):
    """A data set is missing or broken."""

    exit_code = 3


class MachineError(OvsegError):
    """The machine lacks something: a device, weights, the network, disk space, a writable folder."""

    exit_code = 4


class BoundMissed(OvsegError):
    """A `--fail-under` bound was missed."""

    exit_code = 5


class ShapeError(UsageError):
    """Two tensors do not fit together; the message holds both shapes."""


class Terminated(BaseException):
    """SIGTERM arrived: save, then leave with exit code 143. A BaseException, so that no handler swallows it."""

    exit_code = 143


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like `name`, or None if none is near."""
    by_lower = {k.lower(): k for k in known}
    hits = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[hits[0]] if hits else None


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UsageError:
    """Build the error for a name that does not exist, offering the nearest known one.

    Args:
        kind: What the name should have named, for instance "data set".
        name: The name as typed.
        known: All names that exist.
        where: Prefix that says where the name stood ("specs/a.toml: "), may be empty.
    """
    known = list(known)
    hit = nearest(name, known)
    hint = f"Did you mean '{hit}'?" if hit else f"Known: {', '.join(sorted(known)) or 'none'}."
    return UsageError(f"{where}unknown {kind} '{name}'.", hint)
