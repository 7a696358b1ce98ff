"""How a table is made to fit a width: what is left out first, and how wide each column becomes.

Numbers and single words are never broken. What does not fit is left out and a note says so: first the intervals, then
the least important scores. A table that still does not fit is shown row by row (`fits` tells).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ovseg_cli.core.report.cells import Column, Table

GAP = 2  # blanks between columns
_COMFORT = 22  # columns that a text gets before scores are left out for it
_LEAST_IMPORTANT = ("fwIoU", "mAcc", "pAcc", "share", "pixels", "precision", "_stuff", "_things")
_ELSEWHERE = "a wider terminal shows them, and so does ovseg report with --format csv or markdown."


@dataclass(frozen=True)
class Fitted:
    """A table for one width.

    Attributes:
        table: With fewer columns and intervals, and notes about what is left out.
        widths: Of the shown columns; None where even the longest words do not fit beside each other.
    """

    table: Table
    widths: tuple[int, ...] | None


def fit(table: Table, width: int) -> Fitted:
    """Leave out what does not fit, the least important first, and share the width among the columns.

    Args:
        table: Any table.
        width: In characters.

    Returns:
        The table as it is where it fits.
    """
    smaller, left_out = table, []
    for name, step in _steps(table):
        if _room(smaller, width, _COMFORT) >= 0:
            break
        smaller = step(smaller)
        left_out.append(name)
    widths = _widths(smaller, width)
    if widths is None or not left_out:
        return Fitted(table if widths is None else smaller, widths)
    return Fitted(replace(smaller, notes=(*smaller.notes, _note(left_out))), widths)


def _steps(table: Table) -> list[tuple[str, Callable[[Table], Table]]]:
    """What may be left out, in order: name, and how."""
    steps: list[tuple[str, Callable[[Table], Table]]] = []
    if any(
        table.columns[i].brackets and row[i].interval is not None for row in table.rows for i in table.shown_columns
    ):
        steps.append(("intervals", _without_intervals))
    for ending in _LEAST_IMPORTANT:
        found = [c for c in table.columns if c.shown and c.is_number and _is(c, ending)]
        if found:
            steps.append((", ".join(c.header for c in found), lambda t, e=ending: _without(t, e)))  # type: ignore[misc]
    return steps


def _is(column: Column, ending: str) -> bool:
    return column.key.endswith(ending) if ending.startswith("_") else column.key.removeprefix("delta_") == ending


def _without_intervals(table: Table) -> Table:
    notes = tuple(note for note in table.notes if not note.startswith("Ranges:") or "*" in note)
    return replace(table, columns=tuple(replace(c, brackets=False) for c in table.columns), notes=notes)


def _without(table: Table, ending: str) -> Table:
    columns = tuple(replace(c, shown=c.shown and not (c.is_number and _is(c, ending))) for c in table.columns)
    return replace(table, columns=columns)


def _note(left_out: Sequence[str]) -> str:
    *most, last = left_out
    names = f"{', '.join(most)} and {last}" if most else last
    return f"Left out for want of room: {names}; {_ELSEWHERE}"


def _widths(table: Table, width: int) -> tuple[int, ...] | None:
    """Share a width: columns have all they need, or the widest ones give way down to their longest word."""
    if _room(table, width, 0) < 0:
        return None
    widths, least = _natural(table), _least(table, 0)
    for _ in range(sum(widths) + GAP * (len(widths) - 1) - width):
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=lambda i: (widths[i], i))
        widths[widest] -= 1
    return tuple(widths)


def _room(table: Table, width: int, comfort: int) -> int:
    """Characters that are left when every column is as narrow as it may be; negative where it does not fit."""
    least = _least(table, comfort)
    return width - sum(least) - GAP * (len(least) - 1)


def _columns(table: Table) -> list[tuple[Column, str, list[str]]]:
    headers, rows = table.texts()
    return [(table.columns[p], headers[i], [row[i] for row in rows]) for i, p in enumerate(table.shown_columns)]


def _natural(table: Table) -> list[int]:
    """Widths at which nothing is wrapped."""
    return [max(map(len, (header, *texts))) for _, header, texts in _columns(table)]


def _least(table: Table, comfort: int) -> list[int]:
    """Narrowest widths: a number in one piece, a text as wide as its longest word and, if long, `comfort`."""
    least = []
    for column, header, texts in _columns(table):
        pieces = header.split() + (texts if column.is_number else [word for text in texts for word in text.split()])
        longest = max(map(len, pieces), default=1)
        whole = max(map(len, (header, *texts)))
        least.append(longest if column.is_number else max(longest, min(whole, comfort)))
    return least
