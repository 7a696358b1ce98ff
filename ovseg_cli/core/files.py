"""Files that are whole or absent: atomic writes, hashes, locks, and clear errors for what the disk refuses."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ovseg_cli.core.errors import DataError, MachineError


def explain_os_error(error: OSError, path: Path | str) -> MachineError:
    """Turn a failed write into a sentence: disk full, read-only, not a folder, no permission."""
    reasons = {
        errno.ENOSPC: ("the disk is full", "Free some space, or choose another folder."),
        errno.EROFS: ("the file system is read-only", "Choose another folder."),
        errno.EACCES: ("permission denied", "Choose another folder, or change its permissions."),
        errno.EPERM: ("permission denied", "Choose another folder, or change its permissions."),
        errno.ENOTDIR: ("a part of the path is a file, not a folder", "Choose another folder."),
        errno.EEXIST: ("a file of that name is in the way", "Move it, or choose another folder."),
    }
    reason, mend = reasons.get(error.errno or 0, (error.strerror or str(error), "Choose another folder."))
    return MachineError(f"cannot write {path}: {reason}.", mend)


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; an impossible one raises MachineError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, path) from error
    return path


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb", sync: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it into place when the block ends well.

    A reader sees the old file or the new one, never a half. If the block raises, the temporary file is removed.
    `sync=False` does not wait for the disk: for thousands of files that are verified later anyway.

    Raises:
        MachineError: The disk is full, the folder read-only, and so on.
    """
    path = Path(path)
    make_folder(path.parent)
    # The name is chosen before the file exists: Ctrl-C may come while it is being made.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # nothing there once it has its place


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic_write(path, "wb") as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Write text atomically, UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document atomically: two-space indent, NaN refused, newline at the end."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, what: str, mend: str | None = None) -> Any:
    """Read a JSON document; a missing or broken file raises DataError naming `what` it should have been."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: {what} is not there.", mend) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {what} cannot be read ({error}).", mend) from error


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of(parts: Iterable[str | bytes]) -> str:
    """Return one SHA-256 (hex) over several parts, each with its length, so that no two lists collide."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


@contextlib.contextmanager
def folder_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on a folder while the block runs; the kernel frees it if the process dies.

    Raises:
        MachineError: Another process holds it; the message says which.
    """
    import fcntl

    make_folder(folder)
    path = folder / ".lock"
    try:
        stream = open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise explain_os_error(error, path) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            raise MachineError(
                f"{folder}: {what} is already under way in {holder}.", "Wait until it has finished, then try again."
            ) from error
        stream.truncate(0)
        stream.write(f"process {os.getpid()}")
        stream.flush()
        yield
