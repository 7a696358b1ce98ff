"""What `ovseg report RUN…` means: from run folders and result files to the tables that are printed.

`read` finds out what is compared; `build` makes tables of it, and the report's page draws from it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.metrics import Rule, Split
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.class_tables import class_table, delta_table
from ovseg_cli.core.report.compare import difference_table
from ovseg_cli.core.report.grouping import Group, group_seeds, row_labels
from ovseg_cli.core.report.stored import NoResult, Stored, find_stored
from ovseg_cli.core.report.tables import View, result_table
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders


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


@dataclass(frozen=True)
class Comparison:
    """What a report compares.

    Attributes:
        stored: All results, those of the baseline too, each once.
        groups: One a row.
        base: Results of the baseline; none where there is no baseline.
        view: Rule, split, intervals.
        labels: Names of the rows; None finds some that tell them apart.
        left_out: Why a run that was named is no row.
    """

    stored: tuple[Stored, ...]
    groups: tuple[Group, ...]
    base: tuple[Result, ...] = ()
    view: View = field(default_factory=View)
    labels: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()

    def file_of(self, result: Result) -> Stored:
        """The file of a result of this comparison."""
        return next(one for one in self.stored if one.result is result)

    def pairs(self) -> list[tuple[Group, list[Group]]]:
        """Each baseline and the rows that were scored on its data.

        Raises:
            UsageError: There is a baseline, and nothing to compare with it.
        """
        found = []
        for baseline in self.base:
            own = next(group for group in self.groups if any(_same(baseline, result) for result in group))
            rivals = [g for g in self.groups if _key(g[0]) == _key(baseline) and g is not own]
            if rivals:
                found.append((own, rivals))
        if self.base and not found:
            raise UsageError(
                "--baseline: no other result was scored on its data with its candidates.",
                "Name a run that was scored on the same data.",
            )
        return found


def build(request: ReportRequest, folders: Folders, reporter: Reporter) -> list[Table]:
    """Make the tables: scores, then differences to the baseline, then classes.

    Of several runs those without a result are left out, with a warning.

    Raises:
        UsageError: A name is no run and no result file, no run has a result, or results cannot share a table.
        DataError: A result file is broken.
    """
    return tables_of(read(request, folders, reporter), request.per_class)


def tables_of(compared: Comparison, per_class: bool) -> list[Table]:
    """Make the tables of what was read; see `build`."""
    tables = [result_table(compared.groups, compared.view, labels=compared.labels)]
    for own, rivals in compared.pairs():
        tables.append(difference_table([*rivals, own], own, compared.view))
        if per_class:
            tables += delta_tables(own, rivals, compared.view)
    if per_class and not compared.base:
        tables += class_tables(compared)
    return tables


def read(request: ReportRequest, folders: Folders, reporter: Reporter) -> Comparison:
    """Read the results of a request and put together what belongs together; see `build`."""
    view = View(rule=request.absent, split=request.split, resamples=request.resamples)
    results, left_out = _all_results(request.results, folders, reporter)
    base = find_stored(request.baseline, folders) if request.baseline else []
    everything = _once([*results, *base])
    single = [one.result for one in everything]
    groups: list[Group] = list(group_seeds(single)) if request.group_seeds else [[result] for result in single]
    return Comparison(
        tuple(everything), tuple(groups), tuple(one.result for one in base), view, left_out=tuple(left_out)
    )


def class_tables(compared: Comparison) -> list[Table]:
    """A table of classes for each data set; of several seeds the first."""
    firsts = [group[0] for group in compared.groups]
    tables = []
    for same in by_data(firsts):
        names = [label for label, first in zip(compared.labels or (), firsts, strict=False) if first in same]
        tables.append(class_table(same, compared.view, names or None))
    return tables


def delta_tables(own: Group, rivals: Sequence[Group], view: View) -> list[Table]:
    """Differences to a baseline class by class, a table a rival; of several seeds the first."""
    *labels, last = row_labels([*rivals, own])
    return [delta_table(g[0], own[0], view, (label, last)) for g, label in zip(rivals, labels, strict=True)]


def _all_results(names: Sequence[str], folders: Folders, reporter: Reporter) -> tuple[list[Stored], list[str]]:
    """Read all results, and say why runs are left out."""
    results: list[Stored] = []
    empty: list[NoResult] = []
    for name in names:
        try:
            results += find_stored(name, folders)
        except NoResult as error:
            empty.append(error)
    if not results:
        raise empty[0]
    left_out = [f"left out: {failure.message}" for failure in empty]
    for sentence in left_out:
        reporter.warn(sentence)
    return results, left_out


def _once(results: Sequence[Stored]) -> list[Stored]:
    """Drop results that were named twice."""
    kept: list[Stored] = []
    for one in results:
        if not any(_same(one.result, other.result) for other in kept):
            kept.append(one)
    return kept


def _same(a: Result, b: Result) -> bool:
    return (a.run, a.data, a.subset, a.created, a.fingerprints) == (b.run, b.data, b.subset, b.created, b.fingerprints)


def _key(result: Result) -> tuple[object, ...]:
    return (result.data, result.subset, len(result.images), result.fingerprints.get("data"))


def by_data(results: Sequence[Result]) -> list[list[Result]]:
    """Put results together that can share a table of classes."""
    groups: dict[object, list[Result]] = {}
    for result in results:
        groups.setdefault((result.data, result.class_names), []).append(result)
    return list(groups.values())
