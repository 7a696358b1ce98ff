"""How did a run go? Its log as a small picture: loss terms, learning rate, evaluations."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.files import write_bytes
from ovseg_cli.core.training.metrics_log import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOT_OTHER = {
    "loss",
    "gradient_norm",
    "learning_rate",
    "images_per_second",
    "seconds",
    "waited_share",
    "peak_memory_mib",
}
_MOST_NAMES = 8  # in a legend; what is less is drawn in grey
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
    panels = panels_of(read_log(log))
    if not panels:
        return False
    write_bytes(picture, _png(list(panels.items()), title))
    return True


def panels_of(records: list[dict[str, Any]]) -> dict[str, Series]:
    """Sort what a log holds into panels: loss terms, rates, gradient norm, others, evaluations; none is empty.

    Args:
        records: The log, see `read_log`.

    Returns:
        Panel → curve → (steps, values). Nothing where there are fewer than two lines of training.
    """
    steps = [record for record in records if "evaluation" not in record]
    if len(steps) < 2:
        return {}
    scores = [{"step": r["step"], **r["evaluation"]} for r in records if "evaluation" in r]
    terms = [{"step": record["step"], **record.get("terms", {})} for record in steps]
    panels = {
        "loss": _series(terms),
        "learning rate": _rates(steps),
        "gradient norm": _series(steps, ["gradient_norm"]),
        "other": _series([{k: v for k, v in r.items() if k not in _NOT_OTHER} for r in steps]),
        "evaluation": _series(scores),
    }
    return {name: series for name, series in panels.items() if series}


def _series(records: list[dict[str, Any]], names: Iterable[str] | None = None) -> Series:
    names = sorted({name for record in records for name in record} - {"step"}) if names is None else names
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
    named = sorted(series, key=lambda label: -series[label][1][0])[:_MOST_NAMES]
    for label, (steps, values) in series.items():
        look = {"label": label} if label in named else {"color": "0.8", "zorder": 1}
        axes.plot(steps, values, linewidth=1.3, marker="o" if len(steps) < 15 else None, markersize=3, **look)
    values = [value for _, column in series.values() for value in column]
    if name in ("loss", "gradient norm") and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
    if name == "learning rate":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        axes.yaxis.get_offset_text().set_fontsize(8)
    rest = len(series) - len(named)
    axes.set_title(f"{name} ({rest} smaller ones in grey)" if rest else name, fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(series) > 1 or name in ("loss", "other", "evaluation"):
        axes.legend(fontsize=7, framealpha=0.7, edgecolor="none")
