"""The only code that prints: tables and panels (rich), progress (tqdm), errors.

Data goes to stdout, progress and messages to stderr. Without a terminal there are no ANSI codes, and progress becomes
plain lines. `NO_COLOR` is honoured by rich; tqdm draws no colours.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TypeVar

from ovseg_cli.core.errors import OvsegError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
debug = False
PLAIN_WIDTH = 200
LINE_EVERY_SECONDS = 10.0


def stdout() -> "Console":
    """Console for data."""
    return _console(sys.stdout)


def stderr() -> "Console":
    """Console for messages."""
    return _console(sys.stderr)


def _console(stream: Any) -> "Console":
    from rich.console import Console

    is_terminal = hasattr(stream, "isatty") and stream.isatty()
    width = None if is_terminal or os.environ.get("COLUMNS") else PLAIN_WIDTH
    return Console(file=stream, width=width, force_terminal=is_terminal, highlight=False, soft_wrap=not is_terminal)


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def print_error(error: OvsegError) -> None:
    """Show what, where, why and the mend: a red panel on a terminal, plain lines elsewhere."""
    show_failure("Error", error.message, error.mend)


def show_failure(title: str, message: str, mend: str | None = None) -> None:
    """Show a failure on stderr."""
    if not sys.stderr.isatty():
        sys.stderr.write(f"{title.lower()}: {message}\n" + (f"  {mend}\n" if mend else ""))
        return
    from rich.panel import Panel
    from rich.text import Text

    body = Text(message)
    if mend:
        body.append(f"\n{mend}", style="bold")
    stderr().print(Panel(body, title=title, title_align="left", border_style="red"))


def say(message: str) -> None:
    """Print a message to stderr, past any progress bar."""
    _write_past_bars(message)


def _write_past_bars(line: str) -> None:
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        sys.stderr.write(line + "\n")


class TerminalReporter:
    """Draws bars on a terminal and prints a plain line every few seconds elsewhere; says nothing twice."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Yield the items while showing progress under the name `what`."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        if sys.stderr.isatty():
            from tqdm import tqdm

            yield from tqdm(items, desc=what, total=total, file=sys.stderr, leave=False, dynamic_ncols=True)
        else:
            yield from _plain_progress(items, what, total)

    def say(self, message: str) -> None:
        """Print a message, once."""
        self._once(message)

    def warn(self, message: str) -> None:
        """Print a warning, once."""
        self._once(f"warning: {message}")

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            say(line)


def _plain_progress(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    count = 0
    for item in items:
        yield item
        count += 1
        if (moment := time.monotonic()) - last >= LINE_EVERY_SECONDS:
            last = moment
            say(_progress_line(what, count, total, moment - start))
    say(_progress_line(what, count, None, time.monotonic() - start) + ", done")


def _progress_line(what: str, count: int, total: int | None, seconds: float) -> str:
    rate = count / max(seconds, 1e-9)
    if not total:
        return f"{what}: {count} in {seconds:.1f} s"
    left = (total - count) / rate if rate else 0.0
    return f"{what}: {count}/{total} ({100 * count / total:.0f} %), {rate:.1f}/s, {left:.0f} s left"
