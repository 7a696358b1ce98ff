"""Where the files of a data set lie below a source folder.

Every layout of the spec is tried from its roots, at the folder that the user named and one level below it; the one
with the most subsets wins, the earlier one where two have as many.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ovseg_cli.core.data.patterns import fixed_folder, is_there, pattern_regex
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Layout, SubsetLayout
from ovseg_cli.core.errors import DataError, UsageError

_MOST_SUBFOLDERS = 200


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


def find_layout(spec: Spec, source: Path) -> Found:
    """Find the layout of a data set in a folder.

    Raises:
        DataError: The folder is missing, or holds none of the layouts; the message lists what was looked for.
        UsageError: The spec has no layouts.
    """
    if not spec.layouts:
        raise _no_layout(spec)
    if not source.is_dir():
        what = "this is a file, not a folder" if source.exists() else "there is no such folder"
        raise DataError(f"{source}: {what}.", f"Give the folder that holds {spec.title}: --source DIR")
    fits = [found for found in _candidates(spec, source) if found.subsets]
    if not fits:
        raise _not_found(spec, source)
    return max(fits, key=lambda found: (_labelled(spec, found), len(found.subsets)))


def others_patterns(spec: Spec, layout: Layout, subset: str) -> list[re.Pattern[str]]:
    """Return what labels of other layouts look like that lie in the same folder and have longer names.

    Such labels (a_labelTrainIds.png beside a.png) fit this layout's pattern, too, and are not meant by it.
    """
    own = layout.subsets[subset].labels or ""
    parts = [other.subsets.get(subset) for other in spec.layouts if other.id != layout.id]
    longer = {part.labels for part in parts if part and part.labels and len(part.labels) > len(own)}
    return [pattern_regex(pattern) for pattern in longer if fixed_folder(pattern) == fixed_folder(own)]


def _labelled(spec: Spec, found: Found) -> int:
    """How many of the subsets have labels: a file that fits, or the JSON that holds them."""
    return sum(1 for name in found.subsets if _has_labels(spec, found, name))


def _has_labels(spec: Spec, found: Found, subset: str) -> bool:
    part = found.layout.subsets[subset]
    if part.labels is None or (part.segments and not (found.base / part.segments).is_file()):
        return False
    if not part.has_label_files:
        return (found.base / part.labels).is_file()
    if not (found.base / fixed_folder(part.labels)).is_dir():
        return False
    others = others_patterns(spec, found.layout, subset)
    fitting = (path.relative_to(found.base).as_posix() for path in found.base.glob(part.labels.replace("{stem}", "*")))
    return any(not any(regex.fullmatch(name) for regex in others) for name in fitting)


def holds_masks(spec: Spec) -> bool:
    """Whether pictures come with masks without classes instead of labels."""
    return spec.task == "class-agnostic-masks"


def downloads(spec: Spec) -> str:
    """Name what to fetch from where, every page once."""
    by_page: dict[str, list[str]] = {}
    for part in spec.downloads:
        by_page.setdefault(part.page, []).append(part.what)
    return "; ".join(f"{', '.join(what)}: {page}" for page, what in list(by_page.items())[:3])


def _no_layout(spec: Spec) -> UsageError:
    return UsageError(
        f"{spec.typed}: the spec does not say where the files lie.",
        "Add [[layouts]] and below it [layouts.subsets] with lines such as "
        'train = { images = "images/train/{stem}.jpg", labels = "labels/train/{stem}.png" }',
    )


def _candidates(spec: Spec, source: Path) -> Iterator[Found]:
    below = sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))[:_MOST_SUBFOLDERS]
    for folder in [source, *below]:
        for layout in spec.layouts:
            for base in (folder / root for root in layout.roots):
                there = tuple(name for name, part in layout.subsets.items() if _is_there(base, part))
                yield Found(layout, base, there)


def _is_there(base: Path, part: SubsetLayout) -> bool:
    """Whether a subset's mark is in a folder; where the mark is no folder of a name of its own, whether a file fits."""
    if part.archives and is_there(base, part.archives):
        return True
    mark = mark_of(part)
    return (base / mark).exists() if mark else base.is_dir() and is_there(base, part.images)


def mark_of(part: SubsetLayout) -> str:
    """Return what shows that a subset is there: its list, else the folder of what decides which files belong to it."""
    if part.list:
        return part.list
    return fixed_folder(part.labels if part.list_columns == "labels" and part.labels else part.images)


def _not_found(spec: Spec, source: Path) -> DataError:
    parts = [part for layout in spec.layouts for part in list(layout.subsets.values())[:2]]
    marks = [mark for part in parts for mark in (part.archives, mark_of(part) or part.images) if mark]
    marks = list(dict.fromkeys(marks))
    more = f" and {len(marks) - 8} more" if len(marks) > 8 else ""
    pages = downloads(spec)
    packed = ", ".join(part.file for part in spec.downloads if part.file and not part.optional)
    archives = f", or the published files as they are ({packed})," if packed else ""
    return DataError(
        f"{source}: no known layout of {spec.name} is there; looked for {', '.join(marks[:8])}{more}.",
        f"Name the folder that holds them{archives} with --source DIR.{f' Data: {pages}' if pages else ''}",
    )
