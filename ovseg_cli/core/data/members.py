"""Which members of an archive are refused? Those whose name or kind no publisher of pictures has a use for.

A name that would leave the folder, a link, a device, a sparse file: refused by name, whether or not anything is
unpacked.
"""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import PurePosixPath
from typing import Any, BinaryIO

MAX_HEADER = 1 << 20
"""Bytes of one header of a tar; longer names than that are an attack on the memory."""
MAX_NAME = 1024

_ZIP_ENCRYPTED = 0x1
_UNIX = 3  # a zip's `create_system` whose attributes hold a file's kind


class Broken(Exception):
    """What is wrong with an archive, as the end of a sentence."""


def name_refusal(name: str) -> str | None:
    """Say why a name is refused; None for one that stays below the folder it is unpacked into."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if name.startswith(("/", "\\")) or PurePosixPath(name).is_absolute() or name[1:3] in (":/", ":\\"):
        return "its name is an absolute path"
    if ".." in name.replace("\\", "/").split("/"):
        return "its name leads out of the folder"
    if not name.isprintable() or len(name) > MAX_NAME:
        return "its name is too long or holds control characters"
    return None


def tar_refusal(info: tarfile.TarInfo) -> str | None:
    """Say why a member of a tar is refused; None for regular files and folders."""
    if reason := name_refusal(info.name):
        return reason
    if info.issym() or info.islnk():
        return f"it is a link to {info.linkname!r}"
    if info.issparse():
        return "it is stored sparse"
    return None if info.isreg() or info.isdir() else "it is neither a file nor a folder"


def zip_refusal(info: zipfile.ZipInfo) -> str | None:
    """Say why a member of a zip is refused; None for regular files and folders."""
    if reason := name_refusal(info.orig_filename) or name_refusal(info.filename):
        return reason
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == _UNIX else 0
    if kind == stat.S_IFLNK:
        return "it is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "it is neither a file nor a folder"
    return "it is encrypted" if info.flag_bits & _ZIP_ENCRYPTED else None


class BoundedReads(io.RawIOBase):
    """A file that is read in bounded pieces only, so that no header of a tar is longer than that."""

    def __init__(self, stream: BinaryIO):
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be sought in."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte of the file beneath."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Where the file beneath stands."""
        return self._stream.tell()

    def read(self, count: int = -1) -> Any:
        """Read at most `MAX_HEADER` bytes; more raises Broken."""
        if count < 0 or count > MAX_HEADER:
            raise Broken(f"holds a header of {count:,} bytes, the limit is {MAX_HEADER:,}")
        return self._stream.read(count)


def require_tar_end(stream: BinaryIO, at: int, size: int) -> None:
    """A tar ends with a block of zeros (by rule two); tarfile takes a cut or a damaged header for the end as well."""
    stream.seek(at)
    block = stream.read(tarfile.BLOCKSIZE)
    if not block:
        raise Broken(f"is cut off: it ends at byte {size:,} without the mark that ends a tar file")
    if len(block) < tarfile.BLOCKSIZE and block.strip(b"\0"):
        raise Broken(f"is cut off within the header at byte {at:,}")
    if block.strip(b"\0"):
        raise Broken(f"is damaged: the header at byte {at:,} is none")
