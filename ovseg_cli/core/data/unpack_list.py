"""What would an archive unpack to? Every member in turn, judged before a byte of it is written.

zip, tar and tar.gz, by the end of the name. The same list is gone through twice: to judge (nothing is written), then
to write, so that a refused archive leaves nothing behind.
"""

import contextlib
import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ovseg_cli.core.data.members import BoundedReads, Broken, require_tar_end, tar_refusal, zip_refusal
from ovseg_cli.core.errors import DataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""Archives that are unpacked here."""
FOREIGN = (".7z", ".rar", ".tar.bz2", ".tar.xz", ".tar.zst", ".gz", ".bz2", ".xz", ".zst")
"""Archives that are not; the user unpacks them."""

_BLOCK = 1 << 20
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError, NotImplementedError
)  # fmt: skip
_SKIPPED = ("__MACOSX",)  # folders that one operating system adds to archives


@dataclass(frozen=True)
class Member:
    """A file or a folder of an archive.

    Attributes:
        name: Its path below the archive's root, without `.` and without a slash at its end.
        size: Bytes it says to have, unpacked.
        is_folder: Whether it is a folder.
        blocks: Gives its bytes, inside `explained`; to be called before the next member is asked for.
    """

    name: str
    size: int
    is_folder: bool
    blocks: Callable[[], Iterator[bytes]]


class Refused(Exception):
    """A member that is refused; the sentence names it."""


def members(path: Path) -> Iterator[Member]:
    """Yield the members of an archive, in its order.

    Raises:
        DataError: The archive is damaged or cut off.
        Refused: A member's name or kind is refused.
    """
    with explained(path):
        yield from _zip(path) if path.name.lower().endswith(".zip") else _tar(path)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the readers of archives raise into a DataError that names the archive."""
    try:
        yield
    except Broken as error:
        raise DataError(f"{path}: the archive {error}.", "Delete it and fetch it again.") from error
    except _DAMAGE as error:
        what = str(error).rstrip(".") or type(error).__name__
        raise DataError(
            f"{path}: the archive is damaged or cut off ({what}).", "Delete it and fetch it again."
        ) from error


def _zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if reason := zip_refusal(info):
                raise Refused(f"{info.orig_filename!r}: {reason}")
            if name := _plain(info.filename):
                yield Member(name, info.file_size, info.is_dir(), partial(_zip_blocks, archive, info))


def _zip_blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(info) as stream:
        while block := stream.read(_BLOCK):
            yield block


def _tar(path: Path) -> Iterator[Member]:
    packed = not path.name.lower().endswith(".tar")
    with open(path, "rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        stream: BinaryIO = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
        tar = tarfile.open(fileobj=BoundedReads(stream), mode="r:")
        while info := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # nothing is kept but what the caller keeps
            if reason := tar_refusal(info):
                raise Refused(f"{info.name!r}: {reason}")
            if not packed and info.isreg() and info.offset_data + info.size > size:
                raise Broken(f"is cut off: {info.name!r} should end at byte {info.offset_data + info.size:,}")
            if name := _plain(info.name):
                size_of = info.size if info.isreg() else 0
                yield Member(name, size_of, info.isdir(), partial(_tar_blocks, stream, info, tar))
        if packed:
            while stream.read(_BLOCK):  # to its end, where the checksum stands
                pass
        else:
            require_tar_end(stream, tar.offset, size)


def _tar_blocks(stream: BinaryIO, info: tarfile.TarInfo, tar: tarfile.TarFile) -> Iterator[bytes]:
    stream.seek(info.offset_data)
    left = info.size
    while left:
        block = stream.read(min(left, _BLOCK))
        if not block:
            raise Broken(f"is cut off within {info.name!r}")
        left -= len(block)
        yield block
    stream.seek(tar.offset)  # where tarfile goes on: a compressed stream need not be wound back for it


def _plain(name: str) -> str:
    """Return a member's name in its plain form; empty for the root itself, and for what no data set needs."""
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    return "" if not parts or parts[0] in _SKIPPED else "/".join(parts)
