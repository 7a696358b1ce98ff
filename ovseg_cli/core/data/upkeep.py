"""How a prepared data set's folder is kept: space, links, leftovers, and nothing that belongs to somebody else."""

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovseg_cli.core.data.index import Entry
from ovseg_cli.core.data.manifest import MANIFEST
from ovseg_cli.core.data.records import Entries, Records, read_records
from ovseg_cli.core.errors import DataError, MachineError
from ovseg_cli.core.files import explain_os_error, make_folder

_SPARE = 64 << 20  # bytes that stay free besides the estimate


def make_link(target: Path, source: Path) -> None:
    """Put a symbolic link into place, atomically; one that already points there stays.

    Raises:
        MachineError: Something is in the way, or the disk refuses links.
    """
    with contextlib.suppress(OSError):
        if os.readlink(target) == str(source):
            return
    make_folder(target.parent)
    temporary = target.parent / f".{target.name}.{os.getpid()}.part"
    try:
        os.symlink(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise explain_os_error(error, target) from error


def file_facts(path: Path) -> list[int]:
    """Bytes and mtime (ns) of a file; -1 where it cannot be reached."""
    try:
        facts = os.stat(path)
    except OSError:  # reading it will say why
        return [-1, -1]
    return [facts.st_size, facts.st_mtime_ns]


def is_unchanged(path: Path, recorded: Sequence[int]) -> bool:
    """Whether a file still has the recorded bytes and mtime."""
    try:
        facts = os.stat(path)
    except OSError:
        return False
    return [facts.st_size, facts.st_mtime_ns] == list(recorded[:2])


def paths_of(entry: Entry) -> set[str]:
    """All files of a picture, below the data set's folder."""
    return {entry.image, *entry.files, *([entry.label] if entry.label else [])}


def stale_files(root: Path, finished: Mapping[str, Records]) -> set[str]:
    """Paths that earlier runs wrote and that no finished record (subset → records) needs any more."""
    stale: set[str] = set()
    for path in sorted((root / "index").glob("*.jsonl")):
        done = finished.get(path.stem, ())
        with contextlib.suppress(DataError):
            for entry in read_records(root, path.stem):
                if entry.stem not in done:
                    stale |= paths_of(entry)
        if path.stem not in finished:
            stale.add(f"index/{path.name}")
    return without_needed(stale, finished)


def without_needed(stale: set[str], subsets: Mapping[str, Entries]) -> set[str]:
    """Leave out what records (subset → records) need."""
    for entry in (entry for entries in subsets.values() for entry in entries) if stale else ():
        stale.difference_update(paths_of(entry))
    return stale


def remove(root: Path, stale: set[str]) -> None:
    """Remove files that earlier runs wrote; a path that leads out of the folder is left alone."""
    own = [path for path in stale if Path(path).parts and not Path(path).is_absolute() and ".." not in Path(path).parts]
    for relative in own:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(root / relative)
    for folder in sorted({(root / relative).parent for relative in own}, reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()


def sweep(root: Path) -> None:
    """Remove the temporary files that a killed process left."""
    for path in root.rglob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def require_own_folder(root: Path) -> None:
    """Refuse a folder that holds files of somebody else."""
    own = (root / MANIFEST).exists() or (root / "index").is_dir()
    others = [path.name for path in root.iterdir() if path.name != ".lock"]
    if others and not own:
        raise DataError(
            f"{root}: this folder holds files that ovseg did not write ({', '.join(sorted(others)[:3])}).",
            "Move them, or choose another folder with --data-root.",
        )


def can_link(root: Path) -> bool:
    """Whether the disk takes symbolic links."""
    probe = root / f".probe.{os.getpid()}.part"
    try:
        os.symlink("nowhere", probe)
        os.unlink(probe)
    except (OSError, NotImplementedError):
        return False
    return True


def free_bytes(root: Path) -> int:
    """Bytes free on the disk of a folder that need not be there yet."""
    there = next(folder for folder in [root.absolute(), *root.absolute().parents] if folder.exists())
    return shutil.disk_usage(there).free


def require_space(root: Path, need: int, work: str = "preparing") -> None:
    """Refuse to begin what the disk cannot hold; `work` is what needs the bytes, as the begin of a sentence."""
    free = free_bytes(root)
    if need and need + _SPARE > free:
        raise MachineError(
            f"{root}: {work} needs about {(need + _SPARE) / 1e9:.2f} GB, {free / 1e9:.2f} GB are free.",
            "Free some space, or choose another disk with --data-root.",
        )
