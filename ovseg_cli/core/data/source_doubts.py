"""A source without a known layout: what does it hold instead? Another data set, or archives of no use."""

from collections.abc import Sequence
from pathlib import Path

from ovseg_cli.core.data.commands import prepare_command
from ovseg_cli.core.data.layout import downloads, find_layout
from ovseg_cli.core.data.source_files import Packed, unused_archives
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.specs import load_spec, spec_names
from ovseg_cli.core.errors import DataError


def has_layout(spec: Spec, folder: Path) -> bool:
    """Whether a folder holds a known layout of a data set."""
    try:
        find_layout(spec, folder)
    except DataError:
        return False
    return True


def require_layout(spec: Spec, source: Path) -> None:
    """Refuse a folder without a known layout.

    Raises:
        DataError: What was looked for, and what seems to be there instead.
    """
    try:
        find_layout(spec, source)
    except DataError as error:
        if other := _other_command(spec, source, source):
            raise DataError(error.message, other) from error
        if unused := unused_archives(source):
            raise DataError(f"{error.message.rstrip('.')}; {unused}.", error.mend) from error
        raise


def holds_something_else(spec: Spec, source: Path, files: Path, packed: Sequence[Packed]) -> DataError:
    """Return the error on archives that were unpacked into `files`, where no known layout came out of them."""
    names = ", ".join(part.path.name for part in packed if part.is_archive) or "what was unpacked"
    there = ", ".join(sorted(path.name for path in files.iterdir())[:4]) or "nothing"
    right = ", ".join(part.file for part in spec.downloads if part.file) or downloads(spec)
    return DataError(
        f"{source}: no known layout of {spec.name} came out of {names} (but {there}; it lies in {files}).",
        _other_command(spec, files, source) or f"Put the right files there{f': {right}' if right else ''}.",
    )


def _other_command(spec: Spec, folder: Path, source: Path) -> str:
    """Say which other data sets a folder looks like, and what prepares the first; empty where there is none."""
    shipped = [load_spec(name) for name in spec_names() if name != spec.name] if folder.is_dir() else []
    others = [o for o in shipped if o.layouts and o.task == spec.task and has_layout(o, folder)]
    names = " or ".join(other.name for other in others)
    return f"It looks like {names}: {prepare_command(others[0], source)}" if others else ""
