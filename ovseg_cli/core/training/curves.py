"""How did a run go? Its log as a small picture: loss terms, learning rate, evaluations."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.files import write_bytes
from ovseg_cli.core.training.metrics_log import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BESIDE = {
    "step",
    "learning_rate",
    "learning_rates",
    "images_per_second",
    "seconds",
    "waited_share",
    "peak_memory_mib",
    "gradient_norm",
    "overflowed",
}
Series = dict[str, tuple[list[int], list[float]]]


def draw_curves(log: Path, picture: Path, title: str) -> bool:
    """Draw `metrics.jsonl` as a PNG: panels for what there is.

    Args:
        log: The log; loss terms are drawn as means between two lines.
        picture: The PNG, written whole or not at all.
        title: Stands above the panels.

    Returns:
        Whether there was anything to draw: two lines of training make a curve.

    Raises:
        MachineError: The disk refuses.
    """
    records = read_log(log)
    steps = [record for record in records if "evaluation" not in record]
    if len(steps) < 2:
        return False
    scores = [{"step": r["step"], **r["evaluation"]} for r in records if "evaluation" in r]
    panels = [("loss", _series(steps, _BESIDE)), ("learning rate", _rates(steps))]
    if norms := _series([{"step": r["step"], "gradient norm": r.get("gradient_norm")} for r in steps], {"step"}):
        panels.append(("gradient norm", norms))
    if scored := _series(scores, {"step"}):
        panels.append(("evaluation", scored))
    write_bytes(picture, _png(panels, title))
    return True


def _series(records: list[dict[str, Any]], beside: set[str]) -> Series:
    names = sorted({name for record in records for name in record} - beside)
    found: Series = {}
    for name in names:
        pairs = [(r["step"], float(r[name])) for r in records if isinstance(r.get(name), int | float)]
        if pairs:
            found[name] = ([step for step, _ in pairs], [value for _, value in pairs])
    return found


def _rates(steps: list[dict[str, Any]]) -> Series:
    """One curve for each parameter group's rate that differs from the others'."""
    number = max(len(record.get("learning_rates", [0])) for record in steps)
    rates = [record.get("learning_rates", [record["learning_rate"]] * number) for record in steps]
    curves = {tuple(column): None for column in zip(*rates, strict=True)}
    places = [record["step"] for record in steps]
    return {f"group {i}" if len(curves) > 1 else "rate": (places, list(c)) for i, c in enumerate(curves)}


def _png(panels: list[tuple[str, Series]], title: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(panels), 3.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    for axes, (name, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, name, series)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _panel(axes: "Axes", name: str, series: Series) -> None:
    for label, (steps, values) in series.items():
        axes.plot(steps, values, label=label, linewidth=1.3, marker="o" if len(steps) < 15 else None, markersize=3)
    values = [value for _, column in series.values() for value in column]
    if name in ("loss", "gradient norm") and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
    axes.set_title(name, fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(series) > 1 or name == "evaluation":
        axes.legend(fontsize=7, frameon=False)
