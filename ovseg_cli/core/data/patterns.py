"""Which files fit a layout's pattern: `{stem}`, `*` for any text without a slash, `**` for any number of folders."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.errors import DataError


def index_files(base: Path, pattern: str, problems: list[Problem]) -> dict[str, str]:
    """Return stem → path of every file below `base` that fits a pattern; two files of one stem are a problem."""
    fits = pattern_regex(pattern)
    found: dict[str, str] = {}
    for relative in sorted(_walk(base, fixed_folder(pattern), deep=_wild_folders(pattern))):
        match = fits.fullmatch(relative)
        if match and (stem := match["stem"]) in found:
            what = f"has the same name '{stem}' as {found[stem]}; names must differ within a subset"
            problems.append(Problem(str(base / relative), what, "Rename or remove one of them."))
        elif match:
            found[stem] = str(base / relative)
    return found


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
