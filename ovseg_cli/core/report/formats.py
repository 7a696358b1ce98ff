"""How a table is written down: markdown, LaTeX, CSV, JSON. Everything from outside is escaped."""

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

from ovseg_cli.core.errors import unknown_name
from ovseg_cli.core.report.cells import Table

SCHEMA = 1
Format = Literal["markdown", "latex", "csv", "json"]

_MARKDOWN = {"\\": r"\\", "|": r"\|", "*": r"\*", "`": r"\`", "<": "&lt;", "](": r"]\("}
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # after \\ a bracket would be read as an optional argument
    "]": "{]}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
}


def render(tables: Sequence[Table], form: str) -> str:
    """Write tables in one format.

    Args:
        tables: In order.
        form: "markdown", "latex", "csv" (tables separated by an empty line) or "json" (one document).

    Returns:
        Text that ends with a newline.

    Raises:
        UsageError: There is no such format.
    """
    if form == "json":
        return json.dumps(document(tables), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    writers = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}
    if form not in writers:
        raise unknown_name("format", form, get_args(Format))
    return "\n".join(writers[form](table) for table in tables)


def to_markdown(table: Table) -> str:
    """Write a GitHub table with its title above and its notes below; readable as plain text too."""
    headers, rows = table.texts()
    lines = [[escape_markdown(text) for text in line] for line in (headers, *rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(headers))]
    right = [table.columns[i].is_number for i in table.shown_columns]
    rules = ["-" * (width - 1) + ":" if flag else "-" * width for width, flag in zip(widths, right, strict=True)]

    def join(line: Sequence[str]) -> str:
        padded = [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(line, widths, right, strict=True)]
        return f"| {' | '.join(padded)} |"

    text = [f"**{escape_markdown(table.title)}**", "", join(lines[0]), join(rules), *map(join, lines[1:])]
    notes = [escape_markdown(note) for note in table.notes]
    return "\n".join([*text, *(["", *_with_breaks(notes)] if notes else [])]) + "\n"


def to_latex(table: Table) -> str:
    r"""Write a `table` environment with booktabs rules; needs `\usepackage{booktabs}`."""
    headers, rows = table.texts()
    places = "".join("r" if table.columns[i].is_number else "l" for i in table.shown_columns)
    caption = " ".join(escape_latex(part) for part in (f"{table.title}.", *table.notes))
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{caption}}}",
        rf"  \begin{{tabular}}{{{places}}}",
        r"    \toprule",
        f"    {_latex_row(headers)}",
        r"    \midrule",
        *(f"    {_latex_row(row)}" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Write all columns with unrounded numbers; KEY_low, KEY_high, KEY_spread, KEY_n follow KEY where any row has them.

    Texts that a spreadsheet would run as a formula get a leading apostrophe. Missing values are empty.
    """
    records = table.records()
    keys = _all_keys(table, records)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_csv_value(key) for key in keys])
    writer.writerows([_csv_value(record.get(key)) for key in keys] for record in records)
    return stream.getvalue()


def document(tables: Sequence[Table]) -> dict[str, Any]:
    """Return tables as a JSON document.

    `{schema: 1, tables: [{title, columns: [{key, header, kind}], rows: [{KEY: value, KEY_low, KEY_high, KEY_spread,
    KEY_n, KEY_marked}], notes}]}`. Scores and bounds are in percent, differences in percentage points, not rounded;
    what does not exist is null or absent.
    """
    return {
        "schema": SCHEMA,
        "tables": [
            {
                "title": table.title,
                "columns": [{"key": c.key, "header": c.header, "kind": c.kind} for c in table.columns],
                "rows": table.records(),
                "notes": list(table.notes),
            }
            for table in tables
        ],
    }


def escape_markdown(text: str) -> str:
    """Escape what markdown or HTML would read as markup; underscores inside a word are none."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(text.split()))
    for mark, escaped in _MARKDOWN.items():
        text = text.replace(mark, escaped)
    return " ".join(_escape_outer_underscores(word) for word in text.split(" "))


def escape_latex(text: str) -> str:
    """Escape every character with a meaning in LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _escape_outer_underscores(word: str) -> str:
    inner = word.strip("_")
    if not inner:
        return word.replace("_", "\\_")
    left, right = len(word) - len(word.lstrip("_")), len(word) - len(word.rstrip("_"))
    return "\\_" * left + inner + "\\_" * right


def _with_breaks(notes: Sequence[str]) -> list[str]:
    return [f"{note}  " for note in notes[:-1]] + list(notes[-1:])


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(escape_latex(text) for text in texts) + r" \\"


def _all_keys(table: Table, records: Sequence[dict[str, Any]]) -> list[str]:
    extras = ("low", "high", "spread", "n", "marked")
    keys = []
    for column in table.columns:
        names = [f"{column.key}_{extra}" for extra in extras]
        keys += [column.key, *(name for name in names if any(name in record for record in records))]
    return keys


def _csv_value(value: Any) -> Any:
    if isinstance(value, str):
        value = " ".join(value.split())
        return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
    return "" if value is None else value
