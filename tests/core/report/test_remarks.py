"""Notes of results: a sign at every label that they hold for, and the sentence below with the label's name."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.report.class_tables import class_table, delta_table
from ovseg_cli.core.report.compare import difference_table
from ovseg_cli.core.report.fitting import fit
from ovseg_cli.core.report.formats import render
from ovseg_cli.core.report.remarks import SIGNS, Remarks, sign_of
from ovseg_cli.core.report.tables import View, result_table
from tests.core.report.results import random_result

QUICK = View(resamples=0)
LEAK = "Not clean: training read where objects of unseen classes are."
FEW = "Only the first 5 pictures were scored."


def one(draw: int, method: str, *notes: str, **options):
    return random_result(draw, method=method, notes=notes, **options)


CLEAN, LEAKY, BOTH = one(0, "maskclip"), one(1, "clip", LEAK), one(2, "ipclip", FEW, LEAK)


def test_signs_of_hand_made_notes():
    remarks = Remarks.of(["a", "b", "c"], [[CLEAN], [LEAKY], [BOTH]])
    assert remarks.signs == ("", "†", "‡†")
    assert remarks.notes == (f"† b, c: {LEAK}", f"‡ c: {FEW}")
    assert [sign_of(i) for i in (0, 3, 4, 8)] == ["†", "¶", "††", "†††"]


def test_a_note_of_all_rows_or_of_many_is_short():
    assert Remarks.of(["a", "b"], [[LEAKY], [BOTH]]).notes[0] == f"† all: {LEAK}"
    assert Remarks.of(["a"], [[LEAKY]]).notes == (f"† a: {LEAK}",), "one row is named, not called all"
    four = Remarks.of(list("abcde"), [*[[LEAKY]] * 4, [CLEAN]])
    assert four.notes == (f"† 4 of 5: {LEAK}",) and four.signs == ("†", "†", "†", "†", "")


def test_a_note_of_some_seeds_names_them():
    seeds = [one(i, "clip", *([LEAK] if i else []), seed=i) for i in range(3)]
    remarks = Remarks.of(["CLIP", "other"], [seeds, [CLEAN]])
    assert remarks.notes == (f"† CLIP, seed 1 and 2: {LEAK}",) and remarks.signs == ("†", "")
    assert Remarks.of(["CLIP"], [seeds[1:]]).notes == (f"† CLIP: {LEAK}",)


def test_without_notes_a_table_is_as_it_was():
    table = result_table([[CLEAN]], QUICK)
    assert "notes" not in table.records()[0] and table.texts()[1][0][0] == "MaskCLIP"
    assert not any(sign in note for sign in SIGNS for note in table.notes)


def tables():
    """A table of each kind, with the texts in which CLIP† must stand."""
    return {
        "scores": result_table([[CLEAN], [LEAKY]], QUICK),
        "difference": difference_table([[LEAKY]], [CLEAN], QUICK),
        "difference to a marked baseline": difference_table([[CLEAN]], [LEAKY], QUICK),
        "classes": class_table([CLEAN, LEAKY], QUICK),
        "classes of one": class_table([LEAKY], QUICK),
        "differences by class": delta_table(LEAKY, CLEAN, QUICK),
    }


@pytest.mark.parametrize("kind", tables())
def test_every_table_in_every_format_shows_the_sign_and_the_sentence(kind):
    table = tables()[kind]
    label, signed = ("IoU", "IoU†") if kind == "classes of one" else ("CLIP", "CLIP†")
    assert table.notes[-1] == f"† CLIP: {LEAK}"
    headers, rows = table.texts()
    printed = [table.title, *headers, *(row[0] for row in rows)]
    assert sum(signed in text for text in printed) == 1 and not any(t.endswith(label) for t in printed if "†" in t)
    for width in (30, 200):
        assert fit(table, width).table.notes[: len(table.notes)] == table.notes, "a narrow terminal keeps it"
    markdown, latex = (render([table], form) for form in ("markdown", "latex"))
    assert signed in markdown and f"† CLIP: {LEAK}" in markdown
    assert signed.replace("†", r"\dag{}") in latex and rf"\dag{{}} CLIP: {LEAK}" in latex
    document = json.loads(render([table], "json"))["tables"][0]
    assert document["notes"][-1] == f"† CLIP: {LEAK}"
    for records in (document["rows"], list(csv.DictReader(io.StringIO(render([table], "csv"))))):
        noted = [row["notes"] for row in records]
        assert any(LEAK in (text or "") for text in noted)
        assert kind == "scores" or all(LEAK in text for text in noted)


def test_csv_and_json_keep_bare_names_beside_the_note():
    clean, leaky = tables()["scores"].records()
    assert (clean["method"], clean["notes"]) == ("MaskCLIP", None)
    assert (leaky["method"], leaky["notes"]) == ("CLIP", LEAK)


@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=6))
def test_rows_have_the_same_sign_exactly_where_they_share_a_note(rows):
    results = [random_result(0, notes=tuple(f"Note {i}." for i in sorted(own))) for own in rows]
    remarks = Remarks.of([f"row {i}" for i in range(len(rows))], [[r] for r in results])
    assert len(remarks.notes) == len(set().union(*rows))
    assert len({note.split(" ")[0] for note in remarks.notes}) == len(remarks.notes), "each note has its own sign"
    sign = {note.rpartition(": ")[2]: note.split(" ")[0] for note in remarks.notes}
    for found, own in zip(remarks.signs, rows, strict=True):
        assert found == "".join(sign[f"Note {i}."] for i in sorted(own))
