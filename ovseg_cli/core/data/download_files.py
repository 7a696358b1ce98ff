"""Is a downloaded file the right one, and is it unpacked? What is known is written beside it.

DATA/_downloads/FOLDER/FILE                 as published; may be deleted once it is unpacked
                       FILE.record.json     bytes and SHA-256 at the first download: later ones must be the same
                       FILE.unpacked.json   written last: its presence says that all of FILE is unpacked
                       unpacked/            what `--source` would name
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ovseg_cli.core.data.spec_files import Download
from ovseg_cli.core.data.unpack import Contents
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import read_json, write_json
from ovseg_cli.core.reporter import Reporter

SCHEMA = 1
PUBLISHED = "published"
"""Stands in the sentence on a file that differs from what is published, and in no other."""
_MB = 1_000_000


def hashes(path: Path, reporter: Reporter) -> dict[str, Any]:
    """Read a file and return its `bytes`, `sha256` and `md5`."""
    sha, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        for block in reporter.track(_blocks(stream), f"checksum of {path.name} (MB)", total=-(-size // _MB)):
            sha.update(block)
            md5.update(block)
    return {"bytes": size, "sha256": sha.hexdigest(), "md5": md5.hexdigest()}


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(_MB):
        yield block


def difference(part: Download, facts: dict[str, Any], recorded: dict[str, Any] | None) -> str | None:
    """Say in what a file differs from what is published of it, else from the one that was fetched first."""
    published = {"bytes": part.size, "sha256": part.sha256, "md5": part.md5}
    words = {"bytes": "size in bytes", "sha256": "SHA-256", "md5": "MD5"}
    for key, value in published.items():
        if value is not None and facts[key] != value:
            return f"its {words[key]} is {facts[key]}, {PUBLISHED} is {value}"
    if recorded and any(recorded.get(key) != facts[key] for key in ("bytes", "sha256")):
        what = f"{recorded.get('bytes')} bytes, SHA-256 {str(recorded.get('sha256'))[:12]}…"
        now = f"{facts['bytes']} bytes, {facts['sha256'][:12]}…"
        return f"it is not the file that was fetched first ({what}; now {now})"
    return None


def record_path(path: Path) -> Path:
    """File that a download's checksum is recorded in."""
    return path.with_name(path.name + ".record.json")


def read_record(path: Path) -> dict[str, Any] | None:
    """What was recorded of a file; None where there is nothing that can be read."""
    return _read(record_path(path))


def write_record(path: Path, facts: dict[str, Any], address: str | None) -> None:
    """Record a file as it is now."""
    facts = {"schema": SCHEMA, "file": path.name, "address": address, **facts, "mtime": os.stat(path).st_mtime_ns}
    write_json(record_path(path), facts)


def is_recorded(path: Path) -> bool:
    """Whether a file is there, with the bytes and the time at which it was recorded."""
    record = read_record(path)
    try:
        facts = os.stat(path)
    except OSError:
        return False
    return record is not None and (record.get("bytes"), record.get("mtime")) == (facts.st_size, facts.st_mtime_ns)


def write_unpacked(path: Path, part: Download, contents: Contents) -> None:
    """Record that all of a file is unpacked."""
    facts = {"schema": SCHEMA, "file": path.name, "archive": (read_record(path) or {}).get("sha256"), "into": part.into}
    document = {**facts, "files": contents.files, "bytes": contents.bytes, "top": list(contents.top)}
    write_json(_marker(path), document)


def is_unpacked(path: Path, part: Download, source: Path) -> bool:
    """Whether all of a file is unpacked; the file itself may be gone."""
    marker, record = _read(_marker(path)), read_record(path)
    if not marker or marker.get("into") != part.into or not isinstance(marker.get("top"), list):
        return False
    if record is None or marker.get("archive") != record.get("sha256"):
        return False
    return all((source / part.into / str(name)).exists() for name in marker["top"])


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".unpacked.json")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = read_json(path, "the record")
    except DataError:
        return None
    return document if isinstance(document, dict) else None
