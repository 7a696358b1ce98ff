"""What is recorded of each prepared picture, and how the records are read, written and added up. Imports no torch."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ovseg_cli.core.data.archive import DataFile, locate
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import digest_of

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One prepared picture.

    Attributes:
        stem: Name, unique in its subset.
        image, label: Paths below the data set's folder; label None where the subset has none. An original that is
            neither linked nor copied has its absolute path.
        image_at: Name, offset and size of the picture where `image` is an archive.
        masks, masks_at: The same of the file that holds its masks, for class-agnostic masks.
        height, width: Pixels, as read.
        upright: Whether the picture's EXIF rotation is applied (not where the label was drawn without it).
        image_sha: Hash of the picture's file; of its pixels where it was drawn here; of its beginning and length where
            it stays where it is (`originals.head_hash`).
        label_sha: Hash of the train ids.
        masks_sha: Hash of the beginning and the length of the file that holds its masks.
        pixels: [train id or ignore_label, count] of each value in the label.
        files: Path below the data set's folder → bytes and mtime (ns) of each file written here.
        inputs: Bytes and mtime (ns) of each source file; how a changed source is noticed.
        seen: Class split → fingerprint of the split that its seen-only label was written for.
        caption: Caption, None where there is none.
    """

    stem: str
    image: str
    label: str | None
    height: int
    width: int
    image_sha: str
    label_sha: str | None = None
    upright: bool = True
    pixels: list[list[int]] = field(default_factory=list)
    files: dict[str, list[int]] = field(default_factory=dict)
    inputs: list[list[Any]] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)
    caption: str | None = None
    image_at: list[Any] | None = None
    masks: str | None = None
    masks_at: list[Any] | None = None
    masks_sha: str | None = None

    @property
    def content(self) -> str:
        """What a fingerprint covers: name, size and contents, not times or places."""
        masks = [self.masks_sha] if self.masks_sha else []
        return json.dumps([self.stem, self.height, self.width, self.upright, self.image_sha, self.label_sha, *masks])

    def image_file(self, root: Path) -> DataFile:
        """Where the picture is, for a data set's folder."""
        return locate(root / self.image, self.image_at)

    def masks_file(self, root: Path) -> DataFile | None:
        """Where its masks are, None where there are none."""
        return None if self.masks is None else locate(root / self.masks, self.masks_at)

    def without_label(self) -> "Entry":
        """Return the same picture as if it had no label: neither its place nor anything that was counted in it."""
        return replace(self, label=None, label_sha=None, pixels=[], seen={})


_FIELDS = dict.fromkeys(f.name for f in fields(Entry))


def index_path(root: Path, subset: str) -> Path:
    """File of a subset's records."""
    return root / "index" / f"{subset}.jsonl"


def scan_index(root: Path, subset: str, key: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield where each record of a subset begins in its file, and what it says; nothing where there is no file.

    A last line without its end was cut off by a kill and is left out. With `key`, records that were made under another
    key (another spec, another generator) are left out, too.

    Raises:
        DataError: The file cannot be read, or is damaged.
    """
    path = index_path(root, subset)
    try:
        with open(path, "rb") as stream:
            header = stream.readline()
            if not header.endswith(b"\n"):
                return
            made_under = json.loads(header).get("key")
            if key is not None and made_under != key:
                return
            at = len(header)
            for line in stream:
                if line.endswith(b"\n"):
                    yield at, json.loads(line)
                at += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(
            f"{path}: the index cannot be read ({error}).", f"Prepare again: ovseg prepare {root.name}"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(root, subset, error) from error


def read_index(root: Path, subset: str) -> dict[str, Entry]:
    """Read the records of a subset, stem → entry; later lines replace earlier ones. Raises what `scan_index` does."""
    shared = _Shared()
    try:
        entries = [Entry(**shared.parts(record)) for _, record in scan_index(root, subset)]
    except (TypeError, AttributeError) as error:
        raise _damaged(root, subset, error) from error
    return {entry.stem: entry for entry in entries}


def entry_of(line: bytes) -> Entry:
    """Read one line of an index."""
    return Entry(**_Shared().parts(json.loads(line)))


def line_of(entry: Entry) -> bytes:
    """Return an entry as a line of an index."""
    values = ((name, getattr(entry, name)) for name in _FIELDS)
    record = {name: value for name, value in values if value is not None and value != [] and value != {}}
    record.setdefault("label", None)
    return (json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def head_of(key: str) -> bytes:
    """Return the first line of an index."""
    return (json.dumps({"schema": SCHEMA, "key": key}) + "\n").encode()


def _damaged(root: Path, subset: str, error: Exception) -> DataError:
    what = f"{index_path(root, subset)}: the index is damaged ({error})."
    return DataError(what, f"Remove it and prepare again: ovseg prepare {root.name}")


class _Shared:
    """Lets records of one archive share what they have in common: a data set may have a million of them."""

    def __init__(self) -> None:
        self._inputs: dict[str, list[list[Any]]] = {}

    def parts(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the known fields of a record."""
        parts = {name: value for name, value in record.items() if name in _FIELDS}
        if "image_at" in parts:
            parts["inputs"] = self._inputs.setdefault(str(parts.get("inputs")), parts.get("inputs", []))
            for name in ("image", "masks"):
                parts[name] = sys.intern(parts[name]) if isinstance(parts.get(name), str) else parts.get(name)
        return parts


def fingerprint(entries: Iterable[Entry]) -> str:
    """Fingerprint of the contents of a subset's pictures and labels, in order."""
    return digest_of(itertools.chain(["subset-1"], (entry.content for entry in entries)))


def count_pixels(entries: Iterable[Entry], num_classes: int) -> tuple[list[int], list[int], int]:
    """Add up the histograms: pixels a class, pictures a class, and pixels without a class."""
    pixels, pictures, ignored = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64), 0
    for entry in entries:
        for value, count in entry.pixels:
            if value < num_classes:
                pixels[value] += count
                pictures[value] += 1
            else:
                ignored += count
    return pixels.tolist(), pictures.tolist(), ignored
