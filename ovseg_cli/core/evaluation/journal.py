"""How does an interrupted evaluation continue where it was? Counts of finished pictures, appended to a file.

The first line says what is being evaluated; each further line holds the counts of one picture under every readout, or
seconds spent. A line cut off by a kill is dropped, and a journal of another evaluation is begun anew.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.files import explain_os_error, make_folder, write_text

_SCHEMA = 1


class Journal:
    """The finished part of an evaluation; a context manager that holds the file open.

    Args:
        path: The file, or None to remember nothing.
        key: Digest of what is evaluated: data, weights, vocabulary, protocols.
        num_classes: K.
    """

    def __init__(self, path: Path | None, key: str, num_classes: int):
        self.path, self.num_classes = path, num_classes
        self.counts: dict[str, dict[str, Counts]] = {}
        self.timing: dict[str, float] = {}
        self._stream: IO[str] | None = None
        self._head = json.dumps({"schema": _SCHEMA, "kind": "ovseg-evaluation-journal", "key": key})

    def __enter__(self) -> "Journal":
        if self.path is None:
            return self
        lines = self._whole_lines()
        for line in lines:
            self._take(json.loads(line))
        make_folder(self.path.parent)
        write_text(self.path, "\n".join([self._head, *lines, ""]))
        try:
            self._stream = open(self.path, "a", encoding="utf-8")
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def add(self, name: str, counts: Mapping[str, Counts]) -> None:
        """Remember the counts of one picture, by readout."""
        self.counts[name] = dict(counts)
        self._write({"image": name, "counts": {k: [c.cells.tolist(), c.pixels.tolist()] for k, c in counts.items()}})

    def spend(self, timing: Mapping[str, float]) -> None:
        """Add seconds spent, by stage."""
        for stage, seconds in timing.items():
            self.timing[stage] = self.timing.get(stage, 0.0) + seconds
        self._write({"timing": dict(timing)})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._stream is None or self.path is None:
            return
        try:
            self._stream.write(json.dumps(entry) + "\n")
            self._stream.flush()
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def _whole_lines(self) -> list[str]:
        """Return the lines of an earlier journal of the same evaluation, without one that was cut off."""
        if self.path is None or not self.path.exists():
            return []
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be read ({error}).", "Delete it to evaluate from the start."
            ) from error
        head, *lines = text.split("\n")[:-1] or [""]
        return [line for line in lines if _is_whole(line)] if head == self._head else []

    def _take(self, entry: dict[str, Any]) -> None:
        if "image" in entry:
            pairs = {k: [np.array(part, dtype=np.int64) for part in pair] for k, pair in entry["counts"].items()}
            self.counts[entry["image"]] = {k: Counts(c, p, self.num_classes) for k, (c, p) in pairs.items()}
        for stage, seconds in entry.get("timing", {}).items():
            self.timing[stage] = self.timing.get(stage, 0.0) + seconds


def _is_whole(line: str) -> bool:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return False
    return isinstance(entry, dict) and ("timing" in entry or {"image", "counts"} <= entry.keys())
