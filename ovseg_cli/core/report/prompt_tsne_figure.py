"""The figure of prompts and class names in a plane: two panels, each name beside its point, none over another."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.report.drawing import new_figure, save_figure
from ovseg_cli.core.report.label_places import Box, place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = ("prompts as they began", "learned prompts")
COLORS = ("#0072B2", "#D55E00")
INK, FAINT = "#212126", "#8A8A92"
BANDS = (0.42, 0.72)  # below and above the panels, in inches
NAME_RADIUS = 1.5  # of the dots, in points
MARGIN = 0.06  # of the points' extent, on each side
_MANY_NAMES, _MANY_PROMPTS = 60, 100


def draw_plane(
    names: NDArray[np.float64],
    prompts: tuple[NDArray[np.float64], NDArray[np.float64]],
    words: Sequence[str],
    path: Path,
    title: str,
    below: str,
) -> None:
    """Draw the figure as a PNG.

    Args:
        names: (K, 2) points of the class names.
        prompts: (k, 2) points of the prompts, as they began and as they were learned: a panel each.
        words: K names.
        path: The PNG, written whole or not at all.
        title: Stands above.
        below: Stands below.

    Raises:
        MachineError: The disk refuses.
    """
    side = 6.4 if len(names) <= _MANY_NAMES else 9.0
    height = side + sum(BANDS)
    figure = new_figure(2 * side, height, layout=None)
    figure.suptitle(title, fontsize=13, y=1 - 0.12 / height)
    if len(prompts[0]) <= _MANY_PROMPTS:
        below += " Numbers: prompts."
    figure.text(0.5, 0.14 / height, below, fontsize=9, color="0.25", ha="center")
    bottom, top = BANDS[0] / height, 1 - BANDS[1] / height
    figure.subplots_adjust(left=0.01, right=0.99, bottom=bottom, top=top, wspace=0.02)
    low, high = _extent(np.concatenate([names, *prompts]))
    for axes, heading, points, color in zip(figure.subplots(1, 2), TITLES, prompts, COLORS, strict=True):
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
        axes.set_title(heading, fontsize=11)
        for spine in axes.spines.values():
            spine.set_color("#D0D0D4")
        _draw_points(axes, names, points, color)
        left_out = _draw_names(figure, axes, names, points, words)
        if left_out:
            axes.set_title(f"{heading} (no room for {left_out} of {len(words)} names)", fontsize=11)
    save_figure(figure, path)


def _extent(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = points.min(axis=0), points.max(axis=0)
    margin = MARGIN * np.maximum(high - low, 1e-6)
    return low - margin, high + margin


def _draw_points(axes: "Axes", names: NDArray[np.float64], prompts: NDArray[np.float64], color: str) -> None:
    """Grey dots for names; for prompts discs with their numbers, or without where there are many."""
    axes.scatter(names[:, 0], names[:, 1], s=(2 * NAME_RADIUS) ** 2, color=INK, zorder=4, linewidths=0)
    numbered = len(prompts) <= _MANY_PROMPTS
    axes.scatter(prompts[:, 0], prompts[:, 1], s=52 if numbered else 20, color=color, alpha=0.8, zorder=3, linewidths=0)
    for number, (x, y) in enumerate(prompts.tolist() if numbered else []):
        axes.text(x, y, str(number), fontsize=4.6, color="white", ha="center", va="center_baseline", zorder=3.5)


def _radius(prompts: NDArray[np.float64]) -> float:
    """Of the discs of prompts, in points; with numbers in them they are larger."""
    return 3.6 if len(prompts) <= _MANY_PROMPTS else 2.2


def _draw_names(
    figure: "Figure",
    axes: "Axes",
    names: NDArray[np.float64],
    prompts: NDArray[np.float64],
    words: Sequence[str],
) -> int:
    """Write each name beside its point, with a line to it; return how many found no room."""
    size = 7.5 if len(names) <= _MANY_NAMES else 6.0
    dot = figure.dpi / 72
    to_pixels = axes.transData
    texts = [axes.text(0, 0, word, fontsize=size, color=INK, ha="left", va="bottom", zorder=5) for word in words]
    extents = [text.get_window_extent() for text in texts]
    places = place_labels(
        to_pixels.transform(names),
        [(extent.width + 2 * dot, extent.height) for extent in extents],
        axes.get_window_extent().extents,
        to_pixels.transform(np.concatenate([names, prompts])),
        dot * np.repeat([NAME_RADIUS, _radius(prompts)], [len(names), len(prompts)]),
    )
    for text, point, box in zip(texts, names, places, strict=True):
        if box is None:
            text.remove()
            continue
        left, bottom = to_pixels.inverted().transform((box[0] + dot, box[1])).tolist()
        text.set_position((left, bottom))
        end = to_pixels.inverted().transform(_nearest_in(box, to_pixels.transform(point)))
        axes.plot([point[0], end[0]], [point[1], end[1]], color=FAINT, linewidth=0.5, zorder=2)
    return sum(box is None for box in places)


def _nearest_in(box: Box, point: NDArray[np.float64]) -> tuple[float, float]:
    """Return the point of a box that is nearest to another."""
    left, bottom, right, top = box
    return float(np.clip(point[0], left, right)), float(np.clip(point[1], bottom, top))
