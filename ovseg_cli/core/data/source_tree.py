"""A source that is still packed: its archives are unpacked once, into a folder beside the prepared data.

DATA/_unpacked/FOLDER-HASH/files/          what preparing reads; HASH is that of the path of the archives' folder
                           ARCHIVE.json    written last: its presence says that all of ARCHIVE is unpacked

What lies beside the archives, lists for instance or a part that people unpacked, is linked into that folder. Archives
are only read; one that is gone or has changed is noticed by its size and time.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg_cli.core.data.commands import prepare_command
from ovseg_cli.core.data.source_doubts import has_layout, holds_something_else, require_layout
from ovseg_cli.core.data.source_files import Packed, is_archive, packed_files, wanted
from ovseg_cli.core.data.source_links import link_beside, unlink_all
from ovseg_cli.core.data.source_records import are_gone, facts_of, is_unpacked, read_record, write_record
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.unpack import Contents, judge, unpack
from ovseg_cli.core.data.upkeep import free_bytes, require_space
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import digest_of, folder_lock, make_folder
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders


@dataclass(frozen=True)
class Tree:
    """Where archives are unpacked.

    Attributes:
        folder: Holds the records.
        files: What preparing reads.
        packed: The published files that it is made of.
        left: Those of them that are not unpacked yet.
    """

    folder: Path
    files: Path
    packed: tuple[Packed, ...]
    left: tuple[Packed, ...]


@dataclass(frozen=True)
class UnpackPlan:
    """What `ovseg prepare --dry-run` says of archives that are not unpacked yet.

    Attributes:
        name: The data set.
        files: Where they are unpacked.
        archives: Path, files and bytes of each.
        need: Bytes that they still take.
        free: Bytes free on that disk.
    """

    name: str
    files: Path
    archives: tuple[tuple[Path, int, int], ...]
    need: int
    free: int


def plan_unpacking(spec: Spec, folders: Folders, source: Path) -> UnpackPlan | None:
    """Say what would be unpacked of a source, writing nothing; None where nothing would.

    Raises:
        DataError: An archive is damaged, or holds what is refused.
    """
    tree = find_tree(spec, folders, source)
    if tree is None or not tree.left:
        return None
    contents = [(part.path, judge(part.path)) for part in tree.left]
    need = sum(found.bytes for _, found in contents) - _begun(tree)
    archives = tuple((path, found.files, found.bytes) for path, found in contents)
    return UnpackPlan(spec.name, tree.files, archives, need, free_bytes(tree.folder))


def find_tree(spec: Spec, folders: Folders, source: Path) -> Tree | None:
    """Say what of a source has to be unpacked, writing nothing; None where it is read as it lies.

    Raises:
        DataError: The source is a file, but no archive.
    """
    packed = packed_files(spec, source)
    mark = digest_of([os.path.normpath(_folder_of(source).absolute())])[:8]
    folder = folders.data / "_unpacked" / f"{spec.download_folder or spec.name}-{mark}"
    if not packed and not (are_gone(folder) and not has_layout(spec, source)):
        return None
    left = tuple(part for part in packed if part.is_archive and not is_unpacked(part, folder))
    return Tree(folder, folder / "files", tuple(packed), left)


def unpack_source(spec: Spec, folders: Folders, source: Path, reporter: Reporter) -> None:
    """Unpack what has to be unpacked of a source, all of it or nothing; what is done is not done again.

    Raises:
        DataError: An archive is damaged, or holds what is refused; nothing is unpacked then.
        MachineError: The disk is too small or refuses, or another process unpacks the same.
    """
    tree = find_tree(spec, folders, source)
    if tree is None:
        return
    with folder_lock(tree.folder, f"unpacking {source}"):
        tree = find_tree(spec, folders, source) or tree  # another process may have unpacked it meanwhile
        changed = any(read_record(tree.folder, part) is not None for part in tree.left)
        todo = [part for part in tree.packed if part.is_archive] if changed else tree.left
        facts = {part: facts_of(part) for part in todo}  # as they are before they are read
        looked_at = reporter.track(todo, "look through archives", len(todo)) if todo else ()
        contents = {part: judge(part.path) for part in looked_at}
        if changed:
            reporter.say(f"{source}: an archive, or what was unpacked of it, has changed; all are unpacked again.")
            _clear(tree)
        if contents:
            _tell_what_is_missing(spec, source, tree, reporter)
            _unpack(spec, tree, contents, facts, reporter)
        make_folder(tree.files)
        link_beside(tree.files, tree.packed, _folder_of(source), folders)


def place_of(spec: Spec, folders: Folders, source: Path) -> Path:
    """Return the folder whose layout counts for a source: that of its unpacked archives, or the source itself.

    Raises:
        DataError: Its archives are not unpacked yet, or it holds nothing that is known.
    """
    tree = find_tree(spec, folders, source)
    if tree is None:
        require_layout(spec, source)
        return source
    if tree.left or not tree.files.is_dir():
        names = ", ".join(part.path.name for part in tree.left or tree.packed)
        command = prepare_command(spec, source)
        raise DataError(f"{source}: not unpacked yet: {names}.", f"Unpack and prepare: {command}")
    if not has_layout(spec, tree.files):
        raise holds_something_else(spec, source, tree.files, tree.packed)
    return tree.files


def _folder_of(source: Path) -> Path:
    """The folder of the archives: the source, or that of the archive that it is or was before it was deleted."""
    return source.parent if source.is_file() or (is_archive(source) and not source.exists()) else source


def _unpack(
    spec: Spec, tree: Tree, contents: dict[Packed, Contents], facts: dict[Packed, dict[str, Any]], reporter: Reporter
) -> None:
    """Unpack archives that were judged, one after the other."""
    require_space(tree.folder, sum(c.bytes for c in contents.values()) - _begun(tree), "unpacking the archives")
    unlink_all(tree.files)
    for part, found in contents.items():
        unpack(part.path, tree.files / part.into, reporter, contents=found)
        _unpack_inner(spec, tree, tree.files / part.into, found, reporter)
        write_record(tree.folder, part, facts[part], found)
    reporter.say(f"unpacked into {tree.files}; the archives are not needed any more")


def _tell_what_is_missing(spec: Spec, source: Path, tree: Tree, reporter: Reporter) -> None:
    """Name published files that are not among those that are unpacked; people may have unpacked them elsewhere."""
    have = {part.path.name.lower() for part in tree.packed}
    folder = _folder_of(source)
    for part in spec.downloads:
        if part.file and not part.optional and part.file.lower() not in have and not (folder / part.file).exists():
            reporter.say(f"{part.file} ({part.what}) is not beside them; if it is needed, put it there as well.")


def _begun(tree: Tree) -> int:
    """Bytes that interrupted unpackings have written."""
    places = {(tree.files / part.into).parent for part in tree.left}
    begun = [folder for place in places for folder in place.glob(".*.unpacking")]
    return sum(path.stat().st_size for folder in begun for path in folder.rglob("*") if path.is_file())


def _unpack_inner(spec: Spec, tree: Tree, target: Path, contents: Contents, reporter: Reporter) -> None:
    """Unpack archives that came out of an archive, where a layout looks for what is in them; they are not kept."""
    fits = wanted(spec)
    for name in contents.inner:
        path = target / name
        folder = path.parent.relative_to(tree.files).as_posix()
        if fits(f"{folder}/{path.stem}/x.png") or fits(f"{folder}/{path.stem}/x.jpg"):
            unpack(path, path.parent, reporter)
            path.unlink()


def _clear(tree: Tree) -> None:
    for path in tree.folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()
