"""How the core tells somebody what it is doing without knowing a terminal.

The command line passes a reporter that draws bars and prints to stderr; notebooks and tests get silence.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Reporter(Protocol):
    """Receives progress and messages."""

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Yield the items while showing progress under the name `what`."""

    def note(self, text: str) -> None:
        """Show a few words beside the progress of the innermost `track`, in place of the ones before."""

    def say(self, message: str) -> None:
        """Tell something worth knowing, once."""

    def warn(self, message: str) -> None:
        """Tell something that may be a mistake."""


class Silent:
    """A reporter that says nothing; warnings are kept in `warnings`."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Yield the items."""
        yield from items

    def note(self, text: str) -> None:
        """Show nothing."""

    def say(self, message: str) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Keep the warning."""
        self.warnings.append(message)
