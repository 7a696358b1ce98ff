"""How does the page become HTML? One document that asks the network for nothing; all of its text is escaped.

Styles and scripts lie beside the template and are written into the document. The browser is told to run and load
nothing else: its content security policy names their hashes.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ovseg_cli.core.page.document import Drawing, Gallery, Page, Reproduction
from ovseg_cli.core.page.view_confusion import heat_view
from ovseg_cli.core.page.view_curves import curve_views
from ovseg_cli.core.page.view_tables import TableView, class_view, score_view
from ovseg_cli.core.report.cells import Column, Table, number_text
from ovseg_cli.core.report.formats import document

_FOLDER = Path(__file__).with_name("template")
STYLES = ("style.css", "gallery.css")
EARLY_SCRIPT = "theme.js"
"""Runs before anything is drawn: it chooses light or dark."""
SCRIPTS = ("tables.js", "gallery.js", "page.js")

_PERCENT = Column("", "", "percent")


@dataclass(frozen=True)
class Asset:
    """A style or script as it stands in the document, and the hash that allows it."""

    text: Markup
    source: str


def render(page: Page) -> str:
    """Write the page.

    Args:
        page: Everything that is on it.

    Returns:
        One HTML document. Characters that no file can hold (halves of surrogate pairs, as in names of files that are
        not UTF-8) are written as escapes.
    """
    tables = tables_of(page)
    scores, classes, further = _views(page)
    text = _environment().get_template("page.html").render(
        page=page,
        scores=[view for view in scores if not _is_difference(view)],
        differences=[view for view in scores if _is_difference(view)],
        further=further,
        classes=classes,
        heats=[heat_view(confusion) for confusion in page.confusions],
        charts=curve_views(page.curves),
        shared_facts=shared_facts(page.reproductions),
        document=document(tables),
        style=_asset(STYLES),
        early=_asset((EARLY_SCRIPT,)),
        script=_asset(SCRIPTS),
    )  # fmt: skip
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def tables_of(page: Page) -> list[Table]:
    """List all tables of the page, in the order of the JSON that is embedded in it."""
    return [*page.tables, *(chart.table for chart in page.classes), *page.further]


def shared_facts(reproductions: Sequence[Reproduction]) -> tuple[tuple[str, str], ...]:
    """Facts that all rows have in common, so that each row shows what is its own; none for a single row."""
    if len(reproductions) < 2:
        return ()
    first, *others = (reproduction.facts for reproduction in reproductions)
    return tuple(fact for fact in first if all(fact in facts for facts in others))


def best_model(gallery: Gallery) -> int:
    """Which model is shown first: the one with the highest mean score over the pictures."""

    def mean(place: int) -> float:
        scores = [p.scores[place] for p in gallery.pictures]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known else 0.0

    return max(range(len(gallery.models)), key=mean, default=0)


def _views(page: Page) -> tuple[list[TableView], list[TableView], list[TableView]]:
    scores = [score_view(table, place) for place, table in enumerate(page.tables)]
    classes = [
        class_view(chart.table, len(scores) + place, chart.bars, chart.deltas)
        for place, chart in enumerate(page.classes)
    ]
    first = len(scores) + len(classes)
    further = [score_view(table, first + place) for place, table in enumerate(page.further)]
    return scores, classes, further


def _is_difference(view: TableView) -> bool:
    return any(column.kind == "points" for column in view.columns)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ovseg_cli.core.page", "template"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "sort_keys": False}
    environment.filters["source"] = _data_address
    environment.filters["percent"] = _percent
    environment.filters["best"] = best_model
    return environment


def _asset(names: Sequence[str]) -> Asset:
    text = "\n" + "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return Asset(Markup(text), f"'sha256-{digest}'")


def _data_address(drawing: Drawing) -> str:
    return f"data:{drawing.mime};base64,{base64.b64encode(drawing.data).decode('ascii')}"


def _percent(value: Any) -> str:
    """A score as tables print it."""
    return number_text(value, _PERCENT)
