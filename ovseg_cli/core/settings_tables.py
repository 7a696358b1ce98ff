"""Which settings does a method have, how is it trained, and what do the data sets' recipes change? Tables of it."""

from collections.abc import Iterable, Mapping
from typing import Any

from ovseg_cli.core.catalogue import make_table
from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.report.cells import Column, Table
from ovseg_cli.core.runs import Run

SETTING_COLUMNS = (
    Column("setting", "setting"),
    Column("default", "default"),
    Column("source", "default from"),
    Column("meaning", "meaning"),
)
RECIPE_COLUMNS = (Column("data", "data set"), Column("setting", "setting"), Column("value", "value"))
RUN_COLUMNS = (Column("table", "of"), Column("setting", "setting"), Column("value", "value"))
SHOWN = 240  # characters of a value


def method_tables(method: Any) -> list[Table]:
    """Return the settings of a method, those of its training, and what the recipes of data sets change in both."""
    tables = [_settings("Settings (--set key=value)", method.Config, method.sources)]
    if training := getattr(method, "Training", None):
        tables.append(_settings("Settings of its training (--set key=value)", training, method.training_sources))
    if rows := list(_recipes(method.name)):
        note = "Chosen by --data; --config and --set win over them."
        tables.append(make_table("Recipes of the data sets", RECIPE_COLUMNS, rows, (note,)))
    return tables


def _settings(title: str, config: Any, sources: Mapping[str, Any]) -> Table:
    """One row a setting; a source is a sentence, or a kind and a place."""
    rows = []
    for key, field in config.model_fields.items():
        rows.append((key, str(field.default), default_source(sources, key), field.description or ""))
    return make_table(title, SETTING_COLUMNS, rows)


def default_source(sources: Mapping[str, Any], key: str) -> str:
    """Say where the default of a setting comes from: "paper", "code" or "log" with the place, or "ours"."""
    source = sources.get(key)
    return f"{source.kind}: {source.place}" if source else "ours"


def _recipes(method: str) -> Iterable[tuple[str, str, str]]:
    """Yield data set, setting and value of every recipe for a method that a shipped spec holds."""
    from ovseg_cli.core.data.specs import load_spec, spec_names

    for name in spec_names():
        try:
            recipe = load_spec(name).preset.methods.get(method, {})
        except OvsegError:  # `ovseg doctor` tells of a broken spec
            continue
        for key, value in flat(recipe):
            yield name, key, value_text(value)


def run_tables(run: Run) -> list[Table]:
    """Return all settings of a run, and those of the host inside it."""
    rows = [
        (table, key, value_text(value))
        for table, content in run.config.items()
        if isinstance(content, Mapping)
        for key, value in flat(content)
    ]
    return [make_table("Settings of this run", RUN_COLUMNS, rows)]


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield every value of a table of tables with its dotted key."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def value_text(value: Any) -> str:
    """Write a value in one cell, cut where it is long."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"
