"""What a preparation, a check or a plan tells: counts, histograms, fingerprint, warnings, time."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ovseg_cli.core.data.index import count_pixels, fingerprint
from ovseg_cli.core.data.manifest import total_fingerprint
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.data.records import Entries
from ovseg_cli.core.data.spec import Spec


@dataclass(frozen=True)
class PreparedReport:
    """What a preparation, or a check, did and found.

    Attributes:
        name, root: The data set and its folder.
        images: Subset → pictures.
        expected: Subset → official count, None where unknown.
        made: Pictures that were prepared now (read, by a check); the others were complete already.
        seconds: Time taken.
        fingerprint: Of all pictures and labels.
        pixels: Subset → pixels of each class, in train-id order.
        pictures: Subset → pictures that show each class.
        ignored: Subset → pixels without a class.
        warnings: What may be a mistake.
        source: Folder of the originals, None for drawn data.
        written: False after a check.
        classes: Names in train-id order.
    """

    name: str
    root: Path
    images: dict[str, int]
    expected: dict[str, int | None]
    made: int
    seconds: float
    fingerprint: str
    pixels: dict[str, list[int]] = field(default_factory=dict)
    pictures: dict[str, list[int]] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    source: Path | None = None
    written: bool = True
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparePlan:
    """What `ovseg prepare --dry-run` prints.

    Attributes:
        images: Subset → pictures.
        left: Subset → pictures that are not prepared yet.
        need: Estimated bytes that they will take.
        free: Bytes free on that disk.
        splits: Class splits whose seen-only training labels are written.
        layout: Layout that was found.
        problems: What is known to be broken before any file is read.
    """

    name: str
    root: Path
    source: Path | None
    layout: str | None
    images: dict[str, int]
    left: dict[str, int]
    need: int
    free: int
    splits: tuple[str, ...]
    warnings: tuple[str, ...]
    problems: tuple[Problem, ...]


def make_report(
    spec: Spec, root: Path, subsets: Mapping[str, Entries], made: int, warnings: list[str]
) -> PreparedReport:
    """Add up the records of all subsets."""
    counted = {name: count_pixels(entries, spec.num_classes) for name, entries in subsets.items()}
    return PreparedReport(
        name=spec.name,
        root=root,
        images={name: len(entries) for name, entries in subsets.items()},
        expected={name: spec.subsets[name].images if name in spec.subsets else None for name in subsets},
        made=made,
        seconds=0.0,
        fingerprint=total_fingerprint({name: fingerprint(entries) for name, entries in subsets.items()}),
        pixels={name: counts[0] for name, counts in counted.items()},
        pictures={name: counts[1] for name, counts in counted.items()},
        ignored={name: counts[2] for name, counts in counted.items()},
        warnings=tuple(dict.fromkeys(warnings)),
        classes=tuple(spec.class_names),
    )


def class_counts(report: PreparedReport, most: int) -> list[int]:
    """Return the train ids whose counts are worth printing: all in their order, or of many the rarest that occur."""
    if len(report.classes) <= most:
        return list(range(len(report.classes)))
    total = [sum(counts[i] for counts in report.pixels.values()) for i in range(len(report.classes))]
    return sorted((i for i, count in enumerate(total) if count), key=lambda i: (total[i], i))[:most]


def timed(report: PreparedReport, started: float, source: Path | None, written: bool) -> PreparedReport:
    """Complete a report with the seconds since `started` and where the pictures came from."""
    return replace(report, seconds=time.monotonic() - started, source=source, written=written)
