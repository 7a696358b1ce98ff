"""What lies beside archives joins what was unpacked of them: lists, or a part that people unpacked, as links."""

import os
from collections.abc import Sequence
from pathlib import Path

from ovseg_cli.core.data.source_files import Packed
from ovseg_cli.core.data.upkeep import make_link
from ovseg_cli.core.files import explain_os_error
from ovseg_cli.core.runtime import Folders


def unlink_all(files: Path) -> None:
    """Remove all links, which are ours: what is unpacked must never be written through them into a source.

    Raises:
        MachineError: One cannot be removed.
    """
    for place, folders, names in os.walk(files):
        for name in (*folders, *names):
            if os.path.islink(path := os.path.join(place, name)):
                try:
                    os.unlink(path)
                except OSError as error:
                    raise explain_os_error(error, path) from error


def link_beside(files: Path, packed: Sequence[Packed], source: Path, folders: Folders) -> None:
    """Link what lies beside archives to what was unpacked of them.

    Args:
        files: Where they are unpacked.
        packed: The archives, which are not linked, and published files that are none, which are linked to their place.
        source: The folder that they lie in, or lay in: it may be gone.
        folders: Where prepared data lies, which is not linked into itself.
    """
    _link_folder(source.absolute(), files, {part.path.absolute() for part in packed}, folders.data.resolve())
    for part in packed:
        place = files / part.into / part.path.name
        if not part.is_archive and not _is_own(place):
            make_link(place, part.path.absolute())


def _link_folder(source: Path, target: Path, packed: set[Path], data: Path) -> None:
    for path in target.iterdir():
        if path.is_symlink() and not path.exists():
            path.unlink()
    for path in source.iterdir() if source.is_dir() else ():
        place = target / path.name
        if path.name.startswith(".") or path in packed or data.is_relative_to(path.resolve()):
            continue
        if not _is_own(place):
            make_link(place, path)
        elif place.is_dir() and path.is_dir():
            _link_folder(path, place, packed, data)


def _is_own(place: Path) -> bool:
    """Whether something is there that came out of an archive."""
    return place.exists() and not place.is_symlink()
