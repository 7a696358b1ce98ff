"""Which label belongs to which image: by a list file where the layout has one, else by the folders' contents.

A picture without its partner becomes a problem, never a gap.
"""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ovseg_cli.core.data.layout import Found, mark_of
from ovseg_cli.core.data.patterns import fixed_folder, index_files, pattern_regex
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.data.spec_files import SubsetLayout


@dataclass(frozen=True)
class Item:
    """One picture to prepare: files of a source, or the place of a drawn scene."""

    stem: str
    image: str | None = None
    label: str | None = None
    index: int = -1


@dataclass
class Pairing:
    """The items of one subset and what kept others from becoming one."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


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


def _share_out(images: dict[str, str], labels: dict[str, str], image_pattern: str, label_pattern: str) -> None:
    """Let a file that fits both patterns (a.png, a_label.png) belong to the longer one only."""
    both = set(images.values()) & set(labels.values())
    loser = images if len(label_pattern) > len(image_pattern) else labels
    for stem in [stem for stem, path in loser.items() if path in both]:
        del loser[stem]


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
