"""Which files of a folder are a data set's published files, still packed?

By name where the spec knows it (`downloads[].file`), else by what is in it: an archive counts whose members lie where
a layout looks for them. One whose members lie beside it already was unpacked by hand and is left alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from ovseg_cli.core.data.layout import holds_masks
from ovseg_cli.core.data.patterns import pattern_regex
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import SubsetLayout
from ovseg_cli.core.data.unpack_list import FOREIGN, SUFFIXES, Refused, members
from ovseg_cli.core.errors import DataError

_MOST_SUBFOLDERS = 200
_MOST_MEMBERS = 50_000  # of one archive that are looked at; lists and pictures stand before that in every one
_COMPARED = 3  # members that must lie beside an archive to show that it was unpacked there


@dataclass(frozen=True)
class Packed:
    """A published file.

    Attributes:
        path: Where it is.
        into: Folder below the source that it is unpacked into, or put into.
        is_archive: Whether it is unpacked.
    """

    path: Path
    into: str
    is_archive: bool


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is an archive that is unpacked here."""
    return path.name.lower().endswith(SUFFIXES)


def packed_files(spec: Spec, source: Path) -> list[Packed]:
    """Return the published files in a folder and one level below it; nothing unless one of them is to be unpacked.

    Args:
        spec: The data set.
        source: The folder, or one archive: then that one, whatever its name, and those of the spec's names beside it.

    Raises:
        DataError: `source` is a file, but no archive.
    """
    if not spec.layouts or holds_masks(spec):
        return []
    named = source if source.is_file() else None
    if named and not is_archive(named):
        known = ", ".join(SUFFIXES)
        what = f"this is a file, and no archive that ovseg unpacks ({known})"
        raise DataError(f"{source}: {what}.", f"Give the folder that holds {spec.title}: --source DIR")
    folder = source.parent if named else source
    found: dict[str, Packed] = {}
    for path in [*([named] if named else []), *_files(folder)]:
        if path.name not in found and (packed := _packed(spec, path, folder, named)):
            found[path.name] = packed
    return list(found.values()) if any(part.is_archive for part in found.values()) else []


def unused_archives(source: Path) -> str:
    """Say which archives lie in a folder that holds no known layout; empty where there is none."""
    if not source.is_dir():
        return ""
    own = sorted(path.name for path in _files(source) if is_archive(path))
    foreign = sorted(p.name for p in _files(source) if not is_archive(p) and p.name.lower().endswith(FOREIGN))
    said = [f"{_some(own)} {'holds' if len(own) == 1 else 'hold'} none of it"] if own else []
    if foreign:
        said.append(f"unpack {_some(foreign)} first, of a kind that ovseg does not unpack")
    return "; ".join(said)


def wanted(spec: Spec) -> Callable[[str], bool]:
    """Return what says of a path below a source whether a layout of the data set looks for it."""
    patterns = {
        (PurePosixPath(root) / pattern).as_posix(): None
        for layout in spec.layouts
        for root in layout.roots
        for part in layout.subsets.values()
        for pattern in _patterns(part)
    }
    regexes = [pattern_regex(pattern) for pattern in patterns]
    return lambda name: any(r.fullmatch(name) or r.fullmatch(name.partition("/")[2]) for r in regexes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    there = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    below = [path for path in there if path.is_dir()][:_MOST_SUBFOLDERS]
    yield from (path for path in there if path.is_file())
    for one in below:
        yield from (path for path in sorted(one.iterdir()) if is_archive(path) and path.is_file())


def _packed(spec: Spec, path: Path, folder: Path, named: Path | None) -> Packed | None:
    part = next((part for part in spec.downloads if part.file and part.file.lower() == path.name.lower()), None)
    if part and not is_archive(path):
        return Packed(path, part.into, False)
    if not is_archive(path) or (named and path != named and not part):
        return None
    if path == named:
        return Packed(path, part.into if part else _fitting_folder(spec, path) or ".", True)
    into = part.into if part else _fitting_folder(spec, path)
    return Packed(path, into, True) if into and not _lies_unpacked(spec, path, into, folder) else None


def _fitting_folder(spec: Spec, path: Path) -> str | None:
    """Return the folder that an archive of unknown name is unpacked into; None where it is of no use."""
    intos = dict.fromkeys([*(part.into for part in spec.downloads if part.file is None), "."])
    return next((into for into in intos if next(_fitting(spec, path, into), None)), None)


def _fitting(spec: Spec, path: Path, into: str) -> Iterator[str]:
    """Yield the members that a layout looks for; none where the archive cannot be read, which unpacking will say."""
    fits = wanted(spec)
    try:
        for member in islice(members(path), _MOST_MEMBERS):
            if not member.is_folder and fits((PurePosixPath(into) / member.name).as_posix()):
                yield member.name
    except (DataError, Refused):
        return


def _lies_unpacked(spec: Spec, path: Path, into: str, folder: Path) -> bool:
    """Whether people have unpacked an archive already: its files are there, beside it or one level below."""
    names = list(islice(_fitting(spec, path, into), _COMPARED))
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))[:_MOST_SUBFOLDERS]
    places = [place for base in (folder, *below) for place in (base / into, base)]
    return bool(names) and any(all((place / name).exists() for name in names) for place in places)


def _patterns(part: SubsetLayout) -> Iterator[str]:
    yield from filter(None, (part.images, part.labels, *part.labels_else, part.segments, part.list, *part.list_also))
