"""Where the records of a large JSON file lie, so that workers read those of one picture and nobody holds them all.

The file is an object of lists (COCO, PASCAL in Detail). It is parsed record by record; what is kept of each is its
first and last byte.
"""

import json
import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ovseg_cli.core.errors import DataError

_BLANK = re.compile(r"[ \t\n\r]*")


def records(path: Path) -> Iterator[tuple[str, int, int, Any]]:
    """Yield list, first byte, end and contents of each record of each list at the top of a JSON object.

    Each list begins with an entry without bytes and contents, so that empty ones are known, too.
    Names beyond ASCII come as Latin-1 reads their bytes (one letter a byte, so that places are those of the file).

    Raises:
        DataError: The file cannot be read, or is no such JSON.
    """
    try:
        yield from _Scan(_text(path)).lists()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).", "Fetch it again.") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: the file is cut off or no JSON ({error}).", "Fetch it again.") from error


def read_records(path: Path, places: Iterable[tuple[int, int]]) -> list[Any]:
    """Read the records that lie between two bytes each.

    Raises:
        DataError: The file is gone or has changed.
    """
    try:
        with open(path, "rb") as stream:
            found = []
            for start, end in places:
                stream.seek(start)
                found.append(json.loads(stream.read(end - start)))
            return found
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).", "Fetch it again.") from error
    except ValueError as error:
        raise DataError(f"{path}: the file has changed since it was listed.", "Prepare again.") from error


def _text(path: Path) -> str:
    with open(path, "rb") as stream:
        if not stream.seek(0, 2):
            return ""
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return str(data, "latin-1")


class _Scan:
    """A position in a JSON text, which moves on."""

    def __init__(self, text: str):
        self._text, self._at = text, 0
        self._decode = json.JSONDecoder().raw_decode

    def lists(self) -> Iterator[tuple[str, int, int, Any]]:
        """Yield the records of every list; other values are read over."""
        self._expect("{")
        while not self._is("}"):
            key = self._value()[0]
            self._expect(":")
            if self._is("["):
                yield str(key), self._at, self._at, None
                for value, start, end in self._list():
                    yield str(key), start, end, value
            else:
                self._value()
            self._comma("}")

    def _list(self) -> Iterator[tuple[Any, int, int]]:
        self._expect("[")
        while not self._is("]"):
            yield self._value()
            self._comma("]")
        self._expect("]")

    def _value(self) -> tuple[Any, int, int]:
        start = self._skip()
        value, self._at = self._decode(self._text, start)
        return value, start, self._at

    def _skip(self) -> int:
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _is(self, sign: str) -> bool:
        return self._text.startswith(sign, self._skip())

    def _expect(self, sign: str) -> None:
        if not self._is(sign):
            raise json.JSONDecodeError(f"Expecting '{sign}'", self._text, self._at)
        self._at += 1

    def _comma(self, end: str) -> None:
        """Go over a comma; before the end there is none."""
        if not self._is(end):
            self._expect(",")
