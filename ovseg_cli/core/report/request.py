"""What `ovseg report RUN…` means: from run folders and result files to the tables that are printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.metrics import Rule, Split
from ovseg_cli.core.evaluation.result_files import load_result
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.class_tables import class_table, delta_table
from ovseg_cli.core.report.compare import difference_table
from ovseg_cli.core.report.grouping import Group, group_seeds, row_labels
from ovseg_cli.core.report.tables import View, result_table
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import CONFIG, Run, find_run
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.training.seeds import open_seeds


@dataclass(frozen=True)
class ReportRequest:
    """Options of `ovseg report`, as typed; the fields are explained in its help."""

    results: tuple[str, ...]
    baseline: str | None = None
    per_class: bool = False
    split: Split = "all"
    absent: Rule = "union"
    group_seeds: bool = False
    resamples: int = 1000


def build(request: ReportRequest, folders: Folders, reporter: Reporter) -> list[Table]:
    """Make the tables: scores, then differences to the baseline, then classes.

    Of several runs those without a result are left out, with a warning.

    Raises:
        UsageError: A name is no run and no result file, no run has a result, or results cannot share a table.
        DataError: A result file is broken.
    """
    view = View(rule=request.absent, split=request.split, resamples=request.resamples)
    results = _all_results(request.results, folders, reporter)
    base = find_results(request.baseline, folders) if request.baseline else []
    everything = _once([*results, *base])
    groups: list[Group] = list(group_seeds(everything)) if request.group_seeds else [[r] for r in everything]
    tables = [result_table(groups, view)]
    if base:
        tables += _differences(groups, base, view, request.per_class)
    elif request.per_class:
        tables += [class_table(same, view) for same in _by_data([group[0] for group in groups])]
    return tables


def _differences(groups: Sequence[Group], base: Sequence[Result], view: View, per_class: bool) -> list[Table]:
    """For each data set and protocol of the baseline, the differences of all that were scored on it."""
    tables: list[Table] = []
    for baseline in base:
        own = next(group for group in groups if any(_same(baseline, result) for result in group))
        rivals = [g for g in groups if _key(g[0]) == _key(baseline) and g is not own]
        if not rivals:
            continue
        tables.append(difference_table([*rivals, own], own, view))
        if per_class:
            *labels, last = row_labels([*rivals, own])
            tables += [delta_table(g[0], own[0], view, (label, last)) for g, label in zip(rivals, labels, strict=True)]
    if not tables:
        raise UsageError(
            "--baseline: no other result was scored on its data with its candidates.",
            "Name a run that was scored on the same data.",
        )
    return tables


def _all_results(names: Sequence[str], folders: Folders, reporter: Reporter) -> list[Result]:
    results: list[Result] = []
    empty: list[NoResult] = []
    for name in names:
        try:
            results += find_results(name, folders)
        except NoResult as error:
            empty.append(error)
    if not results:
        raise empty[0]
    for failure in empty:
        reporter.warn(f"left out: {failure.message}")
    return results


class NoResult(UsageError):
    """A run that was never scored."""


def find_results(name: str, folders: Folders) -> list[Result]:
    """Read the results that a name means: a result file, a run folder (all of its results), `latest`, or all seeds.

    Raises:
        UsageError: There is no such run or file, or the run holds no result.
        DataError: A result file is broken.
    """
    if name != "latest" and Path(name).is_file():
        return [load_result(Path(name))]
    runs = _seeds_named(name, folders) or [find_run(name, folders.runs)]
    files = [file for run in runs for file in run.result_files()]
    if not files:
        run, which = runs[0], "this run holds" if len(runs) == 1 else f"its {len(runs)} seeds hold"
        path = run.path if len(runs) == 1 else run.path.parent
        how = f"ovseg eval {run.path}" if run.kind == "segmentation" else f"ovseg eval maskclip --clip {run.path}"
        raise NoResult(f"{path}: {which} no result yet.", f"Score it: {how}")
    return [load_result(file) for file in files]


def _seeds_named(name: str, folders: Folders) -> list[Run]:
    """Open the runs in a folder of seeds (`train --seeds`); none where the name means something else."""
    path = Path(name) if Path(name).is_dir() else folders.runs / name
    return [] if (path / CONFIG).is_file() else list(open_seeds(path).values())


def _once(results: Sequence[Result]) -> list[Result]:
    """Drop results that were named twice."""
    kept: list[Result] = []
    for result in results:
        if not any(_same(result, other) for other in kept):
            kept.append(result)
    return kept


def _same(a: Result, b: Result) -> bool:
    return (a.run, a.data, a.subset, a.created, a.fingerprints) == (b.run, b.data, b.subset, b.created, b.fingerprints)


def _key(result: Result) -> tuple[object, ...]:
    return (result.data, result.subset, len(result.images), result.fingerprints.get("data"))


def _by_data(results: Sequence[Result]) -> list[list[Result]]:
    groups: dict[object, list[Result]] = {}
    for result in results:
        groups.setdefault((result.data, result.class_names), []).append(result)
    return list(groups.values())
