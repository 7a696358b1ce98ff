"""`ovseg report RUN… --explain`: one result scored under every convention of the literature, and why they differ.

Papers print numbers of one name that are not one quantity. The tables take one result and say what each evaluator would
print of it, how far that is from the usual number, and what the gap is made of.
"""

from collections.abc import Sequence

from ovseg_cli.core.evaluation.bootstrap import RESAMPLES, Interval
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report import explain_model_rows as model_rows
from ovseg_cli.core.report import explain_rows
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.class_tables import PAIRED_NOTE, delta_cell
from ovseg_cli.core.report.explain_gaps import Reading, gaps
from ovseg_cli.core.report.explain_origin import request_of, turned, typed
from ovseg_cli.core.report.explain_rows import Row
from ovseg_cli.core.report.explain_variants import Knobs, Variant, wanted
from ovseg_cli.core.report.grouping import method_title
from ovseg_cli.core.runs import Run

_SETS = ("sIoU", "uIoU", "hIoU")


def explain_tables(
    result: Result,
    others: Sequence[Result] = (),
    run: Run | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    label: str | None = None,
) -> list[Table]:
    """Make the tables of one result: mIoU, seen and unseen classes (with a class split), accuracy.

    Args:
        result: The result.
        others: Further results of its model: other candidates, calibration, thresholds. What is not among them gets a
            row that says which command makes it.
        run: The run that the result lies in, for that command.
        resamples: Of the pictures, for intervals of the gaps; 0 makes none.
        seed: Of the draws.
        label: How the result is called; None takes method and data.
    """
    variants = variants_of(result, others)
    request = request_of(result, run)

    def command(variant: Variant) -> str:
        return typed(turned(request, result, variant))

    means = explain_rows.mean_rows(result)
    means += model_rows.background_rows(result, variants, others, command)
    means += model_rows.related_rows(result, others, request.model)
    called = label or f"{method_title(result.method)} on {result.data}, {result.subset}"
    notes = _notes(result)
    tables = [_table(f"mIoU of {called} under each convention", means, ("mIoU",), resamples, seed, notes)]
    if any(result.unseen):
        sets = explain_rows.set_rows(result) + model_rows.name_rows(result, variants, others, command)
        tables.append(_table(f"Seen and unseen classes of {called}", sets, _SETS, resamples, seed, notes))
    pixels = explain_rows.pixel_rows(result)
    return [*tables, _table(f"Accuracy of {called}", pixels, ("accuracy",), resamples, seed, notes)]


def variants_of(result: Result, others: Sequence[Result]) -> list[Variant]:
    """List the variants that the tables of a result have rows for."""
    return wanted(result, others, model_rows.published_thresholds(result))


def _table(
    title: str, rows: Sequence[Row], scores: Sequence[str], resamples: int, seed: int, notes: Sequence[str]
) -> Table:
    """One row a convention, the usual one first."""
    usual, found = rows[0], _gaps(rows, resamples, seed)
    columns = (
        Column("key", "key", shown=False),
        Column("convention", "convention"),
        *(Column(name, name, "percent", 2) for name in scores),
        *(Column(f"delta_{name}", f"Δ {name}" if len(scores) > 1 else "Δ", "points", 2) for name in scores),
        Column("used_by", "used by"),
        Column("why", "why"),
        Column("command", "command", shown=False),
    )
    cells = tuple(
        (
            Cell(row.key),
            Cell(row.convention),
            *(_value(row.readings.get(name)) for name in scores),
            *(Cell() if row is usual else _gap(found.get(f"{row.key} {name}"), resamples) for name in scores),
            Cell(row.used_by),
            Cell(row.why),
            Cell(row.command),
        )
        for row in rows
    )
    says = [PAIRED_NOTE.format(resamples)] if resamples and len(usual.readings[scores[0]].result.images) > 1 else []
    return Table(title, columns, cells, ("Percent; Δ: percentage points, to the first row.", *says, *notes))


def _gaps(rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Interval]:
    """Gaps to the first row, by key of the row and name of the score."""
    readings: dict[str, Reading] = {}
    usual: dict[str, Reading] = {}
    for row in rows[1:]:
        for name, reading in row.readings.items():
            readings[f"{row.key} {name}"], usual[f"{row.key} {name}"] = reading, rows[0].readings[name]
    return gaps(readings, usual, resamples, seed)


def _value(reading: Reading | None) -> Cell:
    return Cell() if reading is None else Cell(100 * reading.value)


def _gap(found: Interval | None, resamples: int) -> Cell:
    if found is None:
        return Cell()
    return delta_cell(100 * found.value, (100 * found.low, 100 * found.high) if resamples else None)


def _notes(result: Result) -> list[str]:
    """What holds for every row."""
    knobs, said = Knobs.of(result), []
    if any(result.unseen):
        penalty = f"{knobs.penalty:g} subtracted from seen scores" if knobs.penalty else "no calibration"
        said.append(f"First row: {knobs.candidates} names compete, {penalty}.")
    if result.background is not None:
        said.append(f"First row: background below a probability of {knobs.threshold:g}.")
    return [*said, *result.notes]
