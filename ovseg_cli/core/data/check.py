"""Whether prepared data is whole: every file readable and unchanged, labels within the spec, counts as expected.

Broken files are problems and end in a DataError that names them; what merely may be a mistake (fewer pictures than
the official set, a class that never occurs, a picture in training and in validation) is a warning.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovseg_cli.core.data import originals
from ovseg_cli.core.data.archive import DataFile
from ovseg_cli.core.data.images import load_image, load_label
from ovseg_cli.core.data.index import Entry, count_pixels
from ovseg_cli.core.data.labels import SeenLabels, hide, label_hash
from ovseg_cli.core.data.parallel import ordered_map
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.data.records import Entries
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.files import sha256_file
from ovseg_cli.core.reporter import Reporter


def findings(spec: Spec, subsets: Mapping[str, Entries]) -> list[str]:
    """Return what may be a mistake: counts, classes that never occur, the same picture in two subsets."""
    return [*_counts(spec, subsets), *_absent_classes(spec, subsets), *_duplicates(subsets)]


def _counts(spec: Spec, subsets: Mapping[str, Entries]) -> list[str]:
    notes = []
    for name, subset in spec.subsets.items():
        have, expected = len(subsets[name]) if name in subsets else 0, subset.images
        if name not in subsets:
            of = f" ({expected:,} pictures)" if expected else ""
            notes.append(f"{spec.name}: subset '{name}'{of} is not there.")
        elif expected is not None and have < expected:
            notes.append(f"{spec.name}: subset '{name}' has {have:,} of the {expected:,} pictures of the official one.")
        elif expected is not None and have > expected:
            notes.append(f"{spec.name}: subset '{name}' has {have:,} pictures, more than the official {expected:,}.")
    return notes


def _absent_classes(spec: Spec, subsets: Mapping[str, Entries]) -> list[str]:
    notes, known = [], spec.class_names
    for name, entries in subsets.items():
        if not any(entry.label for entry in entries):
            continue
        _, pictures, _ = count_pixels(entries, spec.num_classes)
        absent = [known[i] for i, count in enumerate(pictures) if count == 0]
        if absent:
            some = f"{', '.join(absent[:8])}{' …' if len(absent) > 8 else ''}"
            word = "class never occurs" if len(absent) == 1 else "classes never occur"
            notes.append(f"{spec.name}: {len(absent)} {word} in subset '{name}': {some}.")
    return notes


def _duplicates(subsets: Mapping[str, Entries]) -> list[str]:
    """Name pictures that training and another subset share, by content."""
    training = {_digest(entry) for name in subsets if is_training(name) for entry in subsets[name]}
    others = [name for name in subsets if not is_training(name)]
    found = {name: {_digest(e): e.stem for e in subsets[name] if _digest(e) in training} for name in others}
    wanted = {digest for stems in found.values() for digest in stems}
    first: dict[bytes, str] = {}
    for name in subsets if wanted else ():
        for entry in subsets[name] if is_training(name) else ():
            if _digest(entry) in wanted:
                first[_digest(entry)] = f"{name}/{entry.stem}"
    notes = []
    for name, stems in found.items():
        if stems:
            some = ", ".join(f"{first[digest]} = {name}/{stem}" for digest, stem in list(stems.items())[:3])
            more = f" and {len(stems) - 3} more" if len(stems) > 3 else ""
            word = "picture is" if len(stems) == 1 else "pictures are"
            notes.append(f"{len(stems)} {word} in the training set and in '{name}': {some}{more}.")
    return notes


def _digest(entry: Entry) -> bytes:
    return bytes.fromhex(entry.image_sha)  # half as large as its digits: there is one of each training picture


def is_training(subset: str) -> bool:
    """Whether methods train on a subset ("train", "train-aug", …), so that it gets seen-only labels."""
    return subset.startswith("train")


@dataclass(frozen=True)
class Verifier:
    """Compares one prepared picture with its entry; picklable."""

    root: Path
    seen: tuple[SeenLabels, ...]
    ignore_label: int
    num_classes: int
    drawn: bool

    def __call__(self, entry: Entry) -> tuple[Problem, ...]:
        """Return what is broken."""
        problems: list[Problem] = []
        for look in (self._image, self._labels, self._masks):
            try:
                look(entry, problems)
            except (OvsegError, OSError) as error:
                file = str(entry.image_file(self.root))
                text = getattr(error, "message", None) or str(error)
                file, _, what = text.partition(": ") if ": " in text else (file, "", text)
                problems.append(Problem(file, what.rstrip("."), getattr(error, "mend", None) or ""))
        return tuple(problems)

    def _image(self, entry: Entry, problems: list[Problem]) -> None:
        path = entry.image_file(self.root)
        picture = load_image(path, upright=entry.upright)
        sha = originals.head_hash if entry.masks else _file_hash
        if picture.shape[:2] != (entry.height, entry.width):
            what = f"is {picture.shape[1]} x {picture.shape[0]}, was {entry.width} x {entry.height} when prepared"
            problems.append(Problem(str(path), what, "Restore the picture."))
        elif not self.drawn and sha(path) != entry.image_sha:
            problems.append(Problem(str(path), "the picture has changed since it was prepared", "Restore the picture."))

    def _masks(self, entry: Entry, problems: list[Problem]) -> None:
        path = entry.masks_file(self.root)
        if path is None:
            return
        originals.read_masks(path)
        if originals.head_hash(path) != entry.masks_sha:
            problems.append(Problem(str(path), "the masks have changed since this was prepared", "Prepare again."))

    def _labels(self, entry: Entry, problems: list[Problem]) -> None:
        if entry.label is None:
            return
        path = self.root / entry.label
        label = load_label(path)
        values = np.unique(label)
        strange = values[(values >= self.num_classes) & (values != self.ignore_label)]
        if label_hash(label) != entry.label_sha:
            more = f"; value {strange[0]} is outside the spec" if strange.size else ""
            problems.append(Problem(str(path), f"the label has changed since it was prepared{more}", "Remove it."))
            return
        for part in self.seen if entry.seen else ():
            path = self.root / f"labels-{part.split}" / Path(entry.label).relative_to("labels")
            if not np.array_equal(load_label(path), hide(label, part.hidden, self.ignore_label)):
                what = f"does not leave out exactly the unseen classes of split '{part.split}'"
                problems.append(Problem(str(path), what, "Remove it."))


def _file_hash(path: DataFile) -> str:
    assert isinstance(path, Path), "what lies in an archive is recorded by its beginning"
    return sha256_file(path)[:32]


def verify(verifier: Verifier, subsets: Mapping[str, Entries], reporter: Reporter, workers: int) -> tuple[Problem, ...]:
    """Read every prepared file again and compare it with its record; also find files that have none."""
    problems: list[Problem] = []
    for name, entries in subsets.items():
        results = ordered_map(verifier, entries, workers)
        for found in reporter.track(results, f"check {verifier.root.name} {name}", total=len(entries)):
            problems.extend(found)
        problems.extend(_strays(verifier.root / "images" / name, (Path(e.image).name for e in entries), "image"))
        labels = (Path(e.label).name for e in entries if e.label)
        problems.extend(_strays(verifier.root / "labels" / name, labels, "label"))
    return tuple(problems)


def _strays(folder: Path, known: Iterable[str], what: str) -> list[Problem]:
    """Name files of a folder that no record knows."""
    names = {name for name in os.listdir(folder) if not name.startswith(".")} if folder.is_dir() else set()
    for name in known:
        names.discard(name)
    other = "label" if what == "image" else "image"
    return [Problem(str(folder / name), f"this {what} has no {other}", "Remove it.") for name in sorted(names)]
