"""From results to the table of scores: one row a model, or a group of runs that differ in their seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.bootstrap import RESAMPLES, Interval, intervals
from ovseg_cli.core.evaluation.metrics import Rule, Split
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.grouping import Group, row_labels
from ovseg_cli.core.report.remarks import Remarks

RULES: dict[Rule, str] = {
    "union": "a class that is predicted but absent from the ground truth counts with IoU 0",
    "present": "a class that is absent from the ground truth is left out of the mean",
}
_ABSENT_NAMES = {
    "seen": "Only seen names competed, so unseen classes cannot be predicted.",
    "unseen": "Only unseen names competed, so seen classes cannot be predicted.",
}
_HEADERS = {
    "mIoU_all_stuff": "mIoU stuff",
    "mIoU_all_things": "mIoU things",
    "mIoU_seen_stuff": "sIoU stuff",
    "mIoU_seen_things": "sIoU things",
    "mIoU_unseen_stuff": "uIoU stuff",
    "mIoU_unseen_things": "uIoU things",
}
_SETS = ("mIoU", "sIoU", "uIoU", "hIoU")


@dataclass(frozen=True)
class View:
    """How results are looked at; the same for all tables of a report.

    Attributes:
        rule: Which classes a mean of IoU takes.
        split: Which classes are reported.
        resamples: Resamples of the images for intervals; 0 leaves intervals out.
        seed: Of the resamples.
        decimals: Printed decimals of scores.
    """

    rule: Rule = "union"
    split: Split = "all"
    resamples: int = RESAMPLES
    seed: int = 0
    decimals: int = 1

    @property
    def other_rule(self) -> Rule:
        """The rule that is not shown; CSV and JSON hold its scores too."""
        return "present" if self.rule == "union" else "union"


def result_table(
    groups: Sequence[Group],
    view: View | None = None,
    title: str | None = None,
    labels: Sequence[str] | None = None,
) -> Table:
    """Make the table of scores, in percent.

    Args:
        groups: One row each. A group of one result shows its 95 % interval over images; a group of several (seeds, see
            `grouping.group_seeds`) mean ± sample standard deviation.
        view: Rule, split, intervals.
        title: Of the table; None names the data set where there is only one.
        labels: Names of the rows; None finds some that tell them apart.

    Returns:
        Shown: method, the scores that the results have, and what differs among data, subset, candidates and the
        number of classes averaged (where that is one number, a note says it). Hidden (CSV, JSON): the other rule's
        scores, images, seeds, run. Notes of the results stand below, with a sign at the rows that they hold for.

    Raises:
        UsageError: Nothing to show, or a split of data without unseen classes.
    """
    view = view or View()
    if not groups:
        raise UsageError("there is no result to report.", "Make one: ovseg eval maskclip --data toy")
    firsts = [group[0] for group in groups]
    names = score_names(firsts, view.split)
    remarks = Remarks.of(labels or row_labels(groups, ["candidates"]), groups)
    columns = (
        *_fact_columns(firsts),
        *(score_column(name, view) for name in names),
        *_tail_columns(firsts, names, view),
        *remarks.columns,
    )
    rows = [
        (remarks.label(place), *_row(group, names, view), *remarks.cells(place)) for place, group in enumerate(groups)
    ]
    data = sorted({first.data for first in firsts})
    title = title or (f"Results on {data[0]}" if len(data) == 1 else "Results")
    return Table(title, columns, tuple(rows), (*_notes(groups, view), *remarks.notes))


def score_names(results: Sequence[Result], split: Split) -> list[str]:
    """List the scores that a table of these results shows: those of the split, and only sets that exist."""
    has_unseen = any(any(result.unseen) for result in results)
    named = {name for result in results for name in result.metrics(split=split)}
    if split == "all":
        means = list(_SETS) if has_unseen else ["mIoU"]
        parts = [f"mIoU_{s}_{kind}" for s in (("unseen",) if has_unseen else ("all",)) for kind in ("stuff", "things")]
    else:
        means, parts = ["mIoU"], [f"mIoU_{split}_{kind}" for kind in ("stuff", "things")]
    return [*means, *(name for name in parts if name in named), "pAcc", "mAcc", "fwIoU"]


def score_column(name: str, view: View, points: bool = False) -> Column:
    """Make the column of a score; with `points` that of its difference."""
    header = {"seen": "sIoU", "unseen": "uIoU"}.get(view.split, name) if name == "mIoU" else _HEADERS.get(name, name)
    is_main = name in _SETS  # brackets in every column would make the table too wide to read
    if points:
        return Column(f"delta_{name}", f"Δ {header}", "points", view.decimals, brackets=is_main)
    return Column(name, header, "percent", view.decimals, brackets=is_main)


def candidates_of(result: Result) -> str:
    """Which names competed in the arg-max: "all", "seen", "unseen"."""
    return str(result.protocol.get("candidates") or "all")


def _fact_columns(firsts: Sequence[Result]) -> list[Column]:
    candidates = {candidates_of(result) for result in firsts}
    return [
        Column("method", "method"),
        Column("data", "data", shown=len({result.data for result in firsts}) > 1),
        Column("subset", "subset", shown=len({result.subset for result in firsts}) > 1),
        Column("candidates", "candidates", shown=candidates != {"all"}),
    ]


def _averaged(firsts: Sequence[Result], view: View) -> list[int]:
    """How many classes the means are taken over: different numbers, rising."""
    return sorted({result.num_averaged(view.rule, view.split) for result in firsts})


def _tail_columns(firsts: Sequence[Result], names: Sequence[str], view: View) -> list[Column]:
    others = [Column(f"{n}_{view.other_rule}", n, "percent", shown=False) for n in names if n in _SETS]
    return [
        Column("classes", "classes", "count", shown=len(_averaged(firsts, view)) > 1),
        *others,
        Column(f"classes_{view.other_rule}", "classes", "count", shown=False),
        Column("rule", "rule", shown=False),
        Column("split", "split", shown=False),
        Column("images", "images", "count", shown=False),
        Column("seeds", "seeds", shown=False),
        Column("run", "run", shown=False),
    ]


def _row(group: Group, names: Sequence[str], view: View) -> tuple[Cell, ...]:
    """What follows the label."""
    first = group[0]
    scores = score_cells(group, names, view)
    other = [result.metrics(view.other_rule, view.split) for result in group]
    return (
        Cell(first.data),
        Cell(first.subset),
        Cell(candidates_of(first)),
        *scores,
        Cell(first.num_averaged(view.rule, view.split)),
        *(mean_cell([100 * one[name] for one in other]) for name in names if name in _SETS),
        Cell(first.num_averaged(view.other_rule, view.split)),
        Cell(view.rule),
        Cell(view.split),
        Cell(len(first.images)),
        Cell(" ".join(str(result.seed) for result in group)),
        Cell(" ".join(result.run for result in group if result.run) or None),
    )


def score_cells(group: Group, names: Sequence[str], view: View) -> list[Cell]:
    """Scores of a row in percent, with the interval of a single result or the spread of several."""
    if len(group) == 1 and view.resamples:
        found = intervals(group[0], view.rule, view.split, view.resamples, view.seed)
        return [_interval_cell(found[name]) if name in found else Cell() for name in names]
    scores = [result.metrics(view.rule, view.split) for result in group]
    return [mean_cell([100 * one.get(name, float("nan")) for one in scores]) for name in names]


def mean_cell(values: Sequence[float]) -> Cell:
    """Mean and, for two values or more, sample standard deviation and count."""
    if len(values) == 1:
        return Cell(values[0])
    return Cell(float(np.mean(values)), spread=float(np.std(values, ddof=1)), count=len(values))


def _interval_cell(found: Interval) -> Cell:
    return Cell(100 * found.value, interval=(100 * found.low, 100 * found.high))


def _notes(groups: Sequence[Group], view: View) -> tuple[str, ...]:
    firsts = [group[0] for group in groups]
    counts = sorted({(result.data, result.subset, len(result.images)) for result in firsts})
    images = "; ".join(f"{data} {subset}: {number:,} images" for data, subset, number in counts)
    notes = [f"Scores in percent. {images}.", f"Rule {view.rule}: {RULES[view.rule]}."]
    if len(averaged := _averaged(firsts, view)) == 1:
        notes[0] += f" {averaged[0]} classes averaged."
    if view.split != "all":
        notes.append(f"Only {view.split} classes are reported.")
    notes += [note for names, note in _ABSENT_NAMES.items() if any(candidates_of(first) == names for first in firsts)]
    notes += _background_notes(firsts)
    if view.resamples and any(len(group) == 1 for group in groups):
        notes.append(
            f"Ranges: 95 % intervals from {view.resamples} resamples of the images; they do not cover training seeds."
        )
    if any(len(group) > 1 for group in groups):
        numbers = sorted({len(group) for group in groups if len(group) > 1})
        notes.append(f"±: sample standard deviation over {' or '.join(map(str, numbers))} seeds.")
    return tuple(notes)


def _background_notes(firsts: Sequence[Result]) -> list[str]:
    """Say where a threshold made background, with its value: papers differ in it, and scores follow it."""
    found = sorted({value for first in firsts if (value := first.protocol.get("background_threshold"))})
    if not found:
        return []
    values = " or ".join(f"{value:g}" for value in found)
    return [f"Background is where the best name has a probability below {values} (--background-threshold)."]
