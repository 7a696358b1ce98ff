"""Where does a file lie that was never unpacked? In an archive, at an offset: opened, sought and read there.

A plain tar keeps its files uncompressed and whole, so a member needs no more than its place. An `ArchiveMember` stands
where a path stands: it is named in messages, opened, read in part, sent to workers.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ovseg_cli.core.errors import DataError

MAX_BYTES = 256 << 20
"""Of the largest file that is read out of an archive."""

AGAIN = "Download the archive again."


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A file inside an archive, as it lies on the disk.

    Attributes:
        archive: Path of the archive.
        name: The member's name in it.
        offset: Its first byte in the archive.
        size: Its bytes.
    """

    archive: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}, member {self.name.removeprefix('./')}"

    @property
    def stem(self) -> str:
        """The name without folders and without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def slot(self) -> list[Any]:
        """Name, offset and size: what a record keeps besides the archive."""
        return [self.name, self.offset, self.size]

    def open(self) -> BinaryIO:
        """Open it for reading; only what is asked for is read.

        Raises:
            DataError: The archive is gone, cut off before the member's end, or cannot be read.
        """
        try:
            stream = open(self.archive, "rb", buffering=0)
        except OSError as error:
            raise DataError(f"{self}: the archive cannot be opened ({error.strerror}).", AGAIN) from error
        have = os.fstat(stream.fileno()).st_size
        if have < self.offset + self.size:
            stream.close()
            what = f"the archive is cut off: it has {have:,} bytes, this member ends at {self.offset + self.size:,}"
            raise DataError(f"{self}: {what}.", AGAIN)
        return io.BufferedReader(_Window(stream, self.offset, self.size))

    def read(self, count: int | None = None) -> bytes:
        """Read it, or its first `count` bytes.

        Raises:
            DataError: See `open`; also a member of more than `MAX_BYTES`.
        """
        wanted = self.size if count is None else min(count, self.size)
        if wanted > MAX_BYTES:
            raise DataError(f"{self}: {wanted:,} bytes are more than the limit of {MAX_BYTES:,}.", AGAIN)
        with self.open() as stream:
            try:
                return stream.read(wanted)
            except OSError as error:
                raise DataError(f"{self}: cannot be read ({error.strerror}).", AGAIN) from error


DataFile = Path | ArchiveMember
"""A file of a data set: on the disk by itself, or in an archive."""


def locate(path: Path | str, slot: Sequence[Any] | None) -> DataFile:
    """Return the file that a record means: the path itself, or with a slot the member that lies there."""
    return Path(path) if slot is None else ArchiveMember(str(path), str(slot[0]), int(slot[1]), int(slot[2]))


def read_file(file: DataFile, count: int | None = None) -> bytes:
    """Read a file, or its first `count` bytes.

    Raises:
        DataError: It is missing or cannot be read.
    """
    if isinstance(file, ArchiveMember):
        return file.read(count)
    try:
        with open(file, "rb") as stream:
            return stream.read(-1 if count is None else count)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}).", "Fetch it again.") from error


class _Window(io.RawIOBase):
    """The bytes of one member as a file of their own."""

    def __init__(self, stream: io.FileIO, offset: int, size: int):
        super().__init__()
        self._stream, self._offset, self._size, self._at = stream, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        self._stream.seek(self._offset + self._at)
        count = self._stream.readinto(view) or 0
        self._at += count
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
