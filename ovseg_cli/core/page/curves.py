"""How did the trainings go? Their logs as charts, one a loss term, rate or score, with a line a run."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ovseg_cli.core.methods.build import FIRST_STEP
from ovseg_cli.core.page.document import Curves, Line
from ovseg_cli.core.page.rows import Row, members_of
from ovseg_cli.core.runs import HOST
from ovseg_cli.core.training.curves import panels_of
from ovseg_cli.core.training.loop import LOG
from ovseg_cli.core.training.metrics_log import read_log

MOST_POINTS = 1000
INSIDE = {HOST: "its host", FIRST_STEP: "its first step"}
"""Trainings whose runs lie inside that of another, and how their lines are called."""


def curves_of(rows: Sequence[Row]) -> tuple[list[Curves], list[str]]:
    """Draw the logs of all runs that were trained.

    Returns:
        The charts, in the order of the panels of `curves.png`, and what must be said of them.
    """
    lines: dict[tuple[str, str], list[Line]] = {}
    thinned = False
    for label, log in _logs(rows):
        for panel, series in panels_of(read_log(log)).items():
            for name, (steps, values) in series.items():
                line = thin(label, steps, values)
                thinned |= len(line.steps) < len(steps)
                lines.setdefault((panel, name), []).append(line)
    order = list(dict.fromkeys(panel for panel, _ in lines))
    charts = [Curves(_title(*key), tuple(lines[key])) for key in sorted(lines, key=lambda key: order.index(key[0]))]
    return charts, [_THINNED] if thinned else []


def thin(label: str, steps: Sequence[int], values: Sequence[float], most: int = MOST_POINTS) -> Line:
    """Make a line of at most so many points: each the mean of as many neighbours, at the last of their steps.

    A log's values are means since the line before, so a mean of neighbours is what a rarer log would hold. Values
    that are no numbers are left out.
    """
    points = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    size = max(1, math.ceil(len(points) / most))
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    means = [math.fsum(value for _, value in part) / len(part) for part in parts]
    return Line(label, tuple(part[-1][0] for part in parts), tuple(means))


_THINNED = f"Curves of more than {MOST_POINTS:,} points are thinned: a point is the mean of several neighbours."


def _title(panel: str, name: str) -> str:
    """Name a chart: where a panel has one curve of its own name, by the panel."""
    return panel if name in ("rate", panel.replace(" ", "_")) else f"{panel}: {name}"


def _logs(rows: Sequence[Row]) -> Iterator[tuple[str, Path]]:
    """Yield the logs of all runs and of those inside them, each once, with what their lines are called.

    A host has a row of its own where it was scored, and is called by it then.
    """
    trained = [(member.label, member.run) for member in members_of(rows) if member.run]
    logs = [(label, run.path / LOG) for label, run in trained]
    logs += [
        (f"{label}, {words}", run.path / folder / LOG) for label, run in trained for folder, words in INSIDE.items()
    ]
    seen: set[Path] = set()
    for label, log in logs:
        if log.is_file() and log.resolve() not in seen:
            seen.add(log.resolve())
            yield label, log
