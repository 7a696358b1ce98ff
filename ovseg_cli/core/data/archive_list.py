"""What lies in an archive? The headers of a tar are read once, nothing is unpacked, and what looks evil is named.

Official tar files are plain (ustar, GNU or pax); only regular files count. A name that would leave the folder, a link,
a device, a sparse or compressed archive is refused by name, although nothing here ever writes a member to the disk:
such an archive is not what its publisher made. An archive that is cut off keeps its whole members, and says where it
ends. Listings are kept beside the records of a data set: an archive of the same size and time is not read again.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ovseg_cli.core.data.archive import AGAIN, ArchiveMember
from ovseg_cli.core.data.members import BoundedReads, Broken, require_tar_end, tar_refusal
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.files import write_text

MAX_MEMBERS = 1_000_000
"""Of one archive; an official one of SA-1B has about 22 000."""

_SCHEMA = 1
_SHOWN = 5  # evil members of one archive that are named one by one
_END = bytes(tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Listing:
    """The files of one archive.

    Attributes:
        path: The archive.
        size, mtime: Its bytes and time (ns) when it was read.
        members: Its files, in order.
        problems: What is wrong with it.
        is_known: Whether this is what an earlier preparation wrote down.
    """

    path: Path
    size: int
    mtime: int
    members: list[ArchiveMember] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    is_known: bool = False

    def save(self, root: Path) -> None:
        """Write the listing down beside the records of a data set, unless something is wrong with the archive."""
        if self.is_known or self.problems:
            return
        head = {"schema": _SCHEMA, "path": str(self.path), "size": self.size, "mtime": self.mtime}
        lines = [head, *(member.slot for member in self.members)]
        text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
        write_text(_saved(root, self.path), text)


def list_archive(path: Path, root: Path | None = None) -> Listing:
    """List the files of an archive: from the listing kept below `root` if the archive is unchanged, else by reading it.

    Returns:
        The listing. An archive that is missing, damaged or cut off has problems, and the members that are whole.
    """
    try:
        facts = os.stat(path)
        known = _known(path, root, facts) if root else None
        return known or _scan(path, facts)
    except OSError as error:
        what = f"the archive cannot be read ({error.strerror or error})"
        return Listing(path, -1, -1, problems=[Problem(str(path), what, AGAIN)])


def _saved(root: Path, path: Path) -> Path:
    """File of a listing: the archive's name, and a hash of its path since several folders may hold one of that name."""
    return root / "index" / "archives" / f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.jsonl"


def _known(path: Path, root: Path, facts: os.stat_result) -> Listing | None:
    """Read a listing of an earlier preparation; None where there is none, or the archive has changed since."""
    try:
        lines = _saved(root, path).read_text(encoding="utf-8").splitlines()
        head, slots = json.loads(lines[0]), [json.loads(line) for line in lines[1:]]
        wanted = {"schema": _SCHEMA, "path": str(path), "size": facts.st_size, "mtime": facts.st_mtime_ns}
        members = [ArchiveMember(str(path), str(name), int(offset), int(size)) for name, offset, size in slots]
    except (OSError, ValueError, TypeError, IndexError):  # absent or damaged: the archive itself is read
        return None
    return Listing(path, facts.st_size, facts.st_mtime_ns, members, is_known=True) if head == wanted else None


def _scan(path: Path, facts: os.stat_result) -> Listing:
    listing = Listing(path, facts.st_size, facts.st_mtime_ns)
    evil: list[Problem] = []
    with open(path, "rb") as stream:
        try:
            for info in _headers(stream):
                problem = tar_refusal(info)
                if problem:
                    evil.append(Problem(f"{path}, member {info.name!r}", problem, AGAIN))
                elif info.isreg():
                    listing.members.append(ArchiveMember(str(path), info.name, info.offset_data, info.size))
                if len(listing.members) > MAX_MEMBERS:
                    raise Broken(f"holds more than {MAX_MEMBERS:,} files")
        except (tarfile.TarError, Broken, ValueError, OverflowError, EOFError) as error:
            whole = len(listing.members)
            kept = f"; {'1 file is' if whole == 1 else f'{whole:,} files are'} whole before that" if whole else ""
            evil.insert(0, Problem(str(path), f"the archive {error}{kept}", AGAIN))
    listing.problems.extend(evil[:_SHOWN])
    if len(evil) > _SHOWN:
        listing.problems.append(Problem(str(path), f"{len(evil) - _SHOWN} more members are refused", AGAIN))
    return listing


def _headers(stream: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield every header whose member is whole, and look how the archive ends, which tarfile takes as it comes."""
    size = os.fstat(stream.fileno()).st_size
    if not size:
        raise Broken("is empty (0 bytes)")
    bounded = BoundedReads(stream)
    try:
        tar = tarfile.open(fileobj=bounded, mode="r:")
    except tarfile.ReadError as error:
        what = "is cut off within its first header" if size < tarfile.BLOCKSIZE else "is no plain tar file"
        raise Broken(what) from error
    with tar:
        while True:
            try:
                info = tar.next()
            except tarfile.ReadError as error:
                raise Broken(f"is cut off or damaged after {size:,} bytes ({error})") from error
            if info is None:
                break
            tar.members.clear()  # type: ignore[attr-defined]  # nothing is kept but what the caller keeps
            end = info.offset_data + (info.size if info.isreg() else 0)
            if end > size:
                what = f"is cut off: '{info.name}' should end at byte {end:,}, the file ends at {size:,}"
                raise Broken(what)
            yield info
        require_tar_end(stream, tar.offset, size)
