"""What is a table? Columns with a kind, rows of cells that keep their numbers, and notes; knows no terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "percent", "points", "count", "number"]
Value = str | float | int | None
MISSING = "–"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: Name in CSV and JSON.
        header: Name in printed tables.
        kind: "percent" holds scores 0 to 100; "points" differences of scores, printed with their sign; "count" whole
            numbers; "number" others; "text" words.
        decimals: Printed decimals of percent, points and numbers.
        shown: False keeps the column out of printed tables; CSV and JSON always have it.
        brackets: Print intervals; CSV and JSON always have them.
    """

    key: str
    header: str
    kind: Kind = "text"
    decimals: int = 1
    shown: bool = True
    brackets: bool = True

    @property
    def is_number(self) -> bool:
        """Numbers are set flush right."""
        return self.kind != "text"


@dataclass(frozen=True)
class Cell:
    """One value and what is known about its uncertainty.

    Attributes:
        value: None or NaN where there is none.
        interval: Lower and upper bound, in the value's unit.
        spread: Sample standard deviation over seeds, in the value's unit.
        count: Number of seeds that the value is the mean of.
        mark: The value stands out (for a difference: its interval excludes 0).
        signs: Of the notes below the table that this cell is read with (†); printed, but no part of the value.
    """

    value: Value = None
    interval: tuple[float, float] | None = None
    spread: float | None = None
    count: int | None = None
    mark: bool = False
    signs: str = ""

    @property
    def is_missing(self) -> bool:
        """Whether there is no value."""
        return self.value is None or (isinstance(self.value, float) and not math.isfinite(self.value))


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: What it shows.
        columns: From left to right.
        rows: One cell a column.
        notes: Sentences printed below: the rule, the intervals, the marks.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.columns), f"{len(row)} cells for {len(self.columns)} columns"

    @property
    def shown_columns(self) -> list[int]:
        """Places of the columns that are printed."""
        return [i for i, column in enumerate(self.columns) if column.shown]

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Return headers and rows as they are printed, shown columns only."""
        places = self.shown_columns
        rows = [[cell_text(row[i], self.columns[i]) for i in places] for row in self.rows]
        return [self.columns[i].header for i in places], rows

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as plain values, all columns; see `record`."""
        return [record(self.columns, row) for row in self.rows]


def cell_text(cell: Cell, column: Column) -> str:
    """Print one cell: `41.2 [38.9, 43.6]`, `41.2 ± 0.8`, `+1.3 * [+0.2, +2.4]`, `1,234`, `MaskCLIP†`, `–`."""
    if cell.is_missing:
        return MISSING
    text = number_text(cell.value, column) + cell.signs
    if cell.spread is not None and math.isfinite(cell.spread):
        text += f" ± {cell.spread:.{column.decimals}f}"
    if cell.mark:
        text += " *"
    if column.brackets and cell.interval is not None and all(math.isfinite(bound) for bound in cell.interval):
        low, high = (number_text(bound, column) for bound in cell.interval)
        text += f" [{low}, {high}]"
    return text


def number_text(value: Value, column: Column) -> str:
    """Print one value in the manner of its column, without interval."""
    if column.kind == "text" or isinstance(value, str):
        return str(value)
    assert value is not None
    if column.kind == "count":
        return f"{value:,.0f}"
    rounded = round(float(value), column.decimals) + 0.0  # no negative zero
    return f"{rounded:+.{column.decimals}f}" if column.kind == "points" else f"{rounded:.{column.decimals}f}"


def record(columns: Sequence[Column], row: Sequence[Cell]) -> dict[str, Any]:
    """Return a row as plain values: KEY, and where known KEY_low, KEY_high, KEY_spread, KEY_n; marks as KEY_marked.

    Missing numbers are None. Numbers are not rounded.
    """
    plain: dict[str, Any] = {}
    for column, cell in zip(columns, row, strict=True):
        plain[column.key] = None if cell.is_missing else cell.value
        if cell.interval is not None:
            bounds = [bound if math.isfinite(bound) else None for bound in cell.interval]
            plain[f"{column.key}_low"], plain[f"{column.key}_high"] = bounds
        if cell.spread is not None:
            plain[f"{column.key}_spread"] = cell.spread if math.isfinite(cell.spread) else None
        if cell.count is not None:
            plain[f"{column.key}_n"] = cell.count
        if column.kind == "points" and cell.interval is not None:
            plain[f"{column.key}_marked"] = cell.mark
    return plain
