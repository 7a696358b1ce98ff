"""How a data set is prepared: found or drawn, converted in parallel, checked, recorded; and continued if interrupted.

The order of writing makes every state a good one: pictures and labels are whole or absent, each finished one is
recorded at once, and the manifest, without which the data set does not open, comes last.
"""

import contextlib
import datetime
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from ovseg_cli import __version__
from ovseg_cli.core.data import check
from ovseg_cli.core.data.convert import Outcome
from ovseg_cli.core.data.job import Job, estimate_bytes, make_job
from ovseg_cli.core.data.layout import Item, Problem
from ovseg_cli.core.data.manifest import (
    MANIFEST,
    SCHEMA,
    SPEC,
    Entry,
    append,
    count_pixels,
    data_root,
    fingerprint,
    index_path,
    open_index,
    read_index,
    read_manifest,
    total_fingerprint,
    write_index,
)
from ovseg_cli.core.data.parallel import ordered_map
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.errors import DataError, MachineError
from ovseg_cli.core.files import folder_lock, write_json, write_text
from ovseg_cli.core.reporter import Reporter, Silent
from ovseg_cli.core.runtime import Folders

PROBLEMS = "problems.txt"
_SPARE = 64 << 20  # bytes that stay free besides the estimate


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


def plan(spec: Spec, folders: Folders, source: Path | None = None) -> PreparePlan:
    """Say what `prepare` would do, writing nothing. Raises what `make_job` raises."""
    job = make_job(spec, folders, source)
    left = {subset: _left(items, job.finished(subset)) for subset, items in job.items.items()}
    return PreparePlan(
        name=spec.name,
        root=job.root,
        source=job.source,
        layout=job.layout,
        images={subset: len(items) for subset, items in job.items.items()},
        left={subset: len(items) for subset, items in left.items()},
        need=estimate_bytes(job, left),
        free=_free_bytes(job.root),
        splits=tuple(split.id for split in spec.class_splits),
        warnings=tuple(job.warnings),
        problems=tuple(job.problems),
    )


def prepare(
    spec: Spec,
    folders: Folders,
    source: Path | None = None,
    reporter: Reporter | None = None,
    workers: int = 1,
    check_only: bool = False,
) -> PreparedReport:
    """Prepare a data set, or go on with a preparation; or only check.

    Args:
        spec: The label space.
        folders: Where prepared data lies.
        source: Folder of the original files; None takes that of the last preparation. Drawn data needs none.
        reporter: Receives progress and warnings.
        workers: Processes. More than one needs the caller's script to be guarded by `if __name__ == "__main__"`.
        check_only: Write nothing: judge the files in `source` if given, else read all prepared files again and
            compare them with what was recorded.

    Raises:
        DataError: Something is missing or broken (`check.BrokenData` lists every problem); pictures that were
            prepared stay.
        UsageError: See `make_job`.
        MachineError: The disk is too small or refuses, or another process prepares the same data.
    """
    reporter = reporter or Silent()
    started = time.monotonic()
    if check_only:
        return _check(spec, folders, source, reporter, workers, started)
    job = make_job(spec, folders, source)
    with folder_lock(job.root, f"preparing {spec.name}"):
        _require_own_folder(job.root)
        _sweep(job.root)
        if job.source is not None and not _can_link(job.root):
            reporter.say(f"{job.root}: links are impossible here, so the pictures are copied.")
            job = make_job(spec, folders, source, link=False)
        return _prepare(job, reporter, workers, started)


def _prepare(job: Job, reporter: Reporter, workers: int, started: float) -> PreparedReport:
    finished = {subset: job.finished(subset) for subset in job.items}
    left = {subset: _left(items, finished[subset]) for subset, items in job.items.items()}
    stale = _stale_files(job, finished)
    made = sum(map(len, left.values()))
    _require_space(job, estimate_bytes(job, left))
    if made or stale:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(job.root / MANIFEST)
    problems, subsets = list(job.problems), {}
    for subset, items in job.items.items():
        entries = _make_subset(job, subset, finished[subset], left[subset], problems, reporter, workers)
        subsets[subset] = [entries[item.stem] for item in items if item.stem in entries]
    _remove(job.root, stale - {path for entries in subsets.values() for e in entries for path in _paths(e)})
    if problems:
        _refuse(job, problems)
    return _finish(job, subsets, made, reporter, started)


def _make_subset(
    job: Job,
    subset: str,
    finished: dict[str, Entry],
    left: list[Item],
    problems: list[Problem],
    reporter: Reporter,
    workers: int,
) -> dict[str, Entry]:
    """Prepare what is left of a subset, recording each picture as soon as it is done; return stem → entry."""
    entries = dict(finished)
    write_index(job.root, subset, entries.values(), job.key)
    with open_index(job.root, subset) as index, contextlib.closing(_outcomes(job, subset, left, workers)) as outcomes:
        for outcome in reporter.track(outcomes, f"prepare {job.spec.name} {subset}", total=len(left)):
            problems.extend(outcome.problems)
            if outcome.entry:
                entries[outcome.entry.stem] = outcome.entry
                append(index, outcome.entry)
    order = [entries[item.stem] for item in job.items[subset] if item.stem in entries]
    if left:
        write_index(job.root, subset, order, job.key)
    return entries


def _outcomes(job: Job, subset: str, left: list[Item], workers: int) -> Any:
    outcomes: Any = ordered_map(job.makers[subset], left, workers)
    return outcomes


def _finish(job: Job, subsets: dict[str, list[Entry]], made: int, reporter: Reporter, started: float) -> PreparedReport:
    """Write captions, spec and, last, the manifest."""
    report = _report(job.spec, job.root, subsets, made, [*job.warnings, *check.findings(job.spec, subsets)])
    for subset, entries in subsets.items():
        _write_captions(job.root, subset, entries)
    write_text(job.root / SPEC, _spec_text(job.spec))
    facts = {
        name: {
            "images": report.images[name],
            "expected": report.expected[name],
            "fingerprint": fingerprint(entries),
            "pixels": report.pixels[name],
            "pictures": report.pictures[name],
            "ignored": report.ignored[name],
        }
        for name, entries in subsets.items()
    }
    document = {
        "schema": SCHEMA,
        "name": job.spec.name,
        "title": job.spec.title,
        "version": __version__,
        "spec_digest": job.spec.digest(),
        "generator_digest": job.generator_digest,
        "source": str(job.source) if job.source else None,
        "layout": job.layout,
        "splits": {split.id: split.digest() for split in job.spec.class_splits},
        "fingerprint": report.fingerprint,
        "warnings": list(report.warnings),
        "prepared_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "subsets": facts,
    }
    with contextlib.suppress(FileNotFoundError):
        os.unlink(job.root / PROBLEMS)
    write_json(job.root / MANIFEST, document)
    for warning in report.warnings:
        reporter.warn(warning)
    return _timed(report, started, job.source, written=True)


def _check(
    spec: Spec, folders: Folders, source: Path | None, reporter: Reporter, workers: int, started: float
) -> PreparedReport:
    """Check the source's files, or the prepared ones, writing nothing."""
    if source is not None:
        return _check_source(make_job(spec, folders, source, write=False), reporter, workers, started)
    root = data_root(folders, spec.name)
    manifest = read_manifest(root, spec.name)
    command = f"ovseg prepare {spec.name}"
    if manifest.get("spec_digest") != spec.digest():
        raise DataError(f"{root}: the spec of '{spec.name}' has changed since this was prepared.", f"Run: {command}")
    job_seen = {split.id: split for split in spec.class_splits}
    subsets = {name: list(read_index(root, name).values()) for name in manifest["subsets"]}
    ignore = 255 if spec.ignore_label is None else spec.ignore_label
    hidden = tuple(
        check.SeenLabels(name, split.digest(), tuple(spec.hidden_ids(split))) for name, split in job_seen.items()
    )
    verifier = check.Verifier(root, hidden, ignore, spec.num_classes, spec.generator is not None)
    problems = [*check.verify(verifier, subsets, reporter, workers)]
    for name, entries in subsets.items():
        if fingerprint(entries) != manifest["subsets"][name].get("fingerprint"):
            problems.append(Problem(str(index_path(root, name)), "does not belong to the manifest"))
    if problems:
        raise check.BrokenData(spec.name, problems, None, command)
    report = _report(spec, root, subsets, sum(map(len, subsets.values())), check.findings(spec, subsets))
    for warning in report.warnings:
        reporter.warn(warning)
    recorded = manifest.get("source")
    return _timed(report, started, Path(recorded) if recorded else None, written=False)


def _check_source(job: Job, reporter: Reporter, workers: int, started: float) -> PreparedReport:
    problems, subsets = list(job.problems), {}
    for subset, items in job.items.items():
        outcomes: Any = ordered_map(job.makers[subset], items, workers)
        results: list[Outcome] = []
        for outcome in reporter.track(outcomes, f"check {job.spec.name} {subset}", total=len(items)):
            problems.extend(outcome.problems)
            results.append(outcome)
        subsets[subset] = [outcome.entry for outcome in results if outcome.entry]
    if problems:
        command = f"ovseg prepare {job.spec.name} --source {job.source} --check"
        raise check.BrokenData(job.spec.name, problems, None, command)
    warnings = [*job.warnings, *check.findings(job.spec, subsets)]
    report = _report(job.spec, job.root, subsets, sum(map(len, subsets.values())), warnings)
    for warning in report.warnings:
        reporter.warn(warning)
    return _timed(report, started, job.source, written=False)


def _report(spec: Spec, root: Path, subsets: dict[str, list[Entry]], made: int, warnings: list[str]) -> PreparedReport:
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
    )


def _timed(report: PreparedReport, started: float, source: Path | None, written: bool) -> PreparedReport:
    from dataclasses import replace

    return replace(report, seconds=time.monotonic() - started, source=source, written=written)


def _left(items: list[Item], finished: dict[str, Entry]) -> list[Item]:
    return [item for item in items if item.stem not in finished]


def _refuse(job: Job, problems: list[Problem]) -> None:
    """List all problems in a file and raise; what was prepared stays."""
    listed = job.root / PROBLEMS
    write_text(listed, "".join(f"{problem}. {problem.mend}".rstrip() + "\n" for problem in problems))
    source = f" --source {job.source}" if job.source else ""
    raise check.BrokenData(job.spec.name, problems, listed, f"ovseg prepare {job.spec.name}{source}")


def _write_captions(root: Path, subset: str, entries: list[Entry]) -> None:
    lines = [json.dumps({"name": e.stem, "caption": e.caption}, ensure_ascii=False) for e in entries if e.caption]
    if lines:
        write_text(root / "captions" / f"{subset}.jsonl", "\n".join(lines) + "\n")


def _spec_text(spec: Spec) -> str:
    return tomli_w.dumps(spec.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True, mode="json"))


def _paths(entry: Entry) -> set[str]:
    return {entry.image, *entry.files, *([entry.label] if entry.label else [])}


def _stale_files(job: Job, finished: dict[str, dict[str, Entry]]) -> set[str]:
    """Paths that earlier runs wrote and that no finished entry needs any more."""
    needed = {path for entries in finished.values() for entry in entries.values() for path in _paths(entry)}
    stale: set[str] = set()
    for path in sorted((job.root / "index").glob("*.jsonl")):
        with contextlib.suppress(DataError):
            for entry in read_index(job.root, path.stem).values():
                stale |= _paths(entry) - needed
        if path.stem not in job.items:
            stale.add(f"index/{path.name}")
    return stale


def _remove(root: Path, stale: set[str]) -> None:
    """Remove files that earlier runs wrote; a path that leads out of the folder is left alone."""
    for relative in stale:
        parts = Path(relative).parts
        if parts and not Path(relative).is_absolute() and ".." not in parts:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(root / relative)
    for folder in sorted({(root / relative).parent for relative in stale}, reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()


def _sweep(root: Path) -> None:
    """Remove the temporary files that a killed process left."""
    for path in root.rglob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _require_own_folder(root: Path) -> None:
    """Refuse a folder that holds files of somebody else."""
    own = (root / MANIFEST).exists() or (root / "index").is_dir()
    others = [path.name for path in root.iterdir() if path.name != ".lock"]
    if others and not own:
        raise DataError(
            f"{root}: this folder holds files that ovseg did not write ({', '.join(sorted(others)[:3])}).",
            "Move them, or choose another folder with --data-root.",
        )


def _can_link(root: Path) -> bool:
    probe = root / f".probe.{os.getpid()}.part"
    try:
        os.symlink("nowhere", probe)
        os.unlink(probe)
    except (OSError, NotImplementedError):
        return False
    return True


def _free_bytes(root: Path) -> int:
    there = next(folder for folder in [root.absolute(), *root.absolute().parents] if folder.exists())
    return shutil.disk_usage(there).free


def _require_space(job: Job, need: int) -> None:
    free = _free_bytes(job.root)
    if need and need + _SPARE > free:
        raise MachineError(
            f"{job.root}: {job.spec.name} needs about {(need + _SPARE) / 1e9:.2f} GB, {free / 1e9:.2f} GB are free.",
            "Free some space, or choose another disk with --data-root.",
        )
