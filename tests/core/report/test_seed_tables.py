"""Mean, spread, best and worst of several seeds."""

import pytest

from ovseg_cli.core.report.seed_tables import figure_record, figure_table, numbers_of, seed_record, seed_table
from ovseg_cli.core.report.tables import View
from tests.core.report.results import result

QUICK = View(resamples=0)


def of_sky(right: int, unseen: tuple[bool, ...] = (False, False, True)):
    """Cat and dog all right; of sky's ten pixels so many, the others taken for cat: its IoU is right / 10."""
    return result([[10, 0, 0], [0, 10, 0], [10 - right, 0, right]], unseen=unseen)


def test_hand_worked_mean_spread_and_extremes() -> None:
    table = seed_table({0: of_sky(2), 1: of_sky(8), 2: of_sky(5)}, QUICK)
    rows = table.records()
    assert [row["method"] for row in rows] == ["mean of 3 seeds", "seed 0", "seed 1", "seed 2"]
    assert [row["uIoU"] for row in rows] == pytest.approx([50.0, 20.0, 80.0, 50.0])
    assert rows[0]["uIoU_spread"] == pytest.approx(30.0), "((30² + 30² + 0) / 2) ** .5"
    assert table.notes[0] == "Unseen classes, uIoU: best seed 1 (80.0), worst seed 0 (20.0)."


def test_record_has_both_rules_in_percent() -> None:
    record = seed_record({4: of_sky(2), 5: of_sky(8)})
    assert (record["compared_by"], record["best"], record["worst"]) == ("uIoU", 5, 4)
    assert record["percent"]["union"]["uIoU"] == {"mean": 50.0, "spread": pytest.approx(42.4264), "n": 2}
    assert record["percent"]["present"]["pAcc"]["mean"] == pytest.approx(100 * 25 / 30, abs=1e-3)


def test_one_seed_has_no_spread_and_equal_seeds_no_best() -> None:
    alone = seed_table({7: of_sky(3)}, QUICK)
    assert [row["method"] for row in alone.records()] == ["seed 7"] and "best" not in alone.notes[0]
    assert seed_record({7: of_sky(3)})["percent"]["union"]["uIoU"] == {"mean": 30.0, "spread": None, "n": 1}
    assert seed_table({0: of_sky(3), 1: of_sky(3)}, QUICK).notes[0] == "Unseen classes, uIoU: 30.0 for all seeds."


def test_without_unseen_classes_all_are_compared() -> None:
    closed = (False, False, False)
    table = seed_table({0: of_sky(9, closed), 1: of_sky(1, closed)}, QUICK)
    assert table.notes[0].startswith("All classes, mIoU: best seed 0")


def test_figures_of_a_training() -> None:
    figures = {
        seed: {"subset": "tune", "scenes": 3, "ok": True, "accuracy": {"all": value, "color": 1.0}, "retrieval": 0.5}
        for seed, value in ((0, 0.2), (1, 0.6))
    }
    assert numbers_of(figures[0]) == {"scenes": 3, "accuracy.all": 0.2, "accuracy.color": 1.0, "retrieval": 0.5}
    table = figure_table("toy-clip", figures)
    assert table.texts()[0] == ["seed", "accuracy", "retrieval"]
    assert table.texts()[1][0] == ["mean of 2 seeds", "0.400 ± 0.283", "0.500 ± 0.000"]
    assert figure_record(figures)["accuracy.all"] == {"mean": 0.4, "spread": 0.2828, "n": 2}
    assert len(figure_table("toy-clip", {0: figures[0]}).rows) == 1
