"""Is a model better than another? Differences of scores on the same pictures, with paired intervals."""

from collections.abc import Sequence

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.bootstrap import check_paired, difference
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.class_tables import PAIRED_NOTE, delta_cell
from ovseg_cli.core.report.grouping import Group, row_labels
from ovseg_cli.core.report.remarks import Remarks
from ovseg_cli.core.report.tables import RULES, View, mean_cell, score_column, score_names


def difference_table(
    groups: Sequence[Group], baseline: Group, view: View | None = None, labels: Sequence[str] | None = None
) -> Table:
    """Make the table of differences to a baseline, in percentage points.

    Args:
        groups: One row each; the baseline itself is left out.
        baseline: What is subtracted.
        view: Rule, split, resamples.
        labels: Names of the rows and, last, of the baseline; None finds some that tell them apart.

    Returns:
        For single results the paired interval over images, marked where it excludes 0. Where a group has several
        seeds, the difference is taken seed by seed (mean ± sample standard deviation) if both have the same seeds,
        else between the means, without an interval.

    Raises:
        UsageError: Nothing to compare, or results of other pictures or classes.
    """
    view = view or View()
    rivals = [group for group in groups if not _is_same(group, baseline)]
    if not rivals:
        raise UsageError("there is nothing to compare with the baseline but itself.", "Name another run.")
    for group in rivals:
        check_paired(group[0], baseline[0])
    names = score_names([group[0] for group in rivals], view.split)
    remarks = Remarks.of(labels or row_labels([*rivals, baseline]), [*rivals, baseline])
    facts = (Column("method", "method"), Column("data", "data", shown=False))
    columns = (*facts, *(score_column(name, view, points=True) for name in names), *remarks.columns)
    rows = tuple(
        (
            remarks.label(i),
            Cell(group[0].data),
            *_differences(group, baseline, names, view),
            *remarks.cells(i, len(rivals)),
        )
        for i, group in enumerate(rivals)
    )
    data = baseline[0].data
    notes = [f"Percentage points on {data}, {baseline[0].subset}.", f"Rule {view.rule}: {RULES[view.rule]}."]
    if view.resamples and any(len(group) == len(baseline) == 1 for group in rivals):
        notes.append(PAIRED_NOTE.format(view.resamples))
    if any(len(group) > 1 or len(baseline) > 1 for group in rivals):
        notes.append("±: sample standard deviation of the differences, seed by seed.")
    return Table(f"Differences to {remarks.signed(len(rivals))} on {data}", columns, rows, (*notes, *remarks.notes))


def _differences(group: Group, baseline: Group, names: Sequence[str], view: View) -> list[Cell]:
    if len(group) == len(baseline) == 1:
        return _paired(group[0], baseline[0], names, view)
    mine, theirs = ([result.metrics(view.rule, view.split) for result in side] for side in (group, baseline))
    if [r.seed for r in group] == [r.seed for r in baseline]:
        pairs = list(zip(mine, theirs, strict=True))
    elif len(baseline) == 1:
        pairs = [(one, theirs[0]) for one in mine]
    else:
        pairs = []
    if pairs:
        return [mean_cell([100 * (one[name] - other[name]) for one, other in pairs]) for name in names]
    means = [[mean_cell([one[name] for one in side]).value for side in (mine, theirs)] for name in names]
    return [Cell(100 * (float(first or 0) - float(second or 0))) for first, second in means]


def _paired(result: Result, baseline: Result, names: Sequence[str], view: View) -> list[Cell]:
    found = difference(result, baseline, view.rule, view.split, view.resamples, view.seed)
    return [
        delta_cell(100 * one.value, (100 * one.low, 100 * one.high) if view.resamples else None)
        for one in (found[name] for name in names)
    ]


def _is_same(group: Group, baseline: Group) -> bool:
    return all(any(one is other for other in baseline) for one in group)
