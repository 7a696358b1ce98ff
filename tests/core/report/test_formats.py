import csv
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.report.cells import Cell, Column, Table, cell_text
from ovseg_cli.core.report.formats import escape_latex, escape_markdown, render, to_csv, to_latex, to_markdown

COLUMNS = (
    Column("name", "class"),
    Column("iou", "IoU", "percent"),
    Column("delta", "Δ", "points", 2),
    Column("pixels", "pixels", "count"),
    Column("rule", "rule", shown=False),
)
NAN = float("nan")


def table(*rows: tuple[Cell, ...], notes: tuple[str, ...] = ("One note.",)) -> Table:
    return Table("Scores", COLUMNS, rows, notes)


EXAMPLE = table(
    (
        Cell("cat"),
        Cell(41.25, interval=(38.0, 43.61)),
        Cell(-1.234, interval=(-2.0, -0.5), mark=True),
        Cell(1234567),
        Cell("union"),
    ),
    (Cell("=1+2|_x_"), Cell(NAN), Cell(None), Cell(0), Cell("union")),
)


@pytest.mark.parametrize(
    "cell, column, text",
    [
        (Cell(41.25), COLUMNS[1], "41.2"),
        (Cell(41.25, interval=(38, 43.61)), COLUMNS[1], "41.2 [38.0, 43.6]"),
        (Cell(41.25, spread=0.84, count=3), COLUMNS[1], "41.2 ± 0.8"),
        (Cell(1.5, interval=(0.25, 2.0), mark=True), COLUMNS[2], "+1.50 * [+0.25, +2.00]"),
        (Cell(41.25, (38, 43.61)), Column("x", "x", "percent", brackets=False), "41.2"),
        (Cell(-0.001), COLUMNS[2], "+0.00"),
        (Cell(-0.001), COLUMNS[1], "0.0"),
        (Cell(50.0, interval=(NAN, NAN)), COLUMNS[1], "50.0"),
        (Cell(1234567), COLUMNS[3], "1,234,567"),
        (Cell(NAN), COLUMNS[1], "–"),
        (Cell(math.inf), COLUMNS[1], "–"),
        (Cell(None), COLUMNS[0], "–"),
        (Cell("a"), COLUMNS[3], "a"),
    ],
)
def test_cells_are_printed_with_what_is_known(cell: Cell, column: Column, text: str):
    assert cell_text(cell, column) == text


def test_markdown_is_aligned_and_escaped():
    lines = to_markdown(EXAMPLE).splitlines()
    assert lines[0] == "**Scores**" and lines[-1] == "One note."
    assert len({len(line) for line in lines[2:6]}) == 1
    assert lines[3].split("|")[1].strip("- ") == "" and all(part.endswith(": ") for part in lines[3].split("|")[2:-1])
    assert "| =1+2\\|_x\\_ |" in lines[5] and "rule" not in lines[2]


def test_latex_is_a_booktabs_table():
    lines = [line.strip() for line in to_latex(EXAMPLE).splitlines()]
    assert lines[:2] == [r"\begin{table}", r"\centering"] and lines[2] == r"\caption{Scores. One note.}"
    assert lines[3] == r"\begin{tabular}{lrrr}"
    assert lines[5] == r"class & IoU & Δ & pixels \\"
    assert lines[7] == r"cat & 41.2 {[}38.0, 43.6{]} & -1.23 * {[}-2.00, -0.50{]} & 1,234,567 \\"
    assert lines[8] == r"=1+2\textbar{}\_x\_ & -- & -- & 0 \\"


def test_csv_holds_every_number_unrounded_and_no_formula():
    rows = list(csv.DictReader(io.StringIO(to_csv(EXAMPLE))))
    assert rows[0] == {
        "name": "cat",
        "iou": "41.25",
        "iou_low": "38.0",
        "iou_high": "43.61",
        "delta": "-1.234",
        "delta_low": "-2.0",
        "delta_high": "-0.5",
        "delta_marked": "True",
        "pixels": "1234567",
        "rule": "union",
    }
    assert rows[1]["name"] == "'=1+2|_x_" and rows[1]["iou"] == "" and rows[1]["delta"] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r\n@"])
def test_texts_that_look_like_formulas_are_disarmed(start: str):
    text = list(csv.reader(io.StringIO(to_csv(table((Cell(start + "x"), Cell(), Cell(), Cell(), Cell()))))))[1][0]
    assert text == f"'{start.strip()}x"


def test_json_has_null_for_what_is_missing():
    document = json.loads(render([EXAMPLE, EXAMPLE], "json"))
    assert document["schema"] == 1 and len(document["tables"]) == 2
    first, second = document["tables"][0]["rows"]
    assert first["iou"] == 41.25 and (first["iou_low"], first["iou_high"]) == (38.0, 43.61)
    assert second["iou"] is None and second["delta"] is None and first["delta_marked"] is True
    assert document["tables"][0]["columns"][1] == {"key": "iou", "header": "IoU", "kind": "percent"}


def test_json_never_holds_nan():
    bad = table((Cell("a"), Cell(NAN, interval=(NAN, 1.0), spread=NAN, count=1), Cell(), Cell(), Cell()))
    row = json.loads(render([bad], "json"))["tables"][0]["rows"][0]
    assert (row["iou"], row["iou_low"], row["iou_high"], row["iou_spread"], row["iou_n"]) == (None, None, 1.0, None, 1)


def test_several_tables_are_separated_by_an_empty_line():
    for form in ("markdown", "latex", "csv"):
        assert render([EXAMPLE, EXAMPLE], form).count("\n\n") >= 1
    with pytest.raises(UsageError, match="Did you mean 'markdown'"):
        render([EXAMPLE], "markdwn")


@pytest.mark.parametrize(
    "text, escaped",
    [
        ("a|b", r"a\|b"),
        ("<script>", "&lt;script>"),
        ("[x](http://y)", r"[x]\(http://y)"),
        ("*bold* `code`", r"\*bold\* \`code\`"),
        ("dining_table _x_", r"dining_table \_x\_"),
        ("a\nb", "a b"),
        ("&lt; & c", "&amp;lt; & c"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markdown_escapes(text: str, escaped: str):
    assert escape_markdown(text) == escaped


@given(st.text())
def test_latex_leaves_no_active_character(text: str):
    plain = escape_latex(text)
    for known in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", r"\textless{}", r"\textgreater{}"):
        plain = plain.replace(known, "")
    for known in (r"\textbar{}", r"$\pm$", r"$\times$", r"$\rightarrow$", "{[}", "{]}"):
        plain = plain.replace(known, "")
    for known in (r"\dag{}", r"\ddag{}", r"\S{}", r"\P{}"):
        plain = plain.replace(known, "")
    for letter in "&%$#_{}":
        plain = plain.replace(f"\\{letter}", "")
    assert not set(plain) & set("\\&%$#_{}~^\n")


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_markdown_rows_keep_their_columns(names: list[str]):
    rows = [(Cell(name), Cell(1.0), Cell(), Cell(3), Cell("r")) for name in names]
    lines = to_markdown(table(*rows, notes=())).splitlines()[2:]
    assert len(lines) == 2 + len(names)
    for line in lines:
        bare = line.replace("\\\\", "").replace("\\|", "")
        assert bare.count("|") == 5
