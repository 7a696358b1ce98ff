"""Which label belongs to which image: by list files where the layout has some, else by the contents of folders or JSON.

A picture without its partner becomes a problem, never a gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ovseg_cli.core.data.archive import ArchiveMember
from ovseg_cli.core.data.archive_list import Listing
from ovseg_cli.core.data.encodings.annotations import Annotations, Records
from ovseg_cli.core.data.layout import Found, mark_of
from ovseg_cli.core.data.pair_labels import Files, annotations_of, labels_of, lacks_files, records_of
from ovseg_cli.core.data.pair_lists import listed
from ovseg_cli.core.data.patterns import Inside, index_files
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Encoding, SubsetLayout
from ovseg_cli.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to prepare: files of a source, or the place of a drawn scene.

    Where `image` or `label` is an archive, `image_at` and `label_at` are name, offset and size in it. `records` are
    what a JSON holds about the picture: all of its label, or the classes of its segments.
    """

    stem: str
    image: str | None = None
    label: str | None = None
    index: int = -1
    image_at: Sequence[Any] | None = None
    label_at: Sequence[Any] | None = None
    records: Records | None = None


@dataclass
class Pairing:
    """The items of one subset, what kept others from becoming one, and what is worth knowing."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def pair(found: Found, subset: str, listings: Sequence[Listing] = (), spec: Spec | None = None) -> Pairing:
    """List the pictures of a subset with their labels; missing partners become problems, never gaps.

    Args:
        found: The layout and where it is.
        subset: One of its subsets.
        listings: Its archives.
        spec: The label space; needed where a JSON holds labels, or where labels of several layouts lie in one folder.
    """
    part = found.layout.subsets[subset]
    pairing = Pairing()
    inside = _inside(found, listings, pairing)
    if lacks_files(found, subset, pairing.problems):
        return pairing
    try:
        annotations = annotations_of(
            found, part, spec.encoding_of(found.layout) if spec else Encoding(), pairing.problems
        )
    except DataError as error:
        file, _, what = error.message.partition(": ")
        pairing.problems.append(Problem(file, what.rstrip("."), error.mend or ""))
        return pairing
    images = index_files(found.base, part.images, pairing.problems, inside)
    labels = labels_of(found, subset, annotations, pairing.problems, inside, spec)
    if labels:
        _share_out(images, labels, part.images, part.labels or "")
    wanted = _wanted(found, subset, images, labels, annotations, pairing)
    for stems in wanted:
        _pair_one(found, subset, stems, images, labels, annotations, pairing)
    if not wanted and not pairing.problems:
        where = found.base / mark_of(part)
        pairing.problems.append(Problem(str(where), f"there is no picture of '{subset}' in it", "Fetch it again."))
    return pairing


def _pair_one(
    found: Found,
    subset: str,
    stems: tuple[str, str],
    images: Files,
    labels: Files | None,
    annotations: Annotations | None,
    pairing: Pairing,
) -> None:
    """Add a picture with its label, or what of the two is missing."""
    part = found.layout.subsets[subset]
    image = images.get(stems[0])
    label = labels.get(stems[1]) if labels is not None else None
    if image is None:
        pairing.problems.append(_missing(found, part, stems[0], "image", subset, label))
    elif label is None and labels is not None:
        pairing.problems.append(_missing(found, part, stems[1], "label", subset, image))
    elif part.segments and annotations and stems[1] not in annotations.pictures:
        what = f"{found.base / part.segments} does not say what its segments are"
        pairing.problems.append(Problem(str(label), what, "Fetch both again, or remove the picture."))
    else:
        pairing.items.append(_item(stems[0], image, label, records_of(part, annotations, stems[1])))


def _wanted(
    found: Found,
    subset: str,
    images: Files,
    labels: Files | None,
    annotations: Annotations | None,
    pairing: Pairing,
) -> list[tuple[str, str]]:
    """Return stem of image and of label of each picture of a subset."""
    part = found.layout.subsets[subset]
    if part.list_columns == "json-phase" and annotations:
        return [(stem, stem) for stem, phase in annotations.phases.items() if phase == subset]
    return listed(found, part, pairing.problems) if part.list else _everything(part, images, labels)


def _item(
    stem: str, image: str | ArchiveMember, label: str | ArchiveMember | None, records: Records | None = None
) -> Item:
    (image_path, image_at), (label_path, label_at) = _place(image), _place(label)
    return Item(stem, image_path, label_path, image_at=image_at, label_at=label_at, records=records)


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


def _missing(
    found: Found, part: SubsetLayout, stem: str, what: str, subset: str, partner: str | ArchiveMember | None
) -> Problem:
    pattern = part.images if what == "image" else part.labels or ""
    other = "label" if what == "image" else "image"
    path = str(found.base / pattern.replace("{stem}", stem))
    if what == "label" and not part.has_label_files:
        return Problem(path, f"it says nothing about '{stem}', a picture of '{subset}'", "Fetch it again.")
    if isinstance(partner, ArchiveMember):
        path = f"{partner.archive}, member {stem}{PurePosixPath(pattern).suffix}"
    reason = f"listed in {part.list}" if part.list else f"the {other} '{stem}' of '{subset}' is there"
    return Problem(path, f"this {what} is missing ({reason})", f"Fetch it again, or remove its {other}.")
