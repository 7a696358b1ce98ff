"""Which classes make the score: the table of classes, and what a model gains and loses class by class."""

from collections.abc import Sequence

import numpy as np

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.bootstrap import LEVEL, check_paired, resampled_areas
from ovseg_cli.core.evaluation.metrics import Areas, Rule, averaged, class_iou
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.grouping import row_labels
from ovseg_cli.core.report.remarks import Remarks
from ovseg_cli.core.report.tables import RULES, View


def class_table(results: Sequence[Result], view: View | None = None, labels: Sequence[str] | None = None) -> Table:
    """Make the table of classes: IoU of each result and, for a single one, its accuracy and precision.

    Args:
        results: All with the same classes.
        view: Rule and split.
        labels: How the results are called; None finds names that tell them apart.

    Raises:
        UsageError: No result, or results with different classes or of other data.
    """
    view = view or View()
    _check_same_classes(results)
    first, several = results[0], len(results) > 1
    groups = [[result] for result in results]
    remarks = Remarks.of(labels or row_labels(groups), groups)
    headers = [f"IoU {remarks.signed(i)}" for i in range(len(results))] if several else [f"IoU{remarks.signs[0]}"]
    ious = [
        Column(f"IoU_{i + 1}" if several else "IoU", header, "percent", view.decimals)
        for i, header in enumerate(headers)
    ]
    single = [] if several else [Column(name, name, "percent", view.decimals) for name in ("Acc", "precision")]
    pixels = [Column("pixels", "pixels", "count"), Column("share", "% of pixels", "percent", 2)]
    scores = [class_ious(result.areas, view.rule) for result in results]
    scores += [first.per_class()[column.key] for column in single]
    truth, whole = first.areas.truth, max(1, int(first.areas.truth.sum()))
    rows = tuple(
        (
            *_class_cells(first, i),
            *(Cell(100 * float(score[i])) for score in scores),
            Cell(int(truth[i])),
            Cell(100 * int(truth[i]) / whole),
            *remarks.cells_of_all(),
        )
        for i in _reported(first, view)
    )
    columns = (*_class_columns(first), *ious, *single, *pixels, *remarks.columns)
    return Table(f"Classes of {first.data}", columns, rows, (_rule_note(first, view), *remarks.notes))


def delta_table(
    result: Result, baseline: Result, view: View | None = None, labels: Sequence[str] | None = None
) -> Table:
    """Make the table of differences in IoU, class by class, largest first, whatever their sign.

    Args:
        result: The result.
        baseline: On the same pictures; subtracted.
        view: Rule, split, resamples: with these, each difference has its paired interval and is marked where that
            excludes 0.
        labels: How the two are called; None takes what sets them apart.

    Raises:
        UsageError: The two were not scored on the same pictures and classes.
    """
    view = view or View()
    check_paired(result, baseline)
    groups = [[result], [baseline]]
    remarks = Remarks.of(labels or row_labels(groups), groups)
    mine, theirs = (100 * class_ious(one.areas, view.rule) for one in (result, baseline))
    delta = mine - theirs
    bounds = _paired_bounds(result, baseline, view) if view.resamples else None
    order = sorted(_reported(result, view), key=lambda i: (np.isnan(delta[i]), -abs(delta[i]), i))
    columns = (
        *_class_columns(result),
        Column("IoU", f"IoU {remarks.signed(0)}", "percent", view.decimals),
        Column("IoU_baseline", f"IoU {remarks.signed(1)}", "percent", view.decimals),
        Column("delta", "Δ", "points", view.decimals),
        Column("pixels", "pixels", "count"),
        *remarks.columns,
    )
    rows = tuple(
        (
            *_class_cells(result, i),
            Cell(float(mine[i])),
            Cell(float(theirs[i])),
            delta_cell(float(delta[i]), None if bounds is None else (float(bounds[0][i]), float(bounds[1][i]))),
            Cell(int(result.areas.truth[i])),
            *remarks.cells_of_all(),
        )
        for i in order
    )
    notes = [_rule_note(result, view), f"Δ: {remarks.labels[0]} − {remarks.labels[1]}, percentage points."]
    if bounds is not None:
        notes.append(f"{PAIRED_NOTE.format(view.resamples)} Among many classes one in twenty is marked by chance.")
    return Table(f"Differences by class, {result.data}", columns, rows, (*notes, *remarks.notes))


PAIRED_NOTE = "Ranges: paired 95 % intervals from {} resamples of the images; * marks those that exclude 0."


def delta_cell(value: float, interval: tuple[float, float] | None) -> Cell:
    """A difference, marked where its interval excludes 0."""
    return Cell(value, interval, mark=interval is not None and (interval[0] > 0 or interval[1] < 0))


def class_ious(areas: Areas, rule: Rule) -> np.ndarray:
    """IoU of each class, 0 to 1, (..., K); NaN for classes that a mean under this rule leaves out."""
    return np.where(averaged(areas, rule), class_iou(areas), np.nan)


def _paired_bounds(result: Result, baseline: Result, view: View) -> np.ndarray:
    """Lower and upper bounds of the differences of IoU, (2, K) percentage points."""
    draws = [
        np.concatenate([class_ious(a, view.rule) for a in resampled_areas(counts, view.resamples, view.seed)])
        for counts in (result.counts, baseline.in_order(result.images).counts)
    ]
    delta = draws[0] - draws[1]
    present = ~np.isnan(delta)
    enough = present.sum(0) * 2 > len(delta)
    bounds = np.full((2, delta.shape[1]), np.nan)
    for i in np.flatnonzero(enough):
        bounds[:, i] = 100 * np.quantile(delta[present[:, i], i], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return bounds


def _check_same_classes(results: Sequence[Result]) -> None:
    if not results:
        raise UsageError("there is no result to report.", "Make one: ovseg eval maskclip --data toy")
    for result in results[1:]:
        if (result.class_names, result.unseen, result.data) != (
            results[0].class_names,
            results[0].unseen,
            results[0].data,
        ):
            raise UsageError(
                f"the classes of {results[0].data} and {result.data} cannot share a table.",
                "Report one data set at a time.",
            )


def _reported(result: Result, view: View) -> tuple[int, ...]:
    result.metrics(view.rule, view.split)  # refuses a split where there is none
    return result.class_sets.named()[view.split]


def _rule_note(result: Result, view: View) -> str:
    return f"{len(result.images):,} images of {result.subset}. Rule {view.rule}: {RULES[view.rule]}."


def _class_columns(result: Result) -> list[Column]:
    return [
        Column("id", "id", "count", shown=False),
        Column("class", "class"),
        Column("set", "set", shown=any(result.unseen)),
        Column("kind", "kind", shown=result.is_thing is not None),
    ]


def _class_cells(result: Result, i: int) -> list[Cell]:
    kind = None if result.is_thing is None else "thing" if result.is_thing[i] else "stuff"
    return [Cell(i), Cell(result.class_names[i]), Cell("unseen" if result.unseen[i] else "seen"), Cell(kind)]
