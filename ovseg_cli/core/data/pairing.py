"""Which label belongs to which image: by a list file where the layout has one, else by the folders' contents.

A picture without its partner becomes a problem, never a gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ovseg_cli.core.data.archive import ArchiveMember
from ovseg_cli.core.data.archive_list import Listing
from ovseg_cli.core.data.layout import Found, mark_of
from ovseg_cli.core.data.patterns import Inside, fixed_folder, index_files, pattern_regex
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.data.spec_files import SubsetLayout


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to prepare: files of a source, or the place of a drawn scene.

    Where `image` or `label` is an archive, `image_at` and `label_at` are name, offset and size in it.
    """

    stem: str
    image: str | None = None
    label: str | None = None
    index: int = -1
    image_at: Sequence[Any] | None = None
    label_at: Sequence[Any] | None = None


@dataclass
class Pairing:
    """The items of one subset, what kept others from becoming one, and what is worth knowing."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def pair(found: Found, subset: str, listings: Sequence[Listing] = ()) -> Pairing:
    """List the pictures of a subset with their labels; missing partners become problems, never gaps.

    Args:
        found: The layout and where it is.
        subset: One of its subsets.
        listings: Its archives.
    """
    part = found.layout.subsets[subset]
    pairing = Pairing()
    inside = _inside(found, listings, pairing)
    for pattern in (part.images, part.labels):
        if pattern and not (found.base / fixed_folder(pattern)).is_dir():
            folder = str(found.base / fixed_folder(pattern))
            pairing.problems.append(Problem(folder, f"this folder of '{subset}' is missing", "Fetch it, too."))
            return pairing
    images = index_files(found.base, part.images, pairing.problems, inside)
    labels = index_files(found.base, part.labels, pairing.problems, inside) if part.labels else None
    if labels:
        _share_out(images, labels, part.images, part.labels or "")
    wanted = _listed(found, part, pairing.problems) if part.list else _everything(part, images, labels)
    for image_stem, label_stem in wanted:
        image = images.get(image_stem)
        label = labels.get(label_stem) if labels is not None else None
        if image is None:
            partner = labels.get(label_stem) if labels is not None else None
            pairing.problems.append(_missing(found, part, image_stem, "image", subset, partner))
        elif label is None and labels is not None:
            pairing.problems.append(_missing(found, part, label_stem, "label", subset, image))
        else:
            pairing.items.append(_item(image_stem, image, label))
    if not wanted and not pairing.problems:
        where = found.base / mark_of(part)
        pairing.problems.append(Problem(str(where), f"there is no picture of '{subset}' in it", "Fetch it again."))
    return pairing


def _item(stem: str, image: str | ArchiveMember, label: str | ArchiveMember | None) -> Item:
    (image_path, image_at), (label_path, label_at) = _place(image), _place(label)
    return Item(stem, image_path, label_path, image_at=image_at, label_at=label_at)


def _place(file: str | ArchiveMember | None) -> tuple[str | None, list[Any] | None]:
    return (file.archive, file.slot) if isinstance(file, ArchiveMember) else (file, None)


def _inside(found: Found, listings: Sequence[Listing], pairing: Pairing) -> Inside:
    """Return the members of archives under the paths that they would have in folders of the archives' names.

    A folder that lies beside the archive of its name is that archive unpacked, so it is left out, and that is said.
    """
    inside = Inside()
    for listing in listings:
        pairing.problems.extend(listing.problems)
        folder = listing.path.parent.joinpath(listing.path.stem).relative_to(found.base).as_posix()
        if (found.base / folder).is_dir():
            inside.left_out.add(folder)
            pairing.warnings.append(f"{listing.path}: read as it is, the folder '{folder}' beside it is left out.")
        for member in listing.members:
            inside.files.append((f"{folder}/{_relative(member.name, Path(folder).name)}", member))
    return inside


def _relative(name: str, folder: str) -> str:
    """Return a member's path in the folder that its archive counts as, which some archives hold themselves."""
    return name.removeprefix("./").removeprefix(f"{folder}/")


Files = dict[str, str | ArchiveMember]


def _share_out(images: Files, labels: Files, image_pattern: str, label_pattern: str) -> None:
    """Let a file that fits both patterns (a.png, a_label.png) belong to the longer one only."""
    both = set(images.values()) & set(labels.values())
    loser = images if len(label_pattern) > len(image_pattern) else labels
    for stem in [stem for stem, path in loser.items() if path in both]:
        del loser[stem]


def _everything(part: SubsetLayout, images: Files, labels: Files | None) -> list[tuple[str, str]]:
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


def _missing(
    found: Found, part: SubsetLayout, stem: str, what: str, subset: str, partner: str | ArchiveMember | None
) -> Problem:
    pattern = part.images if what == "image" else part.labels or ""
    other = "label" if what == "image" else "image"
    path = str(found.base / pattern.replace("{stem}", stem))
    if isinstance(partner, ArchiveMember):
        path = f"{partner.archive}, member {stem}{PurePosixPath(pattern).suffix}"
    reason = f"listed in {part.list}" if part.list else f"the {other} '{stem}' of '{subset}' is there"
    return Problem(path, f"this {what} is missing ({reason})", f"Fetch it again, or remove its {other}.")
