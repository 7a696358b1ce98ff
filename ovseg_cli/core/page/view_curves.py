"""How does a learning curve stand on the page? Paths and ticks of an inline SVG, and its numbers in words."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ovseg_cli.core.page.document import Curves, Line

WIDTH, HEIGHT = 520, 250
LEFT, RIGHT, TOP, BOTTOM = 58, WIDTH - 26, 12, HEIGHT - 40
MOST_POINTS = 400
"""More points of a line than these are not seen: the lowest and the highest of each stretch are drawn."""

Point = tuple[int, float]


@dataclass(frozen=True)
class Tick:
    """Where an axis has a mark, and what stands beside it."""

    at: float
    text: str


@dataclass(frozen=True)
class LineView:
    """One line of a chart.

    Attributes:
        label: Of the run.
        style: Number of its colour and dashes, the same for a label in all charts.
        path: SVG path.
        points: First, last, lowest and highest point as (word, step, value); empty where it has none.
    """

    label: str
    style: int
    path: str
    points: tuple[tuple[str, int, float], ...]


@dataclass(frozen=True)
class CurveView:
    """One chart, in units of its view box."""

    title: str
    lines: tuple[LineView, ...]
    steps: tuple[Tick, ...]
    values: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    bottom: int = BOTTOM


def curve_views(all_curves: Sequence[Curves]) -> list[CurveView]:
    """Draw all charts."""
    labels = list(dict.fromkeys(line.label for curves in all_curves for line in curves.lines))
    return [curve_view(curves, labels) for curves in all_curves]


def curve_view(curves: Curves, labels: Sequence[str]) -> CurveView:
    """Draw one chart; values that are not finite leave a gap.

    Args:
        curves: The chart.
        labels: Of all charts, so that each keeps its colour.
    """
    points = [_points(line) for line in curves.lines]
    finite = [point for line in points for point in line if math.isfinite(point[1])]
    steps, values = [step for step, _ in finite] or [0], [value for _, value in finite] or [0.0]
    step_ticks, value_ticks = _ticks(min(steps), max(steps), whole=True), _ticks(min(values), max(values))
    across = _axis(min(steps), max(steps), LEFT, RIGHT)
    up = _axis(min(*value_ticks, *values), max(*value_ticks, *values), BOTTOM, TOP)
    lines = (
        LineView(line.label, labels.index(line.label), _path(_thinned(found), across, up), _story(found))
        for line, found in zip(curves.lines, points, strict=True)
    )
    inside = [tick for tick in step_ticks if min(steps) <= tick <= max(steps)]
    return CurveView(curves.title, tuple(lines), _marks(inside, across), _marks(value_ticks, up))


def _points(line: Line) -> list[Point]:
    return list(zip(line.steps, line.values, strict=True))


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    span = high if high > low else low + (1.0 if whole or not low else abs(low) * 0.1)
    return [float(tick) for tick in MaxNLocator(5, integer=whole).tick_values(low, span)]


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: round(start + (end - start) * (value - low) / span, 1)


def _marks(ticks: Sequence[float], axis: Callable[[float], float]) -> tuple[Tick, ...]:
    return tuple(Tick(axis(tick), f"{tick:,.0f}" if tick == int(tick) else f"{tick:.4g}") for tick in ticks)


def _path(points: Sequence[Point], across: Callable[[float], float], up: Callable[[float], float]) -> str:
    """Moves to the first point after a gap, lines to the others."""
    parts: list[str] = []
    is_drawn = False
    for step, value in points:
        if math.isfinite(value):
            place = f"{across(step):g} {up(value):g}"
            parts.append(f"L{place}" if is_drawn else f"M{place}h0")  # h0: a point alone is drawn as a dot
        is_drawn = math.isfinite(value)
    return "".join(parts)


def _thinned(points: list[Point]) -> list[Point]:
    """Keep the lowest and the highest point of each stretch, and what is not finite."""
    if len(points) <= MOST_POINTS:
        return points
    length = math.ceil(2 * len(points) / MOST_POINTS)
    stretches = [points[i : i + length] for i in range(0, len(points), length)]
    return [point for stretch in stretches for point in _extremes(stretch)]


def _extremes(points: list[Point]) -> list[Point]:
    finite = [point for point in points if math.isfinite(point[1])]
    if not finite:
        return points[:1]
    kept = {min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])}
    return sorted(kept | {point for point in points if not math.isfinite(point[1])})


def _story(points: list[Point]) -> tuple[tuple[str, int, float], ...]:
    finite = [point for point in points if math.isfinite(point[1])]
    if not finite:
        return ()
    low, high = min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])
    return ("first", *finite[0]), ("last", *finite[-1]), ("lowest", *low), ("highest", *high)
