"""What figures of several models share: how their lines look, an empty figure, plain axes, the PNG.

Lines differ in colour (Okabe and Ito's, for all kinds of colour vision), dash and marker, so that a print in grey is
enough.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = (
    ("#0072B2", "o", "--"),
    ("#D55E00", "s", "-"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", "--"),
    ("#56B4E9", "P", "-"),
    ("#000000", "X", "-."),
    ("#7F7F7F", "*", ":"),
)
"""Colour, marker, dash of the models, in order."""


def check_number(models: Sequence[object]) -> None:
    """A figure has as many looks as it has.

    Raises:
        UsageError: There are more models, or none.
    """
    if not 0 < len(models) <= len(LOOKS):
        raise UsageError(f"a figure of {len(models)} models cannot be read.", f"Name one to {len(LOOKS)}.")


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> "Figure":
    """Make a figure of a size in inches, without touching pyplot or a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", picture: Path) -> None:
    """Write a figure as a PNG, whole or not at all."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_bytes(picture, stream.getvalue())


def plain_axes(axes: "Axes") -> None:
    """Small ticks, a pale grid, no frame above and on the right."""
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
