"""Tables of any width: nothing is broken that must not be, and what is left out is said."""

from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.compare import difference_table
from ovseg_cli.core.report.fitting import GAP, fit
from ovseg_cli.core.report.tables import View, result_table
from tests.core.report.results import random_result

VIEW = View(resamples=20)
SCORES = result_table([[random_result(0, is_thing=(True, False, False))]], VIEW)


def headers(table: Table) -> list[str]:
    return table.texts()[0]


def test_a_table_that_fits_is_left_alone():
    fitted = fit(SCORES, 200)
    assert fitted.table is SCORES and fitted.widths is not None
    headers, rows = SCORES.texts()
    assert list(fitted.widths) == [max(len(header), len(text)) for header, text in zip(headers, rows[0], strict=True)]


def test_intervals_go_first_then_minor_scores_and_a_note_says_so():
    everything, texts = headers(SCORES), SCORES.texts()[1][0]
    assert any("[" in text for text in texts)
    narrow = fit(SCORES, 80).table
    assert headers(narrow) == everything and not any("[" in text for text in narrow.texts()[1][0])
    assert "intervals;" in narrow.notes[-1] and not any(note.startswith("Ranges") for note in narrow.notes)
    fitted = [one for width in range(80, 20, -1) if (one := fit(SCORES, width)).widths]
    gone = [[h for h in everything if h not in headers(one.table)] for one in fitted]
    assert gone == sorted(gone, key=len) and len(gone[-1]) == 4
    for names, one in zip(gone, fitted, strict=True):
        assert set(names) == set(["fwIoU", "mAcc", "pAcc", "uIoU stuff"][: len(names)])
        assert all(name in one.table.notes[-1] for name in names)


def test_differences_give_way_alike():
    table = difference_table([[random_result(0)]], [random_result(1, method="clip")], VIEW)
    narrow = fit(table, 50).table
    assert "Δ fwIoU" not in headers(narrow) and "Δ fwIoU" in narrow.notes[-1] and "Δ hIoU" in headers(narrow)


def test_what_cannot_be_fitted_is_told_and_stays_whole():
    text = Table("t", (Column("a", "a"), Column("b", "b")), ((Cell("x" * 50), Cell("y" * 50)),))
    assert fit(text, 80).widths is None and fit(text, 80).table is text
    assert fit(text, 102).widths == (50, 50)


@given(
    st.lists(st.tuples(st.text("ab ", max_size=60), st.integers(0, 10**9)), min_size=1, max_size=4),
    st.integers(10, 120),
)
def test_columns_share_the_width_and_hold_their_words(rows: list[tuple[str, int]], width: int):
    table = Table(
        "t",
        (Column("name", "the name"), Column("count", "how many", "count")),
        tuple((Cell(text), Cell(number)) for text, number in rows),
    )
    widths = fit(table, width).widths
    texts, numbers = zip(*table.texts()[1], strict=True)
    words = max(map(len, ("name", *(word for text in texts for word in text.split()))))
    digits = max(map(len, ("many", *numbers)))
    assert (widths is None) == (words + digits + GAP > width)
    if widths:
        assert widths[0] >= words and widths[1] >= digits and sum(widths) + GAP <= width
