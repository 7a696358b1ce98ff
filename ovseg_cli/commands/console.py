"""The only code that prints: tables and panels (rich), progress (tqdm), errors.

Data goes to stdout, progress and messages to stderr. Without a terminal there are no ANSI codes, and progress becomes
plain lines. `NO_COLOR` is honoured by rich; tqdm draws no colours.
"""

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
debug = False
errors_as_json = False
KINDS = {2: "usage", 3: "data", 4: "environment", 5: "bound", 130: "interrupted", 143: "terminated"}
PLAIN_WIDTH = 200  # of tables where there is no terminal at all
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
    console = Console(
        file=stream if is_terminal else cast(IO[str], _Stripped(stream)),
        width=_asked_width() or (None if is_terminal else _terminal_width() or PLAIN_WIDTH),
        force_terminal=is_terminal,
        highlight=False,
        soft_wrap=not is_terminal,
    )
    console.on_broken_pipe = _pass_on_broken_pipe  # type: ignore[method-assign]
    return console


def _pass_on_broken_pipe() -> None:
    """Let `app` answer it: rich would exit with 1, as if a reader that left early were a failure."""
    raise BrokenPipeError


class _Stripped:
    """A stream that leaves out the blanks with which lines are padded."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write without blanks at the ends of lines."""
        self._stream.write(re.sub(r"[ \t]+(?=\n|$)", "", text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _asked_width() -> int | None:
    """Width that the environment asks for."""
    text = os.environ.get("COLUMNS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _terminal_width() -> int | None:
    """Width of the terminal that a piped command runs in; None where there is none, as in CI."""
    try:
        if sys.stderr.isatty():
            return os.get_terminal_size(sys.stderr.fileno()).columns or None
        with open("/dev/tty") as terminal:
            return os.get_terminal_size(terminal.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def show_failure(title: str, message: str, mend: str | None = None, code: int = 1) -> None:
    """Show what, where, why and the mend on stderr.

    A red panel on a terminal, plain lines elsewhere; under `--json` one JSON line.
    """
    if errors_as_json:
        failure = {"kind": KINDS.get(code, "unexpected"), "message": message, "mend": mend, "exit_code": code}
        sys.stderr.write(json.dumps({"schema": 1, "error": failure}, ensure_ascii=False) + "\n")
        return
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
        self._tracks: list[_Track] = []

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Yield the items while showing progress under the name `what`."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        track = _Bar(what, total) if sys.stderr.isatty() else _Lines(what, total)
        self._tracks.append(track)
        try:
            yield from track.over(items)
        finally:
            self._tracks.remove(track)

    def note(self, text: str) -> None:
        """Show a few words beside the innermost progress."""
        if self._tracks:
            self._tracks[-1].note(text)

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


class _Track:
    """Progress of one piece of work, with a few words beside it."""

    def __init__(self, what: str, total: int | None):
        self.what, self.total, self.words = what, total, ""

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, showing how far one is."""
        raise NotImplementedError

    def note(self, text: str) -> None:
        """Show these words from the next time on that the progress is drawn."""
        self.words = text


class _Bar(_Track):
    """A bar of tqdm's, on a terminal."""

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, drawing the bar."""
        from tqdm import tqdm

        self.bar = tqdm(items, desc=self.what, total=self.total, file=sys.stderr, leave=False, dynamic_ncols=True)
        yield from self.bar

    def note(self, text: str) -> None:
        """Hand the words to the bar."""
        self.bar.set_postfix_str(text, refresh=False)


class _Lines(_Track):
    """A plain line every few seconds, where there is no terminal."""

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, printing lines."""
        start = last = time.monotonic()
        count = 0
        for item in items:
            yield item
            count += 1
            if (moment := time.monotonic()) - last >= LINE_EVERY_SECONDS:
                last = moment
                words = f", {self.words}" if self.words else ""
                say(_progress_line(self.what, count, self.total, moment - start) + words)
        say(_progress_line(self.what, count, None, time.monotonic() - start) + ", done")


def _progress_line(what: str, count: int, total: int | None, seconds: float) -> str:
    rate = count / max(seconds, 1e-9)
    if not total:
        return f"{what}: {count} in {seconds:.1f} s"
    left = (total - count) / rate if rate else 0.0
    return f"{what}: {count}/{total} ({100 * count / total:.0f} %), {rate:.1f}/s, {left:.0f} s left"
