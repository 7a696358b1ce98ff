"""How a file comes over a network that fails: in parts, from where the last one ended, with patience that ends.

A part is gone on with only if the server says that the file is still the one the part belongs to (If-Range, and the
same number of bytes); a server that cannot is asked for all of it. Waiting grows from try to try, and every byte that
is new starts the count again, so that a bad connection is slow and a dead one ends.
"""

import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg_cli.core.data.http_open import Dropped, RangeRefused, describe, open_address
from ovseg_cli.core.data.http_part import Notes, Part
from ovseg_cli.core.data.upkeep import require_space
from ovseg_cli.core.errors import MachineError, Terminated
from ovseg_cli.core.files import explain_os_error
from ovseg_cli.core.reporter import Reporter

WAITS = (1.0, 3.0, 10.0, 30.0)
"""Seconds before the second, third … try; after the last one it is given up."""

_MB = 1_000_000
_BLOCK = 1 << 18
_PAGE = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Wanted:
    """A file to fetch.

    Attributes:
        address: Where it lies, http or https.
        target: The file it becomes; its folder is made.
        mend: What a user can do where the server refuses for good.
        size: Bytes that it must have; None where nobody says.
        is_checked: A published checksum is compared afterwards, so a part from another address may be gone on with.
    """

    address: str
    target: Path
    mend: str
    size: int | None = None
    is_checked: bool = False


def fetch(wanted: Wanted, reporter: Reporter, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Fetch a file into FILE.part; who calls gives it its name after looking at it.

    Returns:
        Whether the bytes come from one single answer; else they were put together, and a checksum that is wrong may
        mean no more than that.

    Raises:
        MachineError: The server refuses, the network fails too often, or the disk refuses. The part stays.
    """
    part = Part(wanted.target)
    best, tries, in_one = part.size, 0, not part.size
    try:
        while True:
            try:
                _attempt(wanted, part, reporter)
                return in_one
            except Dropped as drop:
                have, in_one = part.size, False
                tries = 1 if have > best else tries + 1
                best = max(best, have)
                _wait(wanted, drop, have, tries, reporter, sleep)
    except (KeyboardInterrupt, Terminated) as stop:
        if have := part.size:
            name = wanted.target.name
            stop.add_note(f"{amount(have)} of {name} are kept in {part.path}; the same command goes on from there.")
        raise


def _wait(
    wanted: Wanted, drop: Dropped, have: int, tries: int, reporter: Reporter, sleep: Callable[[float], None]
) -> None:
    """Wait before the next try, or give up."""
    most = min(drop.tries or len(WAITS) + 1, len(WAITS) + 1)
    if tries >= most:
        kept = f" {amount(have)} are kept; the same command goes on from there." if have else ""
        raise MachineError(f"{wanted.address}: {drop.why}, {tries} times in a row.", f"{wanted.mend}{kept}")
    seconds = WAITS[tries - 1] if drop.wait is None else drop.wait
    what = f"{wanted.target.name}: {drop.why} at {amount(have)}"
    reporter.say(f"{what}; trying again in {seconds:.0f} s (try {tries + 1} of {most}).")
    sleep(seconds)


def _attempt(wanted: Wanted, part: Part, reporter: Reporter) -> None:
    """Fetch what is missing, or all of it, in one answer of the server."""
    have, notes = part.size, part.notes()
    if have and not _may_go_on(wanted, notes, have):
        part.remove()
        have, notes = 0, None
    if have and notes and have == (notes.total or wanted.size):
        return
    headers: dict[str, str] = {}
    if have and notes:
        headers["Range"] = f"bytes={have}-"
        if notes.version and notes.address == wanted.address:
            headers["If-Range"] = notes.version
    try:
        response = open_address(wanted.address, headers, wanted.mend)
    except RangeRefused as refused:
        if have and refused.total == have and (notes is None or notes.total in (None, have)):
            return
        part.remove()
        raise Dropped("the server refuses to go on, so it begins anew") from refused
    with response:
        _take(wanted, part, response, have, notes, reporter)


def _may_go_on(wanted: Wanted, notes: Notes | None, have: int) -> bool:
    """Whether the part can belong to the file that is wanted."""
    if notes is None or have > (wanted.size or notes.total or have):
        return False
    return notes.address == wanted.address or wanted.is_checked


def _take(wanted: Wanted, part: Part, response: Any, have: int, notes: Notes | None, reporter: Reporter) -> None:
    """Write what an answer holds behind what is there."""
    start, total = _extent(response, have)
    if start and (start != have or (notes and notes.total and total and notes.total != total)):
        part.remove()
        raise Dropped("the server goes on with another file, so it begins anew")
    _refuse_page(wanted, response.headers.get_content_type() == "text/html")
    if wanted.size and total and total != wanted.size:
        what = f"the server offers {total:,} bytes, the file of this data set has {wanted.size:,}"
        raise MachineError(f"{wanted.address}: {what}.", wanted.mend)
    if not start:
        if have:
            reporter.say(f"{wanted.target.name}: the server cannot go on where it stopped, so it begins anew.")
        part.begin(Notes(wanted.address, _version(response), total))
    total = total or wanted.size
    require_space(part.path.parent, (total or start) - start, f"fetching {wanted.target.name}")
    what = f"fetch {wanted.target.name} (MB{f' from {start // _MB:,}' if start else ''})"
    left = -(-(total - start) // _MB) if total else None
    for _ in reporter.track(_write(wanted, part, response, start, total), what, total=left):
        pass


def _write(wanted: Wanted, part: Part, response: Any, start: int, total: int | None) -> Iterator[None]:
    """Write the bytes of an answer, yielding once for each million of them."""
    at = start
    try:
        stream = open(part.path, "rb+" if start else "wb")
    except OSError as error:
        raise explain_os_error(error, part.path) from error
    with stream:
        stream.seek(start)
        while block := _read(response):
            if not at:
                _refuse_page(wanted, block.lstrip()[:14].lower().startswith(_PAGE))
            at += len(block)
            if wanted.size and at > wanted.size:
                part.remove()
                raise MachineError(f"{wanted.address}: more than the {wanted.size:,} bytes of it come.", wanted.mend)
            try:
                stream.write(block)
                stream.flush()
            except OSError as error:
                raise explain_os_error(error, part.path) from error
            yield from [None] * ((at - start) // _MB - (at - start - len(block)) // _MB)
    if total is not None and at < total:
        raise Dropped("the connection was cut")
    if (at - start) % _MB:
        yield None


def _read(response: Any) -> bytes:
    try:
        return response.read1(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise Dropped(describe(error)) from error


def _refuse_page(wanted: Wanted, is_page: bool) -> None:
    """Refuse a web page that comes instead of the file."""
    if is_page and wanted.target.suffix.lower() not in (".html", ".htm"):
        what = f"the server answers with a web page instead of {wanted.target.name}, perhaps one to log in or to agree"
        raise MachineError(f"{wanted.address}: {what}.", wanted.mend)


def _extent(response: Any, have: int) -> tuple[int, int | None]:
    """Return the first byte that comes (-1 where a range makes no sense), and the bytes of the whole file."""
    length = response.headers.get("Content-Length") or ""
    if response.status == 200:
        return 0, int(length) if length.isdigit() else None
    span, _, whole = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    start = int(first) if first.isdigit() else -1
    return start if have and start == have else -1, int(whole) if whole.isdigit() else None


def _version(response: Any) -> str | None:
    """What the server calls this version of the file: its strong ETag, else its date."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def amount(count: int) -> str:
    """Bytes in words: MB or GB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
