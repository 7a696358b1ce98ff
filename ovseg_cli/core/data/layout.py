"""Where the files of a data set lie below a source folder, and which label belongs to which image.

Every layout of the spec is tried from its roots, at the folder that the user named and one level below it. List files
decide the pairing where the layout has them, else the folders' contents do.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Layout, SubsetLayout
from ovseg_cli.core.errors import DataError, UsageError

READABLE = ("label-png", "label-tiff", "palette-png")
_MOST_SUBFOLDERS = 200


@dataclass(frozen=True)
class Problem:
    """Something broken: the file, what is wrong, and what mends it."""

    file: str
    what: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Item:
    """One picture to prepare: files of a source, or the place of a drawn scene."""

    stem: str
    image: str | None = None
    label: str | None = None
    index: int = -1


@dataclass(frozen=True)
class Found:
    """A layout that fits a folder.

    Attributes:
        layout: The layout.
        base: Folder that its patterns start from.
        subsets: Names of the subsets that are there, in the layout's order.
    """

    layout: Layout
    base: Path
    subsets: tuple[str, ...]

    @property
    def labelled(self) -> int:
        """How many of the subsets have their labels' folder."""
        labels = [self.layout.subsets[name].labels for name in self.subsets]
        return sum(1 for pattern in labels if pattern and (self.base / fixed_folder(pattern)).exists())


@dataclass
class Pairing:
    """The items of one subset and what kept others from becoming one."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def find_layout(spec: Spec, source: Path) -> Found:
    """Find the layout of a data set in a folder.

    Raises:
        DataError: The folder is missing, or holds none of the layouts; the message lists what was looked for.
        UsageError: Only layouts are there whose labels cannot be read yet.
    """
    if not source.is_dir():
        what = "this is a file, not a folder" if source.exists() else "there is no such folder"
        raise DataError(f"{source}: {what}.", f"Give the folder that holds {spec.title}: --source DIR")
    if not spec.layouts:
        raise UsageError(f"{spec.name}: its spec has no layout, so nothing can be found in {source}.")
    fits = [found for found in _candidates(spec, source) if found.subsets]
    if not fits:
        raise _not_found(spec, source)
    readable = [found for found in fits if is_readable(spec, found.layout)]
    if not readable:
        raise unreadable(spec, fits[0].layout)
    return max(readable, key=lambda found: (found.labelled, len(found.subsets)))


def is_readable(spec: Spec, layout: Layout) -> bool:
    """Whether labels of this layout can be converted."""
    listed = all(part.list_columns != "json-phase" for part in layout.subsets.values())
    return listed and spec.encoding_of(layout).kind in READABLE


def unreadable(spec: Spec, layout: Layout) -> UsageError:
    """Build the error for an encoding that is not supported."""
    kind = spec.encoding_of(layout).kind
    return UsageError(
        f"{spec.name}: its labels are stored as {kind} (layout '{layout.id}'), which cannot be converted yet.",
        f"What can be: {', '.join(READABLE)}.",
    )


def pair(found: Found, subset: str) -> Pairing:
    """List the pictures of a subset with their labels; missing partners become problems, never gaps."""
    part = found.layout.subsets[subset]
    pairing = Pairing()
    for pattern in (part.images, part.labels):
        if pattern and not (found.base / fixed_folder(pattern)).is_dir():
            folder = str(found.base / fixed_folder(pattern))
            pairing.problems.append(Problem(folder, f"this folder of '{subset}' is missing", "Fetch it, too."))
            return pairing
    images = index_files(found.base, part.images, pairing.problems)
    labels = index_files(found.base, part.labels, pairing.problems) if part.labels else None
    if labels:
        _share_out(images, labels, part.images, part.labels or "")
    wanted = _listed(found, part, pairing.problems) if part.list else _everything(part, images, labels)
    for image_stem, label_stem in wanted:
        image = images.get(image_stem)
        label = labels.get(label_stem) if labels is not None else None
        if image is None:
            pairing.problems.append(_missing(found, part, image_stem, "image", subset))
        elif label is None and labels is not None:
            pairing.problems.append(_missing(found, part, label_stem, "label", subset))
        else:
            pairing.items.append(Item(image_stem, image, label))
    if not wanted and not pairing.problems:
        where = found.base / mark_of(part)
        pairing.problems.append(Problem(str(where), f"there is no picture of '{subset}' in it", "Fetch it again."))
    return pairing


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


def _share_out(images: dict[str, str], labels: dict[str, str], image_pattern: str, label_pattern: str) -> None:
    """Let a file that fits both patterns (a.png, a_label.png) belong to the longer one only."""
    both = set(images.values()) & set(labels.values())
    loser = images if len(label_pattern) > len(image_pattern) else labels
    for stem in [stem for stem, path in loser.items() if path in both]:
        del loser[stem]


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


def _candidates(spec: Spec, source: Path) -> Iterator[Found]:
    below = sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))[:_MOST_SUBFOLDERS]
    for folder in [source, *below]:
        for layout in spec.layouts:
            for base in (folder / root for root in layout.roots):
                there = tuple(name for name, part in layout.subsets.items() if (base / mark_of(part)).exists())
                yield Found(layout, base, there)


def mark_of(part: SubsetLayout) -> str:
    """Return what shows that a subset is there: its list, else the folder of what decides which files belong to it."""
    if part.list:
        return part.list
    return fixed_folder(part.labels if part.list_columns == "labels" and part.labels else part.images)


def _not_found(spec: Spec, source: Path) -> DataError:
    marks = [mark_of(part) for layout in spec.layouts for part in list(layout.subsets.values())[:2]]
    marks = list(dict.fromkeys(marks))
    more = f" and {len(marks) - 8} more" if len(marks) > 8 else ""
    pages = "; ".join(d.page for d in spec.downloads[:2])
    return DataError(
        f"{source}: no known layout of {spec.name} is there; looked for {', '.join(marks[:8])}{more}.",
        f"Name the folder that holds them with --source DIR.{f' The data: {pages}' if pages else ''}",
    )


def _everything(part: SubsetLayout, images: dict[str, str], labels: dict[str, str] | None) -> list[tuple[str, str]]:
    """Without a list, the stem of every file counts; images without a label only where the images decide."""
    stems = set(labels or {}) if part.list_columns == "labels" else {*images, *(labels or {})}
    return [(stem, stem) for stem in sorted(stems)]


def _listed(found: Found, part: SubsetLayout, problems: list[Problem]) -> list[tuple[str, str]]:
    """Read a list file: (image stem, label stem) of each line that is not blank."""
    path = found.base / (part.list or "")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), f"the list cannot be read ({error})", "Fetch it again."))
        return []
    stems: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if not columns:
            continue
        if part.list_columns == "paths":
            image = _stem_of(columns[0], part.images)
            label = _stem_of(columns[1], part.labels) if part.labels and len(columns) > 1 else image
        else:
            image = label = columns[0]
        if image is None or label is None:
            what = f"'{line.strip()[:120]}' does not fit {part.images} {part.labels or ''}"
            problems.append(Problem(f"{path}, line {number}", what.rstrip(), "Mend the line."))
        elif image in stems:
            problems.append(Problem(f"{path}, line {number}", f"'{image}' is listed twice", "Remove one of the lines."))
        else:
            stems[image] = label
    return list(stems.items())


def _stem_of(listed: str, pattern: str) -> str | None:
    """Read the stem out of a listed path, of which only as many last parts count as the pattern has."""
    tail = PurePosixPath(listed.replace("\\", "/")).parts[-len(pattern.split("/")) :]
    match = pattern_regex(pattern).fullmatch("/".join(tail))
    return match["stem"] if match else None


def _missing(found: Found, part: SubsetLayout, stem: str, what: str, subset: str) -> Problem:
    pattern = part.images if what == "image" else part.labels or ""
    other = "label" if what == "image" else "image"
    path = str(found.base / pattern.replace("{stem}", stem))
    reason = f"listed in {part.list}" if part.list else f"the {other} '{stem}' of '{subset}' is there"
    return Problem(path, f"this {what} is missing ({reason})", f"Fetch it again, or remove its {other}.")
