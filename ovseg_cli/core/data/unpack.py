"""How an archive becomes files: judged as a whole, unpacked beside, then moved into place.

Refused by name: paths that are absolute or lead out of the folder, links, devices, members of the same name, more
members or more bytes than any data set here has, and bytes out of proportion to the archive (a bomb). A refused or
damaged archive leaves nothing. An interrupted one keeps its finished members in a hidden folder beside the target and
goes on with the next. Nothing is taken from an archive but names and bytes: no owner, no mode, no time.
"""

import glob
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ovseg_cli.core.data.unpack_list import SUFFIXES, Member, Refused, explained, members
from ovseg_cli.core.data.upkeep import require_space
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import digest_of, explain_os_error, make_folder
from ovseg_cli.core.reporter import Reporter

_MB = 1_000_000
_FILES, _HALF = "files", "half"  # in the hidden folder: finished members, and the one that is being written


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        members: Files and folders; COCO's largest archive has 246 576.
        bytes: Of all files together; COCO's has 19.3 GB.
        ratio: Bytes of the files to those of the archive; pictures have about 1, text up to 20.
        small: Bytes up to which the ratio does not matter.
    """

    members: int = 2_000_000
    bytes: int = 1 << 40
    ratio: int = 200
    small: int = 256 << 20


@dataclass(frozen=True)
class Contents:
    """What an archive holds: files, their bytes, the names that stand at its top, and archives within it."""

    files: int
    bytes: int
    top: tuple[str, ...]
    inner: tuple[str, ...] = ()


def judge(path: Path, limits: Limits = Limits()) -> Contents:
    """Go through an archive without writing anything.

    Raises:
        DataError: It is damaged, or something in it is refused; the message names the member.
    """
    kinds: dict[str, bool] = {}
    files, total = 0, 0
    top: dict[str, None] = {}
    inner: list[str] = []
    allowed = min(limits.bytes, max(limits.small, limits.ratio * path.stat().st_size))
    try:
        for member in members(path):
            _require_free_name(member, kinds)
            total += member.size
            files += not member.is_folder
            top[member.name.split("/", 1)[0]] = None
            if member.name.lower().endswith(SUFFIXES) and not member.is_folder:
                inner.append(member.name)
            if len(kinds) > limits.members:
                raise Refused(f"{member.name!r}: it is one of more than {limits.members:,} members")
            if total > allowed:
                raise Refused(f"{member.name!r}: with it, {path.stat().st_size:,} bytes unpack to {total:,} and more")
    except Refused as refused:
        raise DataError(
            f"{path}: nothing of this archive is unpacked; it holds {refused}.",
            "Fetch it again from its publisher; if that one is the same, unpack it by hand and use --source DIR.",
        ) from refused
    return Contents(files, total, tuple(top), tuple(inner))


def _require_free_name(member: Member, kinds: dict[str, bool]) -> None:
    """Note a member and the folders above it; one path is one file or one folder."""
    parts = member.name.split("/")
    for depth in range(1, len(parts)):
        if not kinds.setdefault("/".join(parts[:depth]), True):
            raise Refused(f"{member.name!r}: a part of its path is a file of the archive")
    if member.name in kinds and not (member.is_folder and kinds[member.name]):
        raise Refused(f"{member.name!r}: it stands there twice")
    kinds[member.name] = member.is_folder


def unpack(
    path: Path, target: Path, reporter: Reporter, limits: Limits = Limits(), contents: Contents | None = None
) -> Contents:
    """Unpack an archive into a folder that may hold other files already; those of the same name are replaced.

    Args:
        path: The archive.
        target: The folder.
        reporter: Receives progress.
        limits: What it may hold.
        contents: What `judge` said of it, where that was asked already.

    Raises:
        DataError: See `judge`; also a member whose bytes are not what it says.
        MachineError: The disk is too small or refuses.
    """
    if contents is None:
        reporter.say(f"{path}: looking through the archive")
        contents = judge(path, limits)
    beside = _workplace(path, target)
    require_space(target, contents.bytes - _bytes_below(beside), f"unpacking {path.name}")
    try:
        make_folder(beside / _FILES)
        written = _write(path, beside)
        for _ in reporter.track(written, f"unpack {path.name} (MB)", total=-(-contents.bytes // _MB)):
            pass
        merge(beside / _FILES, target)
    except OSError as error:
        raise explain_os_error(error, target) from error
    except DataError:  # what came out of a damaged archive so far may be wrong as well
        shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(beside, ignore_errors=True)
    return contents


def _workplace(path: Path, target: Path) -> Path:
    """Return the hidden folder that an archive is unpacked into first; what another archive of its name left goes."""
    facts = os.stat(path)
    mark = digest_of([str(path.absolute()), str(facts.st_size), str(facts.st_mtime_ns)])[:8]
    own = target.parent / f".{path.name}.{mark}.unpacking"
    for other in target.parent.glob(f".{glob.escape(path.name)}.*.unpacking"):
        if other != own:
            shutil.rmtree(other, ignore_errors=True)
    return own


def _bytes_below(folder: Path) -> int:
    files = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sum(file.stat().st_size for file in files)


def _write(path: Path, beside: Path) -> Iterator[None]:
    """Write all members that are not there yet, yielding once for each million bytes."""
    done = 0
    for member in members(path):
        place = beside / _FILES / member.name
        (place if member.is_folder else place.parent).mkdir(parents=True, exist_ok=True)
        if member.is_folder:
            continue
        sizes = [member.size] if _is_whole(place, member.size) else _write_member(path, member, beside / _HALF, place)
        for size in sizes:
            yield from [None] * ((done + size) // _MB - done // _MB)
            done += size
    if done % _MB:
        yield None


def _is_whole(place: Path, size: int) -> bool:
    """Whether an interrupted unpacking has written a member: it has its name only once all of it is there."""
    return place.is_file() and place.stat().st_size == size


def _write_member(path: Path, member: Member, half: Path, place: Path) -> Iterator[int]:
    """Write one member, yielding the bytes of each block; it gets its name when all of it is there and right."""
    with explained(path), open(half, "wb") as stream:
        for block in member.blocks():
            stream.write(block)
            yield len(block)
        size = stream.tell()
    if size != member.size:
        what = f"{member.name!r} has {size:,} bytes and not {member.size:,} as it says"
        raise DataError(f"{path}: the archive is damaged: {what}.", "Delete it and fetch it again.")
    os.replace(half, place)


def merge(folder: Path, target: Path) -> None:
    """Move what a folder holds into another, which may be there already; files of the same name are replaced."""
    if not target.exists():
        make_folder(target.parent)
        os.replace(folder, target)
        return
    for child in list(folder.iterdir()):
        if child.is_dir() and (target / child.name).is_dir():
            merge(child, target / child.name)
        else:
            os.replace(child, target / child.name)
