"""How pictures with masks of their own are prepared: recorded where they lie, in folders or in archives.

Such data is large (SA-1B: 11 million pictures) and nothing in it is converted, so nothing is copied, linked or decoded:
a record holds the place of a picture and of its masks, the picture's size from its header, and the hash of a beginning
of each. `ovseg prepare NAME --check` reads everything.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ovseg_cli.core.data.archive import AGAIN, ArchiveMember, DataFile, locate, read_file
from ovseg_cli.core.data.convert import Maker, Picture, as_problem
from ovseg_cli.core.data.images import image_size
from ovseg_cli.core.data.index import Entry
from ovseg_cli.core.data.pairing import Item
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.data.upkeep import file_facts
from ovseg_cli.core.errors import DataError, OvsegError

HEAD = 4096
"""Bytes of the beginning that stands for a file: a picture's header and some of its pixels, a first mask."""


@dataclass(frozen=True)
class Recorder(Maker):
    """Records pictures of a source and their masks, and leaves both where they are."""

    def inputs(self, item: Item) -> list[list[Any]]:
        """Path, bytes and mtime of the source files, or of the archive that holds them."""
        paths = dict.fromkeys(path for path in (item.image, item.label) if path)
        return [[path, *file_facts(Path(path))] for path in paths]

    def image_path(self, item: Item) -> str:
        """The original's own path."""
        return str(item.image)

    def is_done(self, item: Item, entry: Entry | None) -> bool:
        """Whether an earlier run recorded these very places, and nothing has changed there since."""
        if entry is None or (entry.image, entry.masks) != (item.image, item.label):
            return False
        places = (entry.image_at, entry.masks_at) == (item.image_at, item.label_at)
        return places and entry.inputs == self.inputs(item)

    def load(self, item: Item, problems: list[Problem]) -> Picture | None:
        """Read the picture's header; its pixels are looked at as they are stored, which is how masks were drawn."""
        try:
            image = locate(str(item.image), item.image_at)
            height, width = image_size(image)
            return Picture(height, width, head_hash(image), None, upright=False, inputs=self.inputs(item))
        except (OvsegError, OSError) as error:
            problems.append(as_problem(error, item))
            return None

    def store_image(self, item: Item, picture: Picture) -> dict[str, list[int]]:
        """Write nothing."""
        return {}

    def _store(self, item: Item, picture: Picture) -> Entry:
        entry = replace(super()._store(item, picture), image_at=_listed(item.image_at))
        if item.label is None:  # a layout may hold pictures alone
            return entry
        masks = locate(item.label, item.label_at)
        return replace(entry, masks=item.label, masks_at=_listed(item.label_at), masks_sha=head_hash(masks))


def head_hash(file: DataFile) -> str:
    """Hash of a file's length and beginning."""
    size = file.size if isinstance(file, ArchiveMember) else os.stat(file).st_size
    return hashlib.sha256(size.to_bytes(8, "little") + read_file(file, HEAD)).hexdigest()[:32]


def read_masks(file: DataFile) -> tuple[dict[str, Any], list[Any]]:
    """Read a file of SA-1B's form: what it says about the picture, and its annotations, which are not looked into.

    Raises:
        DataError: It cannot be read, is no JSON, or lacks `image` or `annotations`.
    """
    data = read_file(file)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        state = "is empty" if not data.strip(b"\0\r\n\t ") else f"is cut off or no JSON ({_short(error)})"
        raise DataError(f"{file}: the file of masks {state}.", _mend(file)) from error
    parts = {"image": dict, "annotations": list}
    for key, kind in parts.items():
        if not isinstance(document, dict) or not isinstance(document.get(key), kind):
            what = "an object" if kind is dict else "a list"
            raise DataError(f"{file}: the file of masks has no '{key}', which is {what} in SA-1B.", _mend(file))
    return document["image"], document["annotations"]


def require_archives(entries: Iterable[Entry], root: Path, mend: str) -> None:
    """Check that every archive is there and has the bytes that it had.

    Raises:
        DataError: The first that is missing or changed.
    """
    known: set[str] = set()
    for entry in entries:
        for path, slot in ((entry.image, entry.image_at), (entry.masks, entry.masks_at)):
            if path is None or slot is None or path in known:
                continue
            known.add(path)
            recorded = {name: size for name, size, *_ in entry.inputs}.get(path)
            size = file_facts(root / path)[0]
            if size != recorded:
                what = "this archive is missing" if size < 0 else "this archive has changed since it was prepared"
                raise DataError(f"{root / path}: {what}.", mend)


def _mend(file: DataFile) -> str:
    return AGAIN if isinstance(file, ArchiveMember) else "Fetch it again."


def _listed(slot: Any) -> list[Any] | None:
    return None if slot is None else list(slot)


def _short(error: Exception) -> str:
    return str(error)[:120] or type(error).__name__
