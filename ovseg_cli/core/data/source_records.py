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


def _facts(part: Packed) -> dict[str, Any]:
    facts = os.stat(part.path)
    path = os.path.normpath(part.path.absolute())
    return {"archive": path, "bytes": facts.st_size, "mtime": facts.st_mtime_ns, "into": part.into}


def write_record(folder: Path, part: Packed, contents: Contents) -> None:
    """Record that all of an archive is unpacked."""
    document = {"schema": SCHEMA, **_facts(part), "files": contents.files, "top": list(contents.top)}
    write_json(_record_path(folder, part), document)


def is_unpacked(part: Packed, folder: Path) -> bool:
    """Whether all of an archive, as it is now, is unpacked."""
    record = read_record(folder, part)
    if record is None or {key: record.get(key) for key in _facts(part)} != _facts(part):
        return False
    return all((folder / "files" / part.into / str(name)).exists() for name in record.get("top") or ())


def are_gone(folder: Path) -> bool:
    """Whether a folder holds what was unpacked from archives that are no longer there."""
    records = [_read(path) for path in folder.glob("*.json")] if folder.is_dir() else []
    return bool(records) and (folder / "files").is_dir()
