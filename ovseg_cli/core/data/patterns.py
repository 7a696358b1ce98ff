"""Which files fit a layout's pattern: `{stem}`, `*` for any text without a slash, `**` for any number of folders."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ovseg_cli.core.data.archive import ArchiveMember
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.errors import DataError


@dataclass
class Inside:
    """Files in archives under the paths that they would have if they were unpacked.

    Attributes:
        files: Path and member.
        left_out: Folders that do not count, because an archive stands for them.
    """

    files: list[tuple[str, ArchiveMember]] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)


def index_files(
    base: Path, pattern: str, problems: list[Problem], inside: Inside | None = None
) -> dict[str, str | ArchiveMember]:
    """Return stem → file of every file below `base` that fits a pattern; two files of one stem are a problem.

    Args:
        base: The folder.
        pattern: What is looked for.
        problems: Grows by what is found twice.
        inside: Files in archives that count as well.
    """
    fits = pattern_regex(pattern)
    found: dict[str, str | ArchiveMember] = {}
    for relative, file in _files(base, pattern, inside or Inside()):
        match = fits.fullmatch(relative)
        if match and (stem := match["stem"]) in found:
            what = f"has the same name '{stem}' as {found[stem]}; names must differ within a subset"
            problems.append(Problem(str(file), what, "Rename or remove one of them."))
        elif match:
            found[stem] = file
    return found


def is_there(base: Path, pattern: str) -> bool:
    """Whether any file below `base` fits a pattern, as far as a quick look tells."""
    return next(base.glob(pattern.replace("{stem}", "*")), None) is not None


def _files(base: Path, pattern: str, inside: Inside) -> Iterator[tuple[str, str | ArchiveMember]]:
    """Yield relative path and file, those on the disk first, in the order of their paths."""
    for relative in sorted(_walk(base, fixed_folder(pattern), deep=_wild_folders(pattern))):
        if not any(relative.startswith(f"{folder}/") for folder in inside.left_out):
            yield relative, str(base / relative)
    for relative, member in sorted(inside.files, key=lambda pair: pair[0]):
        if not relative.rpartition("/")[2].startswith("."):
            yield relative, member


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """Turn a layout pattern into a regular expression over relative paths, with a group `stem`."""
    pieces = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "{stem}": "(?P<stem>[^/]+)"}
    text, seen = "", False
    for token in re.split(r"(\*\*/|\*\*|\*|\{stem\})", pattern):
        again = token == "{stem}" and seen
        text += "(?P=stem)" if again else pieces.get(token) or re.escape(token)
        seen = seen or token == "{stem}"
    return re.compile(text)


def fixed_folder(pattern: str) -> str:
    """Return the folders of a pattern before the first one with a wildcard; may be empty."""
    folders = pattern.split("/")[:-1]
    plain = [i for i, name in enumerate(folders) if "*" in name or "{" in name]
    return "/".join(folders[: plain[0]] if plain else folders)


def _wild_folders(pattern: str) -> bool:
    return fixed_folder(pattern) != "/".join(pattern.split("/")[:-1])


def _walk(base: Path, folder: str, deep: bool) -> Iterator[str]:
    """Yield files below a folder, relative to `base`, with forward slashes; hidden files are not pictures."""
    try:
        entries = list(os.scandir(base / folder))
    except OSError as error:
        raise DataError(f"{base / folder}: the folder cannot be listed ({error.strerror}).") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = f"{folder}/{entry.name}" if folder else entry.name
        if deep and entry.is_dir():
            yield from _walk(base, path, deep)
        else:
            yield path
