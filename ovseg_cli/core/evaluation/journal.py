"""How does an interrupted evaluation continue where it was? Records of finished pictures, appended to a file.

The first line says what is being evaluated; each further line holds the record of one picture, or seconds spent.
`Journal` keeps counts under every readout; `PictureJournal` is what journals of other records share. A line cut off by
a kill is dropped, and a journal of another evaluation is begun anew. Of several processes each appends to a file of its
own; the main one takes all of them in when the evaluation continues, with whatever number of processes.
"""

import glob
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Generic, Self, TypeVar

import numpy as np

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.files import explain_os_error, make_folder, write_text

_SCHEMA = 1
R = TypeVar("R")


class PictureJournal(ABC, Generic[R]):
    """The finished part of an evaluation; a context manager that holds the file open.

    Args:
        path: The file, or None to remember nothing.
        key: Digest of what is evaluated: data, weights, vocabulary, protocols.
        rank: Number of the process; the main one, 0, reads what was finished before.
    """

    def __init__(self, path: Path | None, key: str, rank: int = 0):
        self.path = part_of(path, rank) if path else None
        self.is_main = rank == 0
        self.counts: dict[str, R] = {}
        self.timing: dict[str, float] = {}
        self._stream: IO[str] | None = None
        self._head = json.dumps({"schema": _SCHEMA, "kind": "ovseg-evaluation-journal", "key": key})

    @abstractmethod
    def to_plain(self, record: R) -> Any:
        """Return a record as JSON values."""

    @abstractmethod
    def of_plain(self, plain: Any) -> R:
        """Build a record from JSON values."""

    def __enter__(self) -> Self:
        if self.path is None:
            return self
        make_folder(self.path.parent)
        others = _other_parts(self.path) if self.is_main else []
        lines = [line for path in (self.path, *others) for line in self._whole_lines(path)] if self.is_main else []
        for line in lines:
            self._take(json.loads(line))
        write_text(self.path, "\n".join([self._head, *lines, ""]))
        for path in others:
            path.unlink(missing_ok=True)
        try:
            self._stream = open(self.path, "a", encoding="utf-8")
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def add(self, name: str, record: R) -> None:
        """Remember the record of one picture."""
        self.counts[name] = record
        self._write({"image": name, "counts": self.to_plain(record)})

    def spend(self, timing: Mapping[str, float]) -> None:
        """Add seconds spent, by stage."""
        self._spend(timing)
        self._write({"timing": dict(timing)})

    def take_in(self, parts: Sequence[tuple[dict[str, R], dict[str, float]]]) -> None:
        """Know what all processes have counted and spent; each remembers its own in its own file."""
        self.counts = {name: counts for counted, _ in parts for name, counts in counted.items()}
        self.timing = {}
        for _, timing in parts:
            self._spend(timing)

    def _spend(self, timing: Mapping[str, float]) -> None:
        for stage, seconds in timing.items():
            self.timing[stage] = self.timing.get(stage, 0.0) + seconds

    def _write(self, entry: dict[str, Any]) -> None:
        if self._stream is None or self.path is None:
            return
        try:
            self._stream.write(json.dumps(entry) + "\n")
            self._stream.flush()
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def _whole_lines(self, path: Path) -> list[str]:
        """Return the lines of an earlier journal of the same evaluation, without one that was cut off."""
        if not path.exists():
            return []
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error}).", "Delete it to evaluate from the start.") from error
        head, *lines = text.split("\n")[:-1] or [""]
        return [line for line in lines if _is_whole(line)] if head == self._head else []

    def _take(self, entry: dict[str, Any]) -> None:
        if "image" in entry:
            self.counts[entry["image"]] = self.of_plain(entry["counts"])
        self._spend(entry.get("timing", {}))


class Journal(PictureJournal[dict[str, Counts]]):
    """The counts of finished pictures, by readout; of K classes."""

    def __init__(self, path: Path | None, key: str, num_classes: int, rank: int = 0):
        super().__init__(path, key, rank)
        self.num_classes = num_classes

    def to_plain(self, record: Mapping[str, Counts]) -> dict[str, list[list[int]]]:
        """Return cells and pixels by readout."""
        return {name: [counts.cells.tolist(), counts.pixels.tolist()] for name, counts in record.items()}

    def of_plain(self, plain: Any) -> dict[str, Counts]:
        """Build counts from cells and pixels."""
        pairs = {name: [np.array(part, dtype=np.int64) for part in pair] for name, pair in plain.items()}
        return {name: Counts(cells, pixels, self.num_classes) for name, (cells, pixels) in pairs.items()}


def part_of(path: Path, rank: int) -> Path:
    """Return the file of one process: the journal's own for the main one."""
    return path if rank == 0 else path.with_name(f"{path.stem}.{rank}{path.suffix}")


def _other_parts(path: Path) -> list[Path]:
    pattern = f"{glob.escape(path.stem)}.*{path.suffix}"
    return sorted(p for p in path.parent.glob(pattern) if p.name[len(path.stem) + 1 : -len(path.suffix)].isdecimal())


def remove_journal(path: Path) -> None:
    """Delete a journal, the files of all processes with it."""
    for part in (path, *_other_parts(path)):
        part.unlink(missing_ok=True)


def _is_whole(line: str) -> bool:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return False
    return isinstance(entry, dict) and ("timing" in entry or {"image", "counts"} <= entry.keys())
