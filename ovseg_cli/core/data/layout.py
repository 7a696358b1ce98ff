"""Where the files of a data set lie below a source folder.

Every layout of the spec is tried from its roots, at the folder that the user named and one level below it; the one
with the most subsets wins, the earlier one where two have as many.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ovseg_cli.core.data.patterns import fixed_folder, is_there
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_defaults import LABEL_MAPS
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

    @property
    def labelled(self) -> int:
        """How many of the subsets have their labels' folder."""
        labels = [self.layout.subsets[name].labels for name in self.subsets]
        return sum(1 for pattern in labels if pattern and (self.base / fixed_folder(pattern)).exists())


def find_layout(spec: Spec, source: Path) -> Found:
    """Find the layout of a data set in a folder.

    Raises:
        DataError: The folder is missing, or holds none of the layouts; the message lists what was looked for.
        UsageError: Only layouts are there whose labels cannot be read yet.
    """
    if not any(is_readable(spec, layout) for layout in spec.layouts):
        raise unreadable(spec) if spec.layouts else _no_layout(spec)
    if not source.is_dir():
        what = "this is a file, not a folder" if source.exists() else "there is no such folder"
        raise DataError(f"{source}: {what}.", f"Give the folder that holds {spec.title}: --source DIR")
    fits = [found for found in _candidates(spec, source) if found.subsets]
    readable = [found for found in fits if is_readable(spec, found.layout)]
    if not readable:
        raise unreadable(spec, source) if fits or not can_be_read(spec) else _not_found(spec, source)
    return max(readable, key=lambda found: (found.labelled, len(found.subsets)))


def is_readable(spec: Spec, layout: Layout) -> bool:
    """Whether labels of this layout can be converted, or need not be: masks without classes stay as they are."""
    listed = all(part.list_columns != "json-phase" for part in layout.subsets.values())
    kind = spec.encoding_of(layout).kind
    return listed and (kind in LABEL_MAPS or (kind == "rle-json" and holds_masks(spec)))


def holds_masks(spec: Spec) -> bool:
    """Whether pictures come with masks without classes instead of labels."""
    return spec.task == "class-agnostic-masks"


def can_be_read(spec: Spec) -> bool:
    """Whether labels can be converted as the data set's authors store them (the first layout)."""
    return not spec.layouts or is_readable(spec, spec.layouts[0])


def unreadable(spec: Spec, source: Path | None = None) -> UsageError:
    """Build the error for an encoding that is not supported; `source` is where a converted form was looked for."""
    kind = spec.encoding_of(spec.layouts[0]).kind if spec.layouts else "nothing"
    others = [layout for layout in spec.layouts if is_readable(spec, layout)]
    what = f"{spec.name}: its original labels are stored as {kind}, which this version cannot convert"
    if not others:
        return UsageError(f"{what}.", f"It converts {', '.join(LABEL_MAPS)}.")
    places = ", ".join(dict.fromkeys(_labels_of(layout) for layout in others))
    nothing = f"; {source} holds no converted ones" if source else ""
    word = "one of " if ", " in places else ""
    return UsageError(
        f"{what}{nothing}.",
        f"It reads what other code has converted, {word}{places} below --source DIR (`ovseg show {spec.name}` says "
        f"whose). Data: {downloads(spec)}",
    )


def downloads(spec: Spec) -> str:
    """Name what to fetch from where, every page once."""
    by_page: dict[str, list[str]] = {}
    for part in spec.downloads:
        by_page.setdefault(part.page, []).append(part.what)
    return "; ".join(f"{', '.join(what)}: {page}" for page, what in list(by_page.items())[:3])


def _labels_of(layout: Layout) -> str:
    """Return the folder that holds a layout's label maps."""
    part = next(iter(layout.subsets.values()))
    return fixed_folder(part.labels or part.images) + "/"


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
    return DataError(
        f"{source}: no known layout of {spec.name} is there; looked for {', '.join(marks[:8])}{more}.",
        f"Name the folder that holds them with --source DIR.{f' Data: {pages}' if pages else ''}",
    )
