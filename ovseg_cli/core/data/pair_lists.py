"""Which pictures the list files of a subset name."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ovseg_cli.core.data.layout import Found
from ovseg_cli.core.data.patterns import pattern_regex
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.data.spec_files import SubsetLayout


def listed(found: Found, part: SubsetLayout, problems: list[Problem]) -> list[tuple[str, str]]:
    """Return image stem and label stem of what a subset's lists name, without what its `list_without` names.

    Within one list a picture may stand once only; several lists may share pictures.
    """
    without = (
        {image for image, _ in _one(found.base / part.list_without, part, problems)} if part.list_without else set()
    )
    stems: dict[str, str] = {}
    for file in (part.list or "", *part.list_also):
        for image, label in _one(found.base / file, part, problems):
            stems.setdefault(image, label)
    return [(image, label) for image, label in stems.items() if image not in without]


def _one(path: Path, part: SubsetLayout, problems: list[Problem]) -> list[tuple[str, str]]:
    """Read a list file: (image stem, label stem) of each line that is not blank."""
    stems: dict[str, str] = {}
    for where, line in _lines(path, problems):
        columns = line.split()
        if part.list_columns == "paths":
            image = _stem_of(columns[0], part.images)
            label = _stem_of(columns[1], part.labels) if part.labels and len(columns) > 1 else image
        else:
            image = label = columns[0]
        if image is None or label is None:
            what = f"'{line.strip()[:120]}' does not fit {part.images} {part.labels or ''}"
            problems.append(Problem(where, what.rstrip(), "Mend the line."))
        elif image in stems:
            problems.append(Problem(where, f"'{image}' is listed twice", "Remove one of the lines."))
        else:
            stems[image] = label
    return list(stems.items())


def _lines(path: Path, problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """Yield place and text of each line that is not blank."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), f"the list cannot be read ({error})", "Fetch it again."))
        return
    yield from ((f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip())


def _stem_of(text: str, pattern: str) -> str | None:
    """Read the stem out of a listed path, of which only as many last parts count as the pattern has."""
    tail = PurePosixPath(text.replace("\\", "/")).parts[-len(pattern.split("/")) :]
    match = pattern_regex(pattern).fullmatch("/".join(tail))
    return match["stem"] if match else None
