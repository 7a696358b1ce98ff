"""How a conversion is told: what became of the entries, and where each value comes from."""

from pathlib import Path

from ovseg_cli.core.conversion.request import Conversion
from ovseg_cli.core.report.cells import Cell, Column, Table

KEYS = (
    Column("prefix", "names begin with"),
    Column("tensors", "tensors", "count"),
    Column("action", "became"),
    Column("note", "what, or why"),
)
SETTINGS = (Column("setting", "setting"), Column("value", "value"), Column("source", "from"))
LONG = 160  # characters of a value


def account(conversion: Conversion, run: Path | None) -> list[Table]:
    """Return the tables of a conversion; `run` is None where nothing was written."""
    rows = [(row.prefix, row.tensors, row.action, row.note) for row in conversion.rows]
    loaded = sum(row.tensors for row in conversion.rows if row.action == "loaded")
    ignored = sum(row.tensors for row in conversion.rows if row.action != "loaded")
    notes = [f"{loaded} tensors loaded, {ignored} ignored, none left over."]
    if conversion.checkpoint.beside:
        notes.append(f"Not weights of the model, left out: {', '.join(conversion.checkpoint.beside)}.")
    notes += conversion.checks
    settings = [(c.setting, _text(c.value), c.source) for c in conversion.choices]
    last = ["Nothing was written." if run is None else f"Run folder: {run}"]
    if conversion.is_label_free:
        last.append("No label was read in its training: every class counts as unseen.")
    elif conversion.data is None:
        last.append("What it was trained on was not said (--data): every class counts as unseen.")
    return [
        _table(f"Entries of {conversion.checkpoint.path.name}", KEYS, rows, notes),
        _table("Settings of the run", SETTINGS, settings, last),
    ]


def _table(title: str, columns: tuple[Column, ...], rows: list[tuple], notes: list[str]) -> Table:
    return Table(title, columns, tuple(tuple(Cell(value) for value in row) for row in rows), tuple(notes))


def _text(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= LONG else f"{text[:LONG]} …"
