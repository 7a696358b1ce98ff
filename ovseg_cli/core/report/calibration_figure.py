"""The reliability diagram: of masks whose best class has a probability of p, the share p should be right.

One line a model, one panel for all, one for seen and one for unseen classes; below each how many masks have which
probability. Above the diagonal a model is too modest, below it too sure.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli.core.evaluation.calibration import BINS, Calibration
from ovseg_cli.core.evaluation.mask_results import MaskResult
from ovseg_cli.core.report.drawing import LOOKS, check_number, new_figure, plain_axes, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_calibration(models: Sequence[tuple[str, MaskResult]], picture: Path, title: str) -> None:
    """Draw the diagram as a PNG.

    Args:
        models: Caption and result of each model, all of the same masks.
        picture: The PNG, written whole or not at all.
        title: Stands above the panels.

    Raises:
        UsageError: More models than a reader can tell apart.
        MachineError: The disk refuses.
    """
    check_number(models)
    splits = ("all", "seen", "unseen") if any(models[0][1].unseen) else ("all",)
    figure = new_figure(3.4 * len(splits) + 1.4, 5.2)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel("probability of the best class; above the diagonal: too modest, below: too sure", fontsize=8.5)
    grid = figure.subplots(2, len(splits), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
    for place, split in enumerate(splits):
        found = [(caption, result.of_classes(split).calibration()) for caption, result in models]
        _lines(grid[0][place], f"{split} classes ({found[0][1].masks:,} masks)", found)
        _shares(grid[1][place], [calibration for _, calibration in found])
    grid[0][0].set_ylabel("share that is right", fontsize=9)
    grid[1][0].set_ylabel("share of masks", fontsize=9)
    save_figure(figure, picture)


def _lines(axes: "Axes", name: str, models: Sequence[tuple[str, Calibration]]) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, zorder=1)
    for (caption, found), (color, marker, dash) in zip(models, LOOKS, strict=False):
        x, y = [part.confidence for part in found.bins], [part.accuracy for part in found.bins]
        label = f"{caption}: ECE {100 * found.error:.1f} %" if found.masks else f"{caption}: no mask"
        (line,) = axes.plot(x, y, dash, color=color, marker=marker, markersize=5, linewidth=1.6, label=label, zorder=3)
        line.set_clip_on(False)
    axes.set_title(name, fontsize=10)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize=8, loc="upper left", framealpha=0.85, edgecolor="none")
    plain_axes(axes)


def _shares(axes: "Axes", models: Sequence[Calibration]) -> None:
    """Draw steps: the share of masks in each bin, in the colours of the lines."""
    edges = [place / BINS for place in range(BINS + 1)]
    for found, (color, _, dash) in zip(models, LOOKS, strict=False):
        shares = {round(part.low * BINS): part.masks / found.masks for part in found.bins}
        heights = [shares.get(place, 0.0) for place in range(BINS)]
        axes.stairs(heights, edges, color=color, linestyle=dash, linewidth=1.4)
    plain_axes(axes)
