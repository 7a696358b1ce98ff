"""How much do seeds of one training differ? Mean and spread, a row a seed, the best and the worst."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ovseg_cli.core.evaluation.metrics import Rule
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.grouping import method_title
from ovseg_cli.core.report.tables import View, mean_cell, result_table

BOTH_RULES: tuple[Rule, ...] = ("union", "present")


def seed_table(results: Mapping[int, Result], view: View | None = None) -> Table:
    """Make the table of scores of several seeds, in percent.

    Args:
        results: By seed, all of one protocol.
        view: Rule, split, intervals.

    Returns:
        Mean ± sample standard deviation (for two seeds or more), then a row a seed with its interval over images; a
        note names the best and the worst seed of the unseen classes, of all classes where none are unseen.
    """
    view = view or View()
    first, everything = next(iter(results.values())), list(results.values())
    several = len(results) > 1
    groups = [*([everything] if several else []), *([result] for result in everything)]
    labels = [*([f"mean of {len(results)} seeds"] if several else []), *(f"seed {seed}" for seed in results)]
    title = f"Seeds of {method_title(first.method)} on {first.data}"
    table = result_table(groups, view, title, labels)
    found = extremes(results, view) if several else None
    if found is None:
        return table
    name, best, worst = found
    classes = "Unseen classes" if name == "uIoU" else "All classes"
    values = [100 * _scores(results[seed], view)[name] for seed in (best, worst)]
    texts = [f"{value:.{view.decimals}f}" for value in values]
    note = f"best seed {best} ({texts[0]}), worst seed {worst} ({texts[1]})"
    if values[0] == values[1]:
        note = f"{texts[0]} for all seeds"
    return replace(table, notes=(f"{classes}, {name}: {note}.", *table.notes))


def _scores(result: Result, view: View) -> dict[str, float]:
    return result.metrics(view.rule, view.split)


def extremes(results: Mapping[int, Result], view: View) -> tuple[str, int, int] | None:
    """Name the score of the unseen classes (of all, where none are unseen), its best and its worst seed.

    Of equal seeds the first is taken; None where no seed has such a score.
    """
    name = "uIoU" if any(any(result.unseen) for result in results.values()) and view.split == "all" else "mIoU"
    scores = {seed: _scores(result, view).get(name, math.nan) for seed, result in results.items()}
    known = {seed: score for seed, score in scores.items() if not math.isnan(score)}
    return (name, max(known, key=known.__getitem__), min(known, key=known.__getitem__)) if known else None


def seed_record(results: Mapping[int, Result]) -> dict[str, Any]:
    """Return mean and sample standard deviation of every score under both rules, in percent, and the extremes."""
    rules: dict[str, Any] = {}
    for rule in BOTH_RULES:
        scores = [result.metrics(rule) for result in results.values()]
        rules[rule] = _summary({name: [100 * one.get(name, math.nan) for one in scores] for name in scores[0]})
    found = extremes(results, View())
    if found is None:
        return {"percent": rules}
    name, best, worst = found
    return {"percent": rules, "compared_by": name, "best": best, "worst": worst}


def figure_table(name: str, figures: Mapping[int, Mapping[str, Any]]) -> Table:
    """Make the table of the figures of several trainings: mean ± sample standard deviation, then a row a seed.

    Args:
        name: What was trained.
        figures: By seed; tables in tables are taken apart, words and truth values left out.

    Returns:
        Shown: the figures that stand alone, and of a table its `all`; hidden (CSV, JSON): the others, and what is a
        count of how many were measured.
    """
    flat = {seed: numbers_of(one) for seed, one in figures.items()}
    names = list(next(iter(flat.values())))
    columns = (Column("seed", "seed"), *(_figure_column(key) for key in names))
    rows = [(Cell(f"seed {seed}"), *(Cell(one.get(key)) for key in names)) for seed, one in flat.items()]
    notes = ["Figures of the training itself, on scenes for tuning; --json has all of them."]
    if len(flat) > 1:
        means = [mean_cell([one.get(key, math.nan) for one in flat.values()]) for key in names]
        rows.insert(0, (Cell(f"mean of {len(flat)} seeds"), *means))
        notes.append(f"±: sample standard deviation over {len(flat)} seeds.")
    return Table(f"Seeds of {name}", columns, tuple(rows), tuple(notes))


def _figure_column(key: str) -> Column:
    shown = key.endswith(".all") or ("." not in key and key not in ("scenes", "side"))
    return Column(key, key.removesuffix(".all").replace("_", " "), "number", 3, shown=shown)


def figure_record(figures: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and sample standard deviation of every figure."""
    flat = [numbers_of(one) for one in figures.values()]
    return _summary({name: [one.get(name, math.nan) for one in flat] for name in flat[0]})


def numbers_of(figures: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Flatten figures: `accuracy: {all: .9}` becomes `accuracy.all`."""
    flat: dict[str, float] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            flat |= numbers_of(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[prefix + key] = float(value)
    return flat


def _summary(values: Mapping[str, list[float]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name, column in values.items():
        cell = mean_cell(column)
        spread = cell.spread if cell.spread is not None and math.isfinite(cell.spread) else None
        mean = None if cell.is_missing or cell.value is None else round(float(cell.value), 4)
        summary[name] = {"mean": mean, "spread": None if spread is None else round(spread, 4), "n": len(column)}
    return summary
