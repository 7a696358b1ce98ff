"""Where the files of a data set lie below a source folder.

Every layout of the spec is tried from its roots, at the folder that the user named and one level below it; the one
with the most subsets wins, the earlier one where two have as many.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ovseg_cli.core.data.patterns import fixed_folder
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Layout, SubsetLayout
from ovseg_cli.core.errors import DataError, UsageError

READABLE = ("label-png", "label-tiff", "palette-png")
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
