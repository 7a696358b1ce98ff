"""The records of a subset as they lie in their file: memory holds where each begins, not what it says.

A data set may have a million pictures, and what is known of one takes some four thousand bytes as an object. Whoever
needs the records goes through them; whoever prepares adds to them.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from ovseg_cli.core.data.index import Entry, entry_of, head_of, index_path, line_of, scan_index
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import atomic_write, explain_os_error


class Entries(Protocol):
    """Records of pictures, which may be many: they can be counted and gone through, in order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Entry]: ...


class Records:
    """The records of one subset, in a file.

    Args:
        path: The file.
        places: Stem → byte at which its record begins, in the order in which they are gone through.
    """

    def __init__(self, path: Path, places: dict[str, int] | None = None):
        self.path = path
        self._places = places if places is not None else {}

    def __len__(self) -> int:
        """How many."""
        return len(self._places)

    def __contains__(self, stem: object) -> bool:
        """Whether a picture has a record."""
        return stem in self._places

    def __iter__(self) -> Iterator[Entry]:
        """Read one after the other."""
        if not self._places:
            return
        with open(self.path, "rb") as stream:
            for place in self._places.values():
                stream.seek(place)
                yield _entry(stream, self.path)

    def only(self, stems: Iterable[str]) -> "Records":
        """Return the records of some pictures, in their order; pictures without a record are left out."""
        return Records(self.path, {stem: self._places[stem] for stem in stems if stem in self._places})

    @contextlib.contextmanager
    def adding(self) -> Iterator[Callable[[Entry], None]]:
        """Give what adds a finished picture at once, so that nothing is done twice after an interruption."""
        try:
            with open(self.path, "ab") as stream:
                yield lambda entry: self._add(stream, entry)
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def _add(self, stream: BinaryIO, entry: Entry) -> None:
        place = stream.tell()
        stream.write(line_of(entry))
        stream.flush()
        self._places[entry.stem] = place


def _entry(stream: BinaryIO, path: Path) -> Entry:
    line = stream.readline()
    try:
        return entry_of(line)
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: the index is damaged ({error}).", "Remove it and prepare again.")


def read_records(root: Path, subset: str, key: str | None = None) -> Records:
    """Find the records of a subset; later ones replace earlier ones. See `scan_index` for `key` and errors."""
    path = index_path(root, subset)
    try:
        return Records(path, {str(record["stem"]): at for at, record in scan_index(root, subset, key)})
    except (KeyError, TypeError) as error:  # a line of JSON that is no record
        raise _damaged(path, error) from error


def write_records(path: Path, entries: Iterable[Entry], key: str) -> Records:
    """Write records in their order, whole or not at all; they may come from the very file that is replaced."""
    places: dict[str, int] = {}
    with atomic_write(path, "wb") as stream:
        stream.write(head_of(key))
        for entry in entries:
            places[entry.stem] = stream.tell()
            stream.write(line_of(entry))
    return Records(path, places)
