"""How does a confusion stand on the page? A heat map with numbers: shares of each class of ground truth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ovseg_cli.core.page.document import Confusion
from ovseg_cli.core.report.cells import MISSING

_LEVELS = (1.0, 5.0, 15.0, 30.0, 60.0)
"""Percent from which a cell has the next colour."""


@dataclass(frozen=True)
class HeatCell:
    """Pixels of one class of ground truth that were given one name.

    Attributes:
        text: Percent of the class's pixels, rounded.
        share: The same, not rounded; None for a class without pixels.
        pixels: How many.
        level: 0 to 5, of the colour.
        is_right: Whether the name is the class's own.
        said: The cell in words.
    """

    text: str
    share: float | None
    pixels: int
    level: int
    is_right: bool
    said: str


@dataclass(frozen=True)
class HeatView:
    """One heat map; the last cell of a row holds all names that have no column.

    Attributes:
        model: Label of its row in the table of scores.
        title: Data and subset.
        names: n class names.
        rows: n rows of n + 1 cells.
        totals: Pixels of each class.
    """

    model: str
    title: str
    names: tuple[str, ...]
    rows: tuple[tuple[HeatCell, ...], ...]
    totals: tuple[int, ...]


def heat_view(confusion: Confusion) -> HeatView:
    """Turn counts into shares of their rows."""
    rows = [
        _row(confusion.names, i, counts, total)
        for i, (counts, total) in enumerate(zip(confusion.pixels, confusion.totals, strict=True))
    ]
    return HeatView(confusion.model, confusion.title, confusion.names, tuple(rows), confusion.totals)


def _row(names: Sequence[str], place: int, counts: Sequence[int], total: int) -> tuple[HeatCell, ...]:
    called = [*names, "another class"]
    pixels = [*counts, total - sum(counts)]
    return tuple(_cell(names[place], called[i], n, total, i == place) for i, n in enumerate(pixels))


def _cell(name: str, called: str, pixels: int, total: int, is_right: bool) -> HeatCell:
    share = 100 * pixels / total if total else None
    percent = "" if share is None else f" ({share:.1f} %)"
    said = f"{pixels:,} of {total:,} pixels of {name} were called {called}{percent}"
    level = sum(share is not None and share >= bound for bound in _LEVELS)
    text = MISSING if share is None or not math.isfinite(share) else f"{share:.0f}"
    return HeatCell(text, share, pixels, level, is_right, said)
