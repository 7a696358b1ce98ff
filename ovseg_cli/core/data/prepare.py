"""How a data set is prepared: found or drawn, converted in parallel, checked, recorded; and continued if interrupted.

The order of writing makes every state a good one: pictures and labels are whole or absent, each finished one is
recorded at once, and the manifest, without which the data set does not open, comes last.
"""

import contextlib
import datetime
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from ovseg_cli import __version__
from ovseg_cli.core.data import check
from ovseg_cli.core.data.commands import prepare_command
from ovseg_cli.core.data.convert import Outcome
from ovseg_cli.core.data.index import SCHEMA, Entry, fingerprint, index_path
from ovseg_cli.core.data.job import Job, estimate_bytes, make_job, recorded_source, require_own_name
from ovseg_cli.core.data.labels import SeenLabels
from ovseg_cli.core.data.layout import holds_masks
from ovseg_cli.core.data.manifest import MANIFEST, SPEC, data_root, read_manifest
from ovseg_cli.core.data.pairing import Item
from ovseg_cli.core.data.parallel import ordered_map
from ovseg_cli.core.data.problems import BrokenData, Problem
from ovseg_cli.core.data.records import Entries, Records, read_records, write_records
from ovseg_cli.core.data.reports import PreparedReport, PreparePlan, make_report, timed
from ovseg_cli.core.data.source_tree import UnpackPlan, plan_unpacking, unpack_source
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.upkeep import (
    can_link,
    free_bytes,
    remove,
    require_own_folder,
    require_space,
    stale_files,
    sweep,
    without_needed,
)
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import folder_lock, write_json, write_text
from ovseg_cli.core.reporter import Reporter, Silent
from ovseg_cli.core.runtime import Folders

__all__ = ["PreparePlan", "PreparedReport", "plan", "prepare"]

PROBLEMS = "problems.txt"


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
        free=free_bytes(job.root),
        splits=tuple(split.id for split in spec.class_splits),
        warnings=tuple(job.warnings),
        problems=tuple(job.problems),
    )


def plan_archives(spec: Spec, folders: Folders, source: Path | None = None) -> UnpackPlan | None:
    """Say which archives `prepare` would unpack first, writing nothing; None where there are none."""
    require_own_name(spec)
    source = source or recorded_source(spec, folders)
    return None if source is None or spec.generator else plan_unpacking(spec, folders, source)


def prepare(
    spec: Spec,
    folders: Folders,
    source: Path | None = None,
    reporter: Reporter | None = None,
    workers: int = 1,
    check_only: bool = False,
    allow_missing: int | None = None,
) -> PreparedReport:
    """Prepare a data set, or go on with a preparation; or only check.

    Args:
        spec: The label space.
        folders: Where prepared data lies.
        source: Folder of the original files, or an archive of them; None takes that of the last preparation. Drawn data
            needs none. Archives are unpacked first, beside the prepared data.
        reporter: Receives progress and warnings.
        workers: Processes. More than one needs the caller's script to be guarded by `if __name__ == "__main__"`.
        check_only: Write nothing: judge the files in `source` if given, else read all prepared files again and
            compare them with what was recorded.
        allow_missing: How many pictures of the official counts may be missing from the source; None: any number.
            How many are missing is recorded and goes into every result (`PreparedData.shortfall`).

    Raises:
        DataError: More pictures are missing than allowed, or something is broken (`problems.BrokenData` lists every
            problem); pictures that were prepared stay.
        UsageError: See `make_job`.
        MachineError: The disk is too small or refuses, or another process prepares the same data.
    """
    reporter = reporter or Silent()
    started = time.monotonic()
    if check_only:
        return _check(spec, folders, source, reporter, workers, started, allow_missing)
    _unpack(spec, folders, source, reporter)
    job = make_job(spec, folders, source, reporter=reporter)
    _require_counts(job, allow_missing)
    with folder_lock(job.root, f"preparing {spec.name}"):
        require_own_folder(job.root)
        sweep(job.root)
        _tell_what_changed(job, reporter)
        if job.source is not None and not holds_masks(spec) and not can_link(job.root):
            reporter.say(f"{job.root}: links are impossible here, so the pictures are copied.")
            job = make_job(spec, folders, source, link=False)
        return _prepare(job, reporter, workers, started)


def _unpack(spec: Spec, folders: Folders, source: Path | None, reporter: Reporter) -> None:
    """Unpack the archives of a source, where it is one; what else is wrong with it `make_job` says."""
    require_own_name(spec)
    source = source or recorded_source(spec, folders)
    if spec.generator is None and source is not None:
        unpack_source(spec, folders, source, reporter)


def missing_pictures(spec: Spec, counts: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return subset → (pictures that are there, official count) where there are fewer."""
    official = {name: subset.images for name, subset in spec.subsets.items()}
    return {n: (have, expected) for n, have in counts.items() if (expected := official.get(n)) and have < expected}


def allowed_missing(folders: Folders, spec: Spec) -> int | None:
    """How many pictures may be missing where the user did not say; None: any number.

    What the last preparation accepted is accepted again. Masks without classes are never scored and come in a thousand
    archives, of which published trainings take a part: there any part will do, and it is said how many there are.
    """
    return None if holds_masks(spec) else accepted_missing(folders, spec.name)


def accepted_missing(folders: Folders, name: str) -> int:
    """How many missing pictures the last preparation of a data set accepted; 0 where there was none."""
    try:
        subsets = read_manifest(data_root(folders, name))["subsets"].values()
    except DataError:
        return 0
    return sum(max(0, (facts.get("expected") or 0) - facts["images"]) for facts in subsets)


def _require_counts(job: Job, allowed: int | None) -> None:
    """Refuse a source that lacks pictures; where a subset has none at all, what is known to be broken says why."""
    if job.problems and not all(job.items.values()):
        raise BrokenData(job.spec.name, job.problems, None, prepare_command(job.spec, job.source))
    short = missing_pictures(job.spec, {name: len(items) for name, items in job.items.items()})
    missing = sum(expected - have for have, expected in short.values())
    if allowed is None or missing <= allowed or job.source is None:
        return
    each = ", ".join(f"{name} {have:,} of {expected:,}" for name, (have, expected) in short.items())
    command = f"{prepare_command(job.spec, job.source)} --allow-missing {missing}"
    raise DataError(
        f"{job.source}: {missing:,} pictures of the official {job.spec.name} are not there ({each}).",
        f"Complete them, or accept it, which every result will say: {command}",
    )


def _tell_what_changed(job: Job, reporter: Reporter) -> None:
    """Say so where a folder was prepared under another label space: all of it is replaced."""
    with contextlib.suppress(DataError):
        if read_manifest(job.root).get("spec_digest") != job.spec.digest():
            reporter.say(
                f"{job.root} was prepared with another '{job.spec.name}' (its spec differs): all is made again."
            )


def _prepare(job: Job, reporter: Reporter, workers: int, started: float) -> PreparedReport:
    finished = {subset: job.finished(subset) for subset in job.items}
    left = {subset: _left(items, finished[subset]) for subset, items in job.items.items()}
    stale = stale_files(job.root, finished)
    made = sum(map(len, left.values()))
    require_space(job.root, estimate_bytes(job, left))
    if made or stale:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(job.root / MANIFEST)
    write_text(job.root / SPEC, _spec_text(job.spec))
    for listing in job.listings:
        listing.save(job.root)
    problems, subsets = list(job.problems), {}
    for subset in job.items:
        subsets[subset] = _make_subset(job, subset, finished[subset], left[subset], problems, reporter, workers)
    remove(job.root, without_needed(stale, subsets))
    if problems:
        _refuse(job, problems)
    return _finish(job, subsets, made, reporter, started)


def _make_subset(
    job: Job,
    subset: str,
    finished: Records,
    left: list[Item],
    problems: list[Problem],
    reporter: Reporter,
    workers: int,
) -> Records:
    """Prepare what is left of a subset, recording each picture as soon as it is done; return its records in order."""
    path = index_path(job.root, subset)
    records = write_records(path, finished, job.key)
    with records.adding() as add, contextlib.closing(_outcomes(job, subset, left, workers)) as outcomes:
        for outcome in reporter.track(outcomes, f"prepare {job.spec.name} {subset}", total=len(left)):
            problems.extend(outcome.problems)
            if outcome.entry:
                add(outcome.entry)
    return write_records(path, records.only(item.stem for item in job.items[subset]), job.key) if left else records


def _outcomes(job: Job, subset: str, left: list[Item], workers: int) -> Any:
    outcomes: Any = ordered_map(job.makers[subset], left, workers)
    return outcomes


def _finish(job: Job, subsets: dict[str, Records], made: int, reporter: Reporter, started: float) -> PreparedReport:
    """Write captions and, last, the manifest."""
    report = make_report(job.spec, job.root, subsets, made, [*job.warnings, *check.findings(job.spec, subsets)])
    for subset, entries in subsets.items():
        _write_captions(job.root, subset, entries)
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
    return timed(report, started, job.source, written=True)


def _check(
    spec: Spec,
    folders: Folders,
    source: Path | None,
    reporter: Reporter,
    workers: int,
    started: float,
    allow_missing: int | None,
) -> PreparedReport:
    """Check the source's files, or the prepared ones, writing nothing."""
    if source is not None:
        job = make_job(spec, folders, source, write=False, reporter=reporter)
        _require_counts(job, allow_missing)
        return _check_source(job, reporter, workers, started)
    root = data_root(folders, spec.name)
    manifest = read_manifest(root, spec.name, prepare_command(spec))
    command = prepare_command(spec.typed_as(spec.name), known=isinstance(manifest.get("source"), str))
    if manifest.get("spec_digest") != spec.digest():
        raise DataError(
            f"{root}: the spec of '{spec.name}' has changed since this was prepared.",
            f"Run: {prepare_command(spec, known=True)}",
        )
    job_seen = {split.id: split for split in spec.class_splits}
    subsets = {name: read_records(root, name) for name in manifest["subsets"]}
    ignore = 255 if spec.ignore_label is None else spec.ignore_label
    hidden = tuple(SeenLabels(name, split.digest(), tuple(spec.hidden_ids(split))) for name, split in job_seen.items())
    verifier = check.Verifier(root, hidden, ignore, spec.num_classes, spec.generator is not None)
    problems = [*check.verify(verifier, subsets, reporter, workers)]
    for name, entries in subsets.items():
        if fingerprint(entries) != manifest["subsets"][name].get("fingerprint"):
            problems.append(Problem(str(index_path(root, name)), "does not belong to the manifest"))
    if problems:
        raise BrokenData(spec.name, problems, None, command)
    report = make_report(spec, root, subsets, sum(map(len, subsets.values())), check.findings(spec, subsets))
    for warning in report.warnings:
        reporter.warn(warning)
    recorded = manifest.get("source")
    return timed(report, started, Path(recorded) if recorded else None, written=False)


def _check_source(job: Job, reporter: Reporter, workers: int, started: float) -> PreparedReport:
    """Judge the source's files; the records go into a folder that is removed again."""
    problems, subsets = list(job.problems), {}
    with tempfile.TemporaryDirectory(prefix="ovseg-check-") as place:
        for subset, items in job.items.items():
            outcomes: Any = ordered_map(job.makers[subset], items, workers)
            tracked = reporter.track(outcomes, f"check {job.spec.name} {subset}", total=len(items))
            subsets[subset] = write_records(Path(place) / subset, _entries(tracked, problems), job.key)
        if problems:
            raise BrokenData(job.spec.name, problems, None, f"{prepare_command(job.spec, job.source)} --check")
        warnings = [*job.warnings, *check.findings(job.spec, subsets)]
        report = make_report(job.spec, job.root, subsets, sum(map(len, subsets.values())), warnings)
    for warning in report.warnings:
        reporter.warn(warning)
    return timed(report, started, job.source, written=False)


def _entries(outcomes: Iterable[Outcome], problems: list[Problem]) -> Iterator[Entry]:
    for outcome in outcomes:
        problems.extend(outcome.problems)
        if outcome.entry:
            yield outcome.entry


def _left(items: list[Item], finished: Records) -> list[Item]:
    return [item for item in items if item.stem not in finished]


def _refuse(job: Job, problems: list[Problem]) -> None:
    """List all problems in a file and raise; what was prepared stays."""
    listed = job.root / PROBLEMS
    write_text(listed, "".join(f"{problem.line}\n" for problem in problems))
    raise BrokenData(job.spec.name, problems, listed, prepare_command(job.spec, job.source))


def _write_captions(root: Path, subset: str, entries: Entries) -> None:
    lines = [json.dumps({"name": e.stem, "caption": e.caption}, ensure_ascii=False) for e in entries if e.caption]
    if lines:
        write_text(root / "captions" / f"{subset}.jsonl", "\n".join(lines) + "\n")


def _spec_text(spec: Spec) -> str:
    return tomli_w.dumps(spec.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True, mode="json"))
