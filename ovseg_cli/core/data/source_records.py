"""Which archives of a source are unpacked? One record each, `ARCHIVE.json`, written when all of it is there."""

import os
from pathlib import Path
from typing import Any

from ovseg_cli.core.data.source_files import Packed
from ovseg_cli.core.data.unpack import Contents
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import read_json, write_json

SCHEMA = 1


def _record_path(folder: Path, part: Packed) -> Path:
    return folder / f"{part.path.name}.json"


def read_record(folder: Path, part: Packed) -> dict[str, Any] | None:
    """Return what was recorded of an archive; None where there is nothing that can be read."""
    return _read(_record_path(folder, part))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = read_json(path, "the record")
    except DataError:
        return None
    return document if isinstance(document, dict) and document.get("schema") == SCHEMA else None


def facts_of(part: Packed) -> dict[str, Any]:
    """By what an archive is known again: its path, bytes and time, and the folder that it is unpacked into."""
    facts = os.stat(part.path)
    path = os.path.normpath(part.path.absolute())
    return {"archive": path, "bytes": facts.st_size, "mtime": facts.st_mtime_ns, "into": part.into}


def write_record(folder: Path, part: Packed, facts: dict[str, Any], contents: Contents) -> None:
    """Record that all of an archive is unpacked.

    Args:
        folder: Where the records lie.
        part: The archive.
        facts: What `facts_of` said before it was read: one that changed meanwhile counts as another.
        contents: What it holds.
    """
    top = [name for name in contents.top if (folder / "files" / part.into / name).exists()]  # archives in it are gone
    document = {"schema": SCHEMA, **facts, "files": contents.files, "top": top}
    write_json(_record_path(folder, part), document)


def is_unpacked(part: Packed, folder: Path) -> bool:
    """Whether all of an archive, as it is now, is unpacked."""
    record = read_record(folder, part)
    facts = facts_of(part)
    if record is None or {key: record.get(key) for key in facts} != facts:
        return False
    return all((folder / "files" / part.into / str(name)).exists() for name in record.get("top") or ())


def are_gone(folder: Path) -> bool:
    """Whether a folder holds what was unpacked from archives that are no longer there."""
    records = [_read(path) for path in folder.glob("*.json")] if folder.is_dir() else []
    return bool(records) and (folder / "files").is_dir()
