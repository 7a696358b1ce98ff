"""The page as text: its numbers are those of the JSON, nothing from outside is markup, nothing is loaded."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.page import render as rendering
from ovseg_cli.core.page.document import Confusion, Curves, Line, Page
from ovseg_cli.core.page.render import render, shared_facts, tables_of
from ovseg_cli.core.page.view_confusion import heat_view
from ovseg_cli.core.page.view_curves import MOST_POINTS, curve_views
from ovseg_cli.core.page.view_tables import class_view, score_view
from ovseg_cli.core.report.cells import MISSING, Cell, Column, Table, cell_text, number_text
from ovseg_cli.core.report.formats import document
from tests.core.page import example
from tests.core.page.structure import Element, Tree, colors, contrast, faults

PAGES = {
    "everything": example.page(),
    "one model": example.page(("CLIP",)),
    "a dozen models": example.page([f"Model {i}" for i in range(12)]),
    "the least": example.plain_page(),
    "seeds": example.seeds_page(),
    "171 classes": example.wide_page(),
    "hostile": example.hostile_page(),
    "an empty table": replace(example.plain_page(), tables=(Table("T", (Column("a", "a"),), ()),)),
}
FOLDER = Path(rendering.__file__).with_name("template")
MOST_BYTES = 60_000


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return {name: render(page) for name, page in PAGES.items()}


def embedded(html: str) -> dict:
    """The JSON of a page, read as a browser reads it: up to the first end of a script."""
    text = re.search(r'<script type="application/json" id="tables">(.*?)</script', html, re.DOTALL)
    assert text
    return json.loads(text[1])


def cells_of(table: Element) -> list[list[Element]]:
    rows = [e for e in table.inside if e.tag == "tr"]
    return [[e for e in row.inside if e.tag in ("th", "td")] for row in rows]


@pytest.mark.parametrize("name", PAGES)
def test_what_is_shown_is_the_rounded_value_of_the_json(name: str, written: dict[str, str]) -> None:
    values, page = embedded(written[name]), PAGES[name]
    tables = tables_of(page)
    assert values == json.loads(json.dumps(document(tables), allow_nan=False))
    shown = [e for e in Tree(written[name]).all("table") if "data-table" in e.attributes]
    assert sorted(int(e.attributes["data-table"]) for e in shown) == list(range(len(tables)))
    for element in shown:
        place = int(element.attributes["data-table"])
        heads, *rows = cells_of(element)
        columns = {column.key: column for column in tables[place].columns}
        assert len(rows) == len(values["tables"][place]["rows"])
        for cells, record in zip(rows, values["tables"][place]["rows"], strict=True):
            for head, cell in zip(heads, cells, strict=True):
                _assert_cell(cell, columns[head.attributes["data-key"]], record)


def _assert_cell(cell: Element, column: Column, record: dict) -> None:
    value, given = record[column.key], cell.attributes
    if value is None:
        assert cell.text == MISSING and "data-missing" in given and "data-value" not in given
        return
    assert cell.text.startswith(number_text(value, column))
    if column.is_number:
        assert float(given["data-value"]) == value
    for part in ("low", "high", "spread"):
        known = record.get(f"{column.key}_{part}")
        assert known == (float(given[f"data-{part}"]) if f"data-{part}" in given else None)
        if known is not None and (part == "spread" or column.brackets):
            assert number_text(known, column).lstrip("+" if part == "spread" else "") in cell.text
    assert ("*" in cell.text.removeprefix(str(value))) == bool(record.get(f"{column.key}_marked"))


FLOATS = st.floats(-120, 120)
CELLS = st.builds(
    Cell,
    FLOATS | st.sampled_from([None, float("nan"), float("inf")]),
    st.none() | st.tuples(FLOATS, FLOATS) | st.just((float("nan"), 1.0)),
    st.none() | st.floats(0, 9) | st.just(float("nan")),
    st.none(),
    st.booleans(),
    st.sampled_from(["", "†"]),
)
COLUMNS = st.builds(
    Column, st.just("a"), st.just("A"), st.sampled_from(["percent", "points", "number"]), st.integers(0, 3)
)


@given(CELLS, COLUMNS, st.booleans())
@settings(max_examples=80, deadline=None)
def test_the_parts_of_a_cell_are_what_other_formats_print(cell: Cell, column: Column, brackets: bool) -> None:
    table = Table("T", (replace(column, brackets=brackets),), ((cell,),))
    for view in (score_view(table, 0), class_view(table, 0, (), ("a",))):
        part = view.rows[0][0]
        assert part.text + part.spread + part.mark + part.interval == cell_text(cell, table.columns[0])
        places = [] if part.plot is None else [part.plot.dot, part.plot.zero, *(part.plot.whisker or ())]
        assert all(0 <= place <= 100 for place in places)


def test_dots_lie_on_one_scale_and_bars_go_to_both_sides() -> None:
    columns = (Column("m", "m"), Column("a", "a", "percent"), Column("b", "b", "percent"))
    row = (Cell("x"), Cell(10.0, interval=(5.0, 15.0)), Cell(35.0, interval=(30.0, 40.0)))
    first, second = (cell.plot for cell in score_view(Table("T", columns, (row,)), 0).rows[0][1:])
    assert first and second  # the scale ends at 40, the next multiple of ten
    assert (first.dot, first.whisker) == (25.0, (12.5, 37.5))
    assert (second.dot, second.whisker) == (87.5, (75.0, 100.0))

    column = Column("d", "Δ", "points")
    deltas = class_view(Table("T", (column,), ((Cell(-20.0),), (Cell(10.0),))), 0, (), ("d",))
    loss, gain = (row[0] for row in deltas.rows)
    assert loss.plot and loss.plot.bar == (0.0, 50.0) and loss.side == "loss"
    assert gain.plot and gain.plot.bar == (50.0, 25.0) and gain.side == "gain"


def test_every_share_of_a_confusion_is_of_its_row() -> None:
    heat = heat_view(Confusion("CLIP", "toy", ("cat", "dog"), ((60, 30), (0, 0)), (100, 0)))
    right, wrong, other = heat.rows[0]
    assert [cell.share for cell in heat.rows[0]] == [60, 30, 10]
    assert (right.is_right, wrong.is_right, other.pixels) == (True, False, 10)
    assert wrong.said == "30 of 100 pixels of cat were called dog (30.0 %)"
    assert [cell.text for cell in heat.rows[1]] == [MISSING] * 3  # a class without pixels has no shares


def test_a_curve_keeps_its_extremes_and_breaks_where_a_value_is_missing() -> None:
    values = [1.0] * 5000
    values[777], values[3000] = 50.0, float("nan")
    (view,) = curve_views([Curves("loss", (Line("a", tuple(range(5000)), tuple(values)),))])
    path, points = view.lines[0].path, {name: (step, value) for name, step, value in view.lines[0].points}
    assert path.count("M") == 2 and path.count("L") <= MOST_POINTS + 2
    assert points == {"first": (0, 1.0), "last": (4999, 1.0), "lowest": (0, 1.0), "highest": (777, 50.0)}


@pytest.mark.parametrize("values", [(), (float("nan"),), (0.0,), (3.0, 3.0), (1e-9, 2e-9), (-5.0, 1e12)])
def test_odd_curves_are_drawn(values: tuple[float, ...]) -> None:
    (view,) = curve_views([Curves("loss", (Line("a", tuple(range(7, 7 + len(values))), values),))])
    assert all(-1 <= tick.at <= 251 for tick in view.values)


def test_a_run_keeps_its_colour_in_all_charts() -> None:
    lines = [Line(label, (1, 2), (0.5, 0.4)) for label in "ab"]
    first, second = curve_views([Curves("loss", tuple(lines)), Curves("rate", (lines[1],))])
    assert [line.style for line in first.lines] == [0, 1] and second.lines[0].style == 1


def test_facts_that_all_share_stand_once() -> None:
    both = [example.reproduction("CLIP"), example.reproduction("MaskCLIP")]
    assert shared_facts(both) == (("data", "0f3b8a6c11d2"), ("ovseg", "0.1.0"), ("seed", "0"))
    assert shared_facts(both[:1]) == ()
    html = render(replace(example.plain_page(), reproductions=tuple(both)))
    assert html.count("0f3b8a6c11d2") == 1 and html.count(f"{4:012x}") == 1


@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_read_it(name: str, written: dict[str, str]) -> None:
    assert faults(written[name]) == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded_and_nothing_else_runs(name: str, written: dict[str, str]) -> None:
    tree, html = Tree(written[name]), written[name]
    policy = next(e for e in tree.all("meta") if "http-equiv" in e.attributes).attributes["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    parts = {tag: re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL) for tag in ("style", "script")}
    assert [len(found) for found in parts.values()] == [1, 2]
    for text in (*parts["style"], *parts["script"]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(tree.all("script")) == 3 and not tree.all("link", "iframe", "object", "base", "form", "b")
    for element in tree.elements:
        assert not [key for key in element.attributes if key.startswith("on") or key == "style"], element
        assert element.attributes.get("src", "data:image/").startswith("data:image/")
        assert element.attributes.get("href", "#").startswith("#")


def test_hostile_texts_are_shown_as_they_are(written: dict[str, str]) -> None:
    tree = Tree(written["hostile"])
    assert tree.all("title")[0].text == tree.all("h1")[0].text == example.HOSTILE[0]
    for text in example.HOSTILE:
        assert any(e.tag == "th" and e.text.startswith(text) for e in tree.elements), text
        assert text in [e.text for e in tree.all("li")], text
    assert all(e.attributes["src"].startswith("data:") for e in tree.all("img"))


@given(st.text(max_size=30))
@settings(max_examples=25, deadline=None)
def test_any_text_leaves_the_structure_alone(text: str) -> None:
    row = Table(text, (Column("a", text),), ((Cell(text),),), (text,))
    html = render(Page(text, text, text, (row,), notes=(text,)))
    empty = render(Page("x", "x", "x", (Table("x", (Column("a", "x"),), ((Cell("x"),),), ("x",)),), notes=("x",)))
    assert [e.tag for e in Tree(html).elements] == [e.tag for e in Tree(empty).elements]
    assert embedded(html)["tables"][0]["rows"][0]["a"] == text


def test_names_of_files_that_are_no_unicode_can_be_written() -> None:
    html = render(replace(example.plain_page(), title="run-\udcff"))
    assert "run-\\udcff" in html.encode("utf-8").decode("utf-8")


def test_each_picture_is_embedded_once(written: dict[str, str]) -> None:
    addresses = re.findall(r"data:image/[a-z]+;base64,[^\"]+", written["everything"])
    (gallery,) = PAGES["everything"].galleries
    drawings = {d.data for p in gallery.pictures for d in (p.image, p.truth, *p.maps)}
    assert len(addresses) == sum(2 + len(p.maps) for p in gallery.pictures)
    assert {base64.b64decode(a.partition(",")[2]) for a in addresses} == drawings


def test_numbers_outside_the_tables_are_rounded_values_of_the_records(written: dict[str, str]) -> None:
    page, tree = PAGES["everything"], Tree(written["everything"])
    pictures = page.galleries[0].pictures
    shown = [e for e in tree.all("dd") if e.text.startswith(("mIoU", MISSING))]
    wanted = [score for picture in pictures for score in picture.scores]
    assert [float(e.attributes["data-value"]) if "data-value" in e.attributes else None for e in shown] == wanted
    assert [e.text for e in shown] == [MISSING if score is None else f"mIoU {score:.1f}" for score in wanted]
    heat = [e for e in tree.all("td") if "data-pixels" in e.attributes]
    counts = [(*row, total - sum(row)) for c in page.confusions for row, total in zip(c.pixels, c.totals, strict=True)]
    assert [int(e.attributes["data-pixels"]) for e in heat] == [count for row in counts for count in row]
    assert all(e.text == f"{float(e.attributes['data-value']):.0f}" for e in heat if "data-value" in e.attributes)


def test_sections_without_content_are_left_out(written: dict[str, str]) -> None:
    links = [e.attributes["href"] for e in Tree(written["the least"]).all("a")]
    assert links == ["#content", "#results"]
    assert [e.attributes["href"] for e in Tree(written["everything"]).all("a")][1:] == [
        f"#{name}" for name in "results differences classes confusion gallery curves settings reproduce notes".split()
    ]


def test_legend_says_seen_and_unseen_in_words(written: dict[str, str]) -> None:
    legend = next(e for e in Tree(written["everything"]).elements if e.attributes.get("class") == "legend")
    assert " ".join(legend.text.split()) == "Seen: sky tree building grass Unseen: road person"


def test_styles_and_scripts_are_small() -> None:
    names = (*rendering.STYLES, rendering.EARLY_SCRIPT, *rendering.SCRIPTS)
    assert sum((FOLDER / name).stat().st_size for name in names) < MOST_BYTES
    assert {p.name for p in FOLDER.iterdir()} == {*names, "page.html", "parts.html", "gallery.html"}


TEXTS = [("ink", "bg"), ("ink", "raised"), ("muted", "bg"), ("muted", "raised"), ("accent", "bg"), ("accent", "raised")]
TEXTS += [("on-accent", "accent"), ("gain", "bg"), ("loss", "bg"), ("gain", "raised"), ("loss", "raised")]
TEXTS += [(f"{kind}-{i}-ink", f"{kind}-{i}") for kind in ("hot", "cool") for i in range(6)]
DRAWN = [("edge", "bg"), ("bar", "bg"), *((f"line-{i}", "bg") for i in range(8))]


@pytest.mark.parametrize(("theme", "name"), enumerate(("light", "dark")), ids=lambda value: str(value))
def test_texts_and_drawings_stand_out(theme: int, name: str) -> None:
    found = colors("".join((FOLDER / file).read_text(encoding="utf-8") for file in rendering.STYLES))
    for pairs, least in ((TEXTS, 4.5), (DRAWN, 3.0)):
        low = {pair: contrast(*(found[part][theme] for part in pair)) for pair in pairs}
        assert {pair: ratio for pair, ratio in low.items() if ratio < least} == {}, name


def test_contrast_of_black_and_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the known near miss of AA
