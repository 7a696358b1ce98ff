"""How does a table stand on the page? The text of each cell in its parts, its full value, and a small drawing."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import pairwise

from ovseg_cli.core.report.cells import Cell, Column, Table, cell_text

_STEP = 10
"""Scales end at a multiple of this, percent or percentage points."""


@dataclass(frozen=True)
class Plot:
    """A number as a drawing; places in percent of its width.

    Attributes:
        zero: Where 0 is.
        bar: Start and length of a bar; None draws a dot.
        dot: Where the value is.
        whisker: Ends of the interval, or of mean ± spread; None where neither is known.
    """

    zero: float
    dot: float
    bar: tuple[float, float] | None = None
    whisker: tuple[float, float] | None = None


@dataclass(frozen=True)
class CellView:
    """One cell: its parts, printed one after the other, are what `cell_text` prints.

    Attributes:
        text: The rounded value with its signs.
        spread: " ± 0.8" or "".
        mark: " *" or "".
        interval: " [38.9, 43.6]" or "".
        data: Full values, by the name of their data attribute; empty for texts and where nothing is known.
        side: "gain" or "loss" for a difference, "" for others.
        is_missing: Whether there is no value.
        plot: The drawing, in columns that have one.
    """

    text: str
    spread: str
    mark: str
    interval: str
    data: dict[str, float]
    side: str
    is_missing: bool
    plot: Plot | None = None


@dataclass(frozen=True)
class TableView:
    """A table with its shown columns only.

    Attributes:
        place: Number of its first cell's row in the embedded JSON's `tables`.
        title: What it shows.
        columns: From left to right.
        rows: One cell a column.
        head: Place of the column that names a row.
        ends: Where the drawings of its first drawn column begin and end; None where there are none.
        sets: Different texts of the column "set", for a choice among them; empty where there is none.
        notes: Sentences below.
    """

    place: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[CellView, ...], ...]
    head: int
    ends: tuple[float, float] | None
    sets: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def at(self, value: float) -> float:
        """Percent of the width; what lies outside is drawn at the edge."""
        share = 100 * (value - self.low) / (self.high - self.low)
        return round(min(max(share, 0.0), 100.0), 2)


def score_view(table: Table, place: int) -> TableView:
    """Show scores or differences: main columns get a dot with its interval, all on one scale."""
    keys = {c.key for i, c in enumerate(table.columns) if c.brackets and _has_whiskers(table, i)}
    return _view(table, place, _scales(table, keys), bars=())


def class_view(table: Table, place: int, bars: Collection[str], deltas: Collection[str]) -> TableView:
    """Show classes: bars from 0 to 100, and bars to both sides of zero."""
    furthest = _rounded_up(max(map(abs, _extent(table, deltas))))
    both = _Scale(-furthest, furthest)
    scales = {**dict.fromkeys(bars, _Scale(0, 100)), **dict.fromkeys(deltas, both)}
    return _view(table, place, scales, bars=(*bars, *deltas))


def _view(table: Table, place: int, scales: dict[str, _Scale], bars: Collection[str]) -> TableView:
    shown = table.shown_columns
    columns = tuple(table.columns[i] for i in shown)
    rows = tuple(
        tuple(_cell(row[i], c, scales.get(c.key), c.key in bars) for i, c in zip(shown, columns, strict=True))
        for row in table.rows
    )
    texts = [i for i, column in enumerate(columns) if not column.is_number]
    sets = [i for i, column in enumerate(columns) if column.key == "set"]
    names = tuple(dict.fromkeys(row[i].text for i in sets for row in rows))
    ends = next(((scale.low, scale.high) for scale in scales.values()), None)
    return TableView(place, table.title, columns, rows, texts[0] if texts else 0, ends, names, table.notes)


def _cell(cell: Cell, column: Column, scale: _Scale | None, is_bar: bool) -> CellView:
    spread_and_mark = replace(cell, interval=None)
    spread_alone = replace(spread_and_mark, mark=False)
    value_alone = replace(spread_alone, spread=None)
    texts = [cell_text(part, column) for part in (value_alone, spread_alone, spread_and_mark, cell)]
    spread, mark, interval = (after[len(before) :] for before, after in pairwise(texts))
    plot = None if scale is None or cell.is_missing else _plot(cell, scale, is_bar)
    return CellView(texts[0], spread, mark, interval, _data(cell, column), _side(cell, column), cell.is_missing, plot)


def _data(cell: Cell, column: Column) -> dict[str, float]:
    """Full values of a number; finite ones alone."""
    if cell.is_missing or isinstance(cell.value, str) or not column.is_number:
        return {}
    low, high = cell.interval or (None, None)
    known = {"value": cell.value, "low": low, "high": high, "spread": cell.spread}
    return {name: number for name, number in known.items() if number is not None and math.isfinite(number)}


def _side(cell: Cell, column: Column) -> str:
    if column.kind != "points" or cell.is_missing or isinstance(cell.value, str):
        return ""
    return "gain" if (cell.value or 0.0) >= 0 else "loss"


def _plot(cell: Cell, scale: _Scale, is_bar: bool) -> Plot:
    value = float(cell.value or 0.0)
    zero, end = scale.at(0.0), scale.at(value)
    ends = _whisker(cell)
    return Plot(
        zero,
        end,
        (min(zero, end), round(abs(end - zero), 2)) if is_bar else None,
        None if ends is None else (scale.at(ends[0]), scale.at(ends[1])),
    )


def _whisker(cell: Cell) -> tuple[float, float] | None:
    """Ends of the interval, else of mean ± spread."""
    if cell.is_missing or isinstance(cell.value, str) or cell.value is None:
        return None
    ends = cell.interval
    if ends is None and cell.spread is not None:
        ends = (cell.value - cell.spread, cell.value + cell.spread)
    return ends if ends is not None and all(math.isfinite(end) for end in ends) else None


def _has_whiskers(table: Table, place: int) -> bool:
    column = table.columns[place]
    is_score = column.shown and column.kind in ("percent", "points")
    return is_score and any(_whisker(row[place]) is not None for row in table.rows)


def _scales(table: Table, keys: Collection[str]) -> dict[str, _Scale]:
    """One scale for all columns: from 0 up for scores; around 0 as far as differences go."""
    low, high = _extent(table, keys)
    scale = _Scale(-_rounded_up(-low) if low < 0 else 0.0, _rounded_up(high) if high > 0 or low >= 0 else 0.0)
    return dict.fromkeys(keys, scale)


def _extent(table: Table, keys: Collection[str]) -> tuple[float, float]:
    """The lowest and the highest number of some columns, ends of intervals and 0 included."""
    places = [i for i, column in enumerate(table.columns) if column.key in keys]
    cells = [row[i] for row in table.rows for i in places if not row[i].is_missing]
    ends = [end for cell in cells for end in (cell.value, *(_whisker(cell) or ()))]
    numbers = [0.0, *(float(end) for end in ends if isinstance(end, float | int))]
    return min(numbers), max(numbers)


def _rounded_up(value: float) -> float:
    return max(_STEP, _STEP * math.ceil(value / _STEP))
