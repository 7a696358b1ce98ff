"""The figure of proposals: do the scores of a picture's masks differ, and what are confident names of bad masks worth?

Left a point for each picture: how much class scores differ between its proposals, under the first model and under
another; above the diagonal they differ more. Of one model alone: how many pictures have which distance. Middle: false
positives of each picture, in the same way; below the diagonal there are fewer. Right, over all pictures: as the
threshold of confidence falls, how many classes are found, and for how many false positives.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli.core.evaluation.proposal_scores import CONFIDENT, PictureScores, summarise, trade_off
from ovseg_cli.core.evaluation.sensitivity_results import MaskSensitivity
from ovseg_cli.core.report.drawing import LOOKS, check_number, new_figure, plain_axes, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Models = Sequence[tuple[str, MaskSensitivity]]


def draw_proposals(models: Models, picture: Path, title: str) -> None:
    """Draw the figure as a PNG.

    Args:
        models: Caption and measurement of each model, all of the same proposals.
        picture: The PNG, written whole or not at all.
        title: Stands above the panels.

    Raises:
        UsageError: More models than a reader can tell apart.
        MachineError: The disk refuses.
    """
    check_number(models)
    figure = new_figure(12.2, 4.4)
    figure.suptitle(title, fontsize=11)
    left, middle, right = figure.subplots(1, 3)
    _panel(left, models, "class scores of two proposals differ by", lambda one: one.distance, limit=1.0)
    _panel(middle, models, "false positives of a picture", lambda one: one.false_positives())
    _trade_off(right, models)
    for axes in (left, middle, right):
        plain_axes(axes)
    save_figure(figure, picture)


def _panel(
    axes: "Axes", models: Models, name: str, value_of: Callable[[PictureScores], float], limit: float | None = None
) -> None:
    """A point a picture, the first model against each other; of one model alone how often which value occurs."""
    values = [[value_of(one) for one in measurement.pictures] for _, measurement in models]
    axes.set_title(name, fontsize=10)
    most = limit or 1.05 * max(1.0, *(value for own in values for value in own))
    axes.set_xlim(0, most)
    if len(models) == 1:
        axes.hist(values[0], bins=20, range=(0, most), color=LOOKS[0][0])
        axes.set_xlabel(models[0][0], fontsize=9)
        axes.set_ylabel("pictures", fontsize=9)
        return
    axes.plot([0, most], [0, most], color="0.6", linewidth=1, zorder=1)
    axes.set_ylim(0, most)
    for (caption, _), own, (color, marker, _) in zip(models[1:], values[1:], LOOKS[1:], strict=False):
        points = axes.scatter(values[0], own, 22, color=color, marker=marker, alpha=0.6, linewidths=0, label=caption)
        points.set(zorder=2, clip_on=False)  # many lie on the axes
    axes.set_xlabel(models[0][0], fontsize=9)
    if len(models) == 2:
        axes.set_ylabel(models[1][0], fontsize=9)
    else:
        axes.set_ylabel("other model", fontsize=9)
        axes.legend(fontsize=8, framealpha=0.85, edgecolor="none")


def _trade_off(axes: "Axes", models: Models) -> None:
    """Classes found against false positives; a marker where the threshold is that of the tables."""
    for (caption, measurement), (color, marker, dash) in zip(models, LOOKS, strict=False):
        false_positives, found = trade_off(measurement.pictures)
        axes.plot(false_positives, 100 * found, dash, color=color, linewidth=1.8, zorder=2)
        own = summarise(measurement.pictures)
        (point,) = axes.plot([own.false_positives], [100 * own.found], dash, color=color, linewidth=1.8, label=caption)
        point.set(marker=marker, markersize=8, zorder=3)
    axes.set_title("classes found for false positives", fontsize=10)
    axes.set_xlabel(f"false positives a picture (marker: p ≥ {CONFIDENT})", fontsize=9)
    axes.set_ylabel("classes found, %", fontsize=9)
    axes.set(ylim=(0, 100), xlim=(0, None))
    axes.legend(fontsize=8.5, loc="lower right", framealpha=0.85, edgecolor="none")
