"""Where the labels of a subset are: in a file a picture, or in a JSON for all of them."""

from pathlib import Path

from ovseg_cli.core.data.archive import ArchiveMember
from ovseg_cli.core.data.encodings.annotations import Annotations, Records, read_annotations
from ovseg_cli.core.data.layout import Found, others_patterns
from ovseg_cli.core.data.patterns import Inside, fixed_folder, index_files
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Encoding, SubsetLayout

Files = dict[str, str | ArchiveMember]
"""Stem → file."""


def lacks_files(found: Found, subset: str, problems: list[Problem]) -> bool:
    """Whether a folder or a JSON that a subset needs is missing, which becomes a problem."""
    part = found.layout.subsets[subset]
    for pattern in (part.images, part.labels):
        if pattern and not (found.base / fixed_folder(pattern)).is_dir():
            folder = str(found.base / fixed_folder(pattern))
            problems.append(Problem(folder, f"this folder of '{subset}' is missing", "Fetch it, too."))
            return True
    for file in (part.labels if part.labels and not part.has_label_files else None, part.segments):
        if file and not (found.base / file).is_file():
            what = f"this file, which holds the labels of '{subset}', is missing"
            problems.append(Problem(str(found.base / file), what, "Fetch it, too."))
            return True
    return False


def annotations_of(found: Found, part: SubsetLayout, encoding: Encoding, problems: list[Problem]) -> Annotations | None:
    """Read the JSON that a subset's labels or its list stand in; what is wrong in it becomes problems.

    Raises:
        DataError: It cannot be read as a whole.
    """
    by_phase = part.list if part.list_columns == "json-phase" else None
    file = part.segments or (part.labels if part.labels and not part.has_label_files else by_phase)
    if file is None:
        return None
    path = found.base / file
    only_a_list = by_phase == file and part.has_label_files
    annotations = read_annotations(path, None if only_a_list else encoding.records or "annotations")
    for stem in annotations.twice[:3]:
        problems.append(Problem(str(path), f"picture '{stem}' stands twice in 'images'", "Remove one of them."))
    if annotations.strays:
        what = "1 record belongs" if annotations.strays == 1 else f"{annotations.strays} records belong"
        what += " to no picture of 'images'"
        problems.append(Problem(str(path), what, "Fetch it again."))
    return annotations


def records_of(part: SubsetLayout, annotations: Annotations | None, stem: str) -> Records | None:
    """Return what a JSON holds of a picture's label; one that only lists pictures holds nothing of it."""
    of_labels = part.segments or (part.labels and not part.has_label_files)
    return annotations.pictures.get(stem) if annotations and of_labels else None


def labels_of(
    found: Found,
    subset: str,
    annotations: Annotations | None,
    problems: list[Problem],
    inside: Inside,
    spec: Spec | None,
) -> Files | None:
    """Return stem → label of every picture: its own file, or the one JSON that holds all of them."""
    part = found.layout.subsets[subset]
    if part.labels is None:
        return None
    if not part.has_label_files:
        return dict.fromkeys(annotations.pictures if annotations else (), str(found.base / part.labels))
    labels: Files = {}
    for pattern in (part.labels, *part.labels_else):
        if (found.base / fixed_folder(pattern)).is_dir():
            labels = {**index_files(found.base, pattern, problems, inside), **labels}
    if spec:
        _leave_to_others(labels, found, subset, spec)
    return labels


def _leave_to_others(labels: Files, found: Found, subset: str, spec: Spec) -> None:
    """Take out labels that another layout means."""
    others = others_patterns(spec, found.layout, subset)
    for stem, label in list(labels.items()) if others else []:
        name = label.name if isinstance(label, ArchiveMember) else Path(label).relative_to(found.base).as_posix()
        if any(regex.fullmatch(name) for regex in others):
            del labels[stem]
