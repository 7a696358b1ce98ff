import json

import numpy as np
import pytest

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.bootstrap import intervals
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.class_tables import class_table, delta_table
from ovseg_cli.core.report.compare import difference_table
from ovseg_cli.core.report.formats import document, render
from ovseg_cli.core.report.grouping import group_seeds, method_title, row_labels
from ovseg_cli.core.report.tables import View, result_table
from tests.core.report.results import random_result, result

QUICK = View(resamples=0)
# cat 8 of 10 right, 2 taken for dog; dog all 6 right; sky (unseen) 1 of 4 right, 3 taken for cat
MATRIX = [[8, 2, 0], [0, 6, 0], [3, 0, 1]]
# IoU: cat 8 / 13, dog 6 / 8, sky 1 / 4
CAT, DOG, SKY = 800 / 13, 75.0, 25.0


def headers(table: Table) -> list[str]:
    return table.texts()[0]


def only(table: Table) -> dict:
    assert len(table.rows) == 1
    return table.records()[0]


def test_scores_of_a_hand_made_result():
    row = only(result_table([[result(MATRIX)]], QUICK))
    seen = (CAT + DOG) / 2
    assert row["method"] == "MaskCLIP" and row["data"] == "toy:combo"
    assert row["mIoU"] == pytest.approx((CAT + DOG + SKY) / 3)
    assert row["sIoU"] == pytest.approx(seen) and row["uIoU"] == pytest.approx(SKY)
    assert row["hIoU"] == pytest.approx(2 * seen * SKY / (seen + SKY))
    assert row["pAcc"] == pytest.approx(75.0) and row["mAcc"] == pytest.approx(100 * (0.8 + 1 + 0.25) / 3)
    assert row["classes"] == 3 and row["images"] == 1 and row["rule"] == "union"


def test_shown_columns_follow_the_data():
    full = ["method", "mIoU", "sIoU", "uIoU", "hIoU", "pAcc", "mAcc", "fwIoU"]
    assert headers(result_table([[result(MATRIX)]], QUICK)) == full
    closed = result(MATRIX, unseen=(False,) * 3)
    assert headers(result_table([[closed]], QUICK)) == [h for h in full if h not in ("sIoU", "uIoU", "hIoU")]
    things = result(MATRIX, is_thing=(True, True, False))
    assert "uIoU stuff" in headers(result_table([[things]], QUICK))
    assert "uIoU things" not in headers(result_table([[things]], QUICK))  # no unseen thing
    assert headers(result_table([[things], [result(MATRIX, data="camvid")]], QUICK))[:2] == ["method", "data"]
    absent = result([[8, 0, 0], [0, 0, 0], [0, 0, 4]])
    assert headers(result_table([[absent], [result(MATRIX)]], QUICK))[-1] == "classes"
    assert "2 classes averaged" in result_table([[absent]], QUICK).notes[0]
    narrow = result(MATRIX, protocol={"candidates": "unseen"})
    assert "candidates" in headers(result_table([[narrow], [result(MATRIX)]], QUICK))


@pytest.mark.parametrize("split, value, header", [("seen", (CAT + DOG) / 2, "sIoU"), ("unseen", SKY, "uIoU")])
def test_split_chooses_the_classes_that_are_reported(split, value, header):
    view = View(split=split, resamples=0)
    table = result_table([[result(MATRIX)]], view)
    assert only(table)["mIoU"] == pytest.approx(value) and header in headers(table) and "mIoU" not in headers(table)
    assert any(f"Only {split} classes" in note for note in table.notes)
    names = [row["class"] for row in class_table([result(MATRIX)], view).records()]
    assert names == (["cat", "dog"] if split == "seen" else ["sky"])


def test_rule_decides_about_classes_that_are_absent():
    # dog never occurs, yet two pixels are taken for it
    absent = result([[8, 2, 0], [0, 0, 0], [0, 0, 4]])
    union, present = (only(result_table([[absent]], View(rule=rule, resamples=0))) for rule in ("union", "present"))
    assert union["mIoU"] == pytest.approx((80 + 0 + 100) / 3) and union["classes"] == 3
    assert present["mIoU"] == pytest.approx(90) and present["classes"] == 2
    assert union["mIoU_present"] == present["mIoU"] and union["classes_present"] == 2
    rows = [class_table([absent], View(rule=rule)).records()[1]["IoU"] for rule in ("union", "present")]
    assert rows == [0.0, None]


def test_rule_is_named_below_the_table():
    for rule in ("union", "present"):
        assert any(f"Rule {rule}:" in note for note in result_table([[result(MATRIX)]], View(rule, resamples=0)).notes)


def test_single_results_have_the_interval_of_the_bootstrap():
    one = random_result(0)
    row, expected = only(result_table([[one]], View(resamples=200))), intervals(one, resamples=200)
    for name in ("mIoU", "uIoU", "pAcc"):
        assert row[f"{name}_low"] == 100 * expected[name].low and row[f"{name}_high"] == 100 * expected[name].high
    assert any("95 % intervals from 200 resamples" in note for note in result_table([[one]], View(resamples=200)).notes)
    assert "mIoU_low" not in only(result_table([[one]], QUICK))


def test_seeds_are_mean_and_sample_deviation():
    seeds = [random_result(i, seed=i, fingerprints={"data": "d", "weights": f"w{i}"}) for i in range(3)]
    other = random_result(9, method="clip", fingerprints={"data": "d", "weights": "w"})
    groups = group_seeds([seeds[2], other, seeds[0], seeds[1], seeds[0]])
    assert [[r.seed for r in group] for group in groups] == [[0, 1, 2], [0]]
    table = result_table(groups, View(resamples=50))
    values = [100 * seed.metrics()["hIoU"] for seed in seeds]
    row = table.records()[0]
    assert row["hIoU"] == pytest.approx(np.mean(values)) and row["hIoU_n"] == 3 and row["seeds"] == "0 1 2"
    assert row["hIoU_spread"] == pytest.approx(np.std(values, ddof=1)) and "hIoU_low" not in row
    assert any("3 seeds" in note for note in table.notes)


def test_a_run_scored_again_is_no_second_seed():
    old, new = random_result(0, created="2026-01-01"), random_result(1, created="2026-01-02")
    assert group_seeds([new, old]) == [[new]]
    assert len(group_seeds([old, random_result(0, protocol={"candidates": "seen"})])) == 2


def test_rows_of_one_method_are_told_apart():
    def labels(*results):
        return row_labels([[one] for one in results])

    plain = result(MATRIX)
    assert labels(plain, result(MATRIX, method="clip")) == ["MaskCLIP", "CLIP"]
    assert labels(plain, result(MATRIX, data="camvid")) == ["MaskCLIP", "MaskCLIP"]
    sides = [result(MATRIX, protocol={"input": {"side": side}, "same": 1}) for side in (96, 128)]
    assert labels(*sides) == ["MaskCLIP (side 96)", "MaskCLIP (side 128)"]
    runs = [result(MATRIX, run=f"runs/a-{i}") for i in range(2)]
    assert labels(*runs) == ["MaskCLIP (a-0)", "MaskCLIP (a-1)"]
    assert labels(plain, plain)[0].startswith("MaskCLIP (run 1") and method_title("mine") == "mine"


def test_every_setting_that_a_row_does_not_share_with_most_is_named():
    plain = {"method": {"side": 96, "variant": "a", "window": 0, "antialias": True}, "seen_penalty": 0.0, "limit": None}
    other = {"method": {"side": 64, "variant": "b", "window": 8, "antialias": False}, "seen_penalty": 0.1, "limit": 9}
    six = [plain, plain | {"seen_penalty": 0.1}, plain | {"limit": 9}, other, plain | {"templates": "x"}, plain]
    results = [result(MATRIX, protocol=one, run=f"runs/r{i}") for i, one in enumerate(six)]
    assert row_labels([[one] for one in results]) == [
        "MaskCLIP (r0)",
        "MaskCLIP (seen_penalty 0.1)",
        "MaskCLIP (limit 9)",
        "MaskCLIP (limit 9, antialias False, side 64, variant b, window 8, seen_penalty 0.1)",
        "MaskCLIP (templates x)",
        "MaskCLIP (r5)",
    ]
    assert row_labels([[one] for one in results[:2]]) == ["MaskCLIP (seen_penalty 0.0)", "MaskCLIP (seen_penalty 0.1)"]


def test_a_setting_with_a_column_of_its_own_is_not_in_the_label():
    three = [result(MATRIX, protocol={"candidates": names}) for names in ("all", "seen", "unseen")]
    table = result_table([[one] for one in three], QUICK)
    assert [(row["method"], row["candidates"]) for row in table.records()] == [
        ("MaskCLIP", "all"), ("MaskCLIP", "seen"), ("MaskCLIP", "unseen"),
    ]  # fmt: skip
    same_name = [result(MATRIX, protocol={"scale": i, "method": {"scale": -i}}) for i in (1, 2)]
    assert row_labels([[one] for one in same_name])[0] == "MaskCLIP (method.scale -1, scale 1)"


@pytest.mark.parametrize("competed, lost", [("unseen", "seen"), ("seen", "unseen")])
def test_names_that_did_not_compete_are_noted(competed: str, lost: str):
    table = result_table([[result(MATRIX, protocol={"candidates": competed})]], QUICK)
    assert f"Only {competed} names competed, so {lost} classes cannot be predicted." in table.notes
    assert not any("competed" in note for note in result_table([[result(MATRIX)]], QUICK).notes)


def test_thresholds_of_the_background_are_noted():
    rows = [[result(MATRIX, protocol={"background_threshold": value})] for value in (None, 0.5, 0.1, 0.0)]
    (note,) = [note for note in result_table(rows, QUICK).notes if "ackground" in note]
    assert "below 0.1 or 0.5 (--background-threshold)" in note
    assert not any("ackground" in note for note in result_table([rows[0], rows[3]], QUICK).notes)


def test_notes_are_sentences():
    protocol = {"candidates": "unseen", "background_threshold": 0.2}
    many = [random_result(i, protocol=protocol) for i in range(2)]
    tables = [
        result_table([[one] for one in many], View(resamples=10)),
        difference_table([[many[0]]], [many[1]], View(resamples=10)),
        class_table(many),
        delta_table(*many, View(resamples=10)),
    ]
    for note in (note for table in tables for note in table.notes):
        assert note.endswith(".") and not note[0].islower(), note


def test_class_table_of_one_result_and_of_several():
    one = class_table([result(MATRIX, is_thing=(True, True, False))])
    assert headers(one) == ["class", "set", "kind", "IoU", "Acc", "precision", "pixels", "% of pixels"]
    assert one.records()[2] == {
        "id": 2, "class": "sky", "set": "unseen", "kind": "stuff", "IoU": 25.0, "Acc": 25.0, "precision": 100.0,
        "pixels": 4, "share": 20.0,
    }  # fmt: skip
    several = class_table([result(MATRIX), result(MATRIX, method="clip")])
    assert headers(several)[2:4] == ["IoU MaskCLIP", "IoU CLIP"] and several.records()[0]["IoU_2"] == pytest.approx(CAT)


def test_differences_by_class_are_sorted_by_size():
    better = result([[10, 0, 0], [0, 6, 0], [4, 0, 0]], method="clip")  # cat 10 / 14, dog 1, sky 0
    table = delta_table(better, result(MATRIX), QUICK)
    rows = [(row["class"], row["delta"]) for row in table.records()]
    assert rows[0] == ("dog", 25.0) and rows[1] == ("sky", -25.0) and rows[2][0] == "cat"
    assert rows[2][1] == pytest.approx(1000 / 14 - CAT)


def test_a_difference_that_is_real_is_marked():
    good, bad = [[90, 10, 0], [5, 95, 0], [0, 10, 90]], [[60, 40, 0], [5, 95, 0], [0, 70, 30]]
    table = delta_table(result(*[good] * 6), result(*[bad] * 6, method="clip"), View(resamples=100))
    marks = {row["class"]: row["delta_marked"] for row in table.records()}
    assert marks == {"sky": True, "cat": True, "dog": True}
    alike = delta_table(random_result(0), random_result(0), View(resamples=100))
    assert not any(row["delta_marked"] for row in alike.records())


def test_difference_to_a_baseline_is_paired():
    good, base = random_result(0), random_result(1, method="clip")
    shuffled = base.in_order(sorted(base.images, reverse=True))
    rows = [only(difference_table([[good], [b]], [b], View(resamples=100))) for b in (base, shuffled)]
    expected = 100 * (good.metrics()["hIoU"] - base.metrics()["hIoU"])
    assert rows[0]["delta_hIoU"] == pytest.approx(expected)
    assert rows[0]["delta_hIoU_low"] < expected < rows[0]["delta_hIoU_high"]
    assert rows[0] == rows[1]
    table = difference_table([[good]], [base], QUICK)
    assert "delta_hIoU_low" not in only(table) and "Δ hIoU" in headers(table)


def test_difference_of_seeds_is_taken_seed_by_seed():
    def seeds(offset, **options):
        return [random_result(offset + i, seed=i, **options) for i in range(3)]

    mine, base = seeds(0), seeds(10, method="clip")
    row = only(difference_table([mine], base, QUICK))
    pairs = [100 * (a.metrics()["mIoU"] - b.metrics()["mIoU"]) for a, b in zip(mine, base, strict=True)]
    assert row["delta_mIoU"] == pytest.approx(np.mean(pairs)) and row["delta_mIoU_n"] == 3
    assert row["delta_mIoU_spread"] == pytest.approx(np.std(pairs, ddof=1))
    uneven = only(difference_table([mine], base[:2], QUICK))
    assert "delta_mIoU_n" not in uneven
    assert uneven["delta_mIoU"] == pytest.approx(
        100 * (np.mean([a.metrics()["mIoU"] for a in mine]) - np.mean([b.metrics()["mIoU"] for b in base[:2]]))
    )


def test_every_table_becomes_every_format_with_the_same_numbers():
    tables = [
        result_table([[random_result(0)]], View(resamples=20)),
        class_table([random_result(0)]),
        delta_table(random_result(0), random_result(1), View(resamples=20)),
    ]
    for form in ("markdown", "latex", "csv", "json"):
        assert render(tables, form).endswith("\n")
    assert json.loads(render(tables, "json")) == json.loads(json.dumps(document(tables)))


def test_what_cannot_be_compared_is_refused():
    one = random_result(0)
    with pytest.raises(UsageError, match="no result"):
        result_table([])
    with pytest.raises(UsageError, match="no result"):
        class_table([])
    with pytest.raises(UsageError, match="cannot share a table"):
        class_table([one, random_result(0, data="camvid")])
    with pytest.raises(UsageError, match="nothing to compare"):
        difference_table([[one]], [one])
    with pytest.raises(UsageError, match="picture by picture"):
        difference_table([[one]], [random_result(0, data="camvid")])
    with pytest.raises(UsageError, match="picture by picture"):
        delta_table(one, random_result(0, pictures=3))
    with pytest.raises(UsageError, match="has no class split"):
        class_table([random_result(0, unseen=(False,) * 3)], View(split="unseen"))
    with pytest.raises(UsageError, match="has no class split"):
        result_table([[random_result(0, unseen=(False,) * 3)]], View(split="seen", resamples=0))
