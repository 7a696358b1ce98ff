"""The figure of mask sensitivity: how probable is a region's class while its mask goes from wrong to right?

One line a model (mean), a band for the middle half of the masks, one panel for seen and one for unseen classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli.core.evaluation.sensitivity_results import MaskSensitivity, Split, Summary
from ovseg_cli.core.report.drawing import LOOKS, check_number, new_figure, plain_axes, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BANDS = 3  # of more models the bands would hide each other; of those no band is drawn


def draw_figure(models: Sequence[tuple[str, MaskSensitivity]], picture: Path, title: str) -> None:
    """Draw the figure as a PNG.

    Args:
        models: Caption and measurement of each model, all on the same regions.
        picture: The PNG, written whole or not at all.
        title: Stands above the panels.

    Raises:
        UsageError: More models than a reader can tell apart.
        MachineError: The disk refuses.
    """
    check_number(models)
    panels = panels_of([measurement for _, measurement in models])
    below = 0.2 * len(models) if len(models) > _MOST_BANDS else 0.0  # a long legend stands under its panel
    figure = new_figure(4.3 * len(panels) + 0.3, 4.5 + below)
    figure.suptitle(title, fontsize=11)
    band = "band: the middle half of the masks; " if len(models) <= _MOST_BANDS else ""
    words = f"line: mean; {band}r: correlation of probability and IoU within a region, mean of regions"
    figure.supxlabel(words, fontsize=8, color="0.25")
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for place, (axes, (split, name)) in enumerate(zip(grid, panels, strict=True)):
        summaries = [(caption, measurement.summary(split)) for caption, measurement in models]
        _panel(axes, f"{name} ({summaries[0][1].regions} regions)", summaries)
        if place == 0:
            axes.set_ylabel("probability of the region's class", fontsize=9)
    save_figure(figure, picture)


def panels_of(measurements: Sequence[MaskSensitivity]) -> list[tuple[Split, str]]:
    """A panel for seen and one for unseen classes; one for all where there are no unseen ones."""
    both: list[tuple[Split, str]] = [("seen", "seen classes"), ("unseen", "unseen classes")]
    panels = [(split, name) for split, name in both if any(m.of(split) for m in measurements)]
    return panels if any(any(m.unseen) for m in measurements) and panels else [("all", "all classes")]


def _panel(axes: "Axes", name: str, summaries: Sequence[tuple[str, Summary]]) -> None:
    for (caption, summary), (color, marker, dash) in zip(summaries, LOOKS, strict=False):
        x = [(part.low + part.high) / 2 for part in summary.bins]
        y = [part.mean for part in summary.bins]
        label = f"{caption}: r = {summary.correlation:.2f}" if summary.regions else f"{caption}: no region"
        axes.plot(x, y, dash, color=color, marker=marker, markersize=5, linewidth=1.8, label=label, zorder=3)
        if len(summaries) <= _MOST_BANDS:
            low, high = ([part.quartiles[i] for part in summary.bins] for i in (0, 1))
            axes.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0, zorder=1)
            for edge in (low, high):
                axes.plot(x, edge, dash, color=color, linewidth=0.7, alpha=0.7, zorder=2)
    axes.set_title(name, fontsize=10)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("IoU of the mask with the region", fontsize=9)
    plain_axes(axes)
    place = (0.0, 1.0) if len(summaries) <= _MOST_BANDS else (0.0, -0.13)
    axes.legend(fontsize=8.5, loc="upper left", bbox_to_anchor=place, framealpha=0.85, edgecolor="none")
