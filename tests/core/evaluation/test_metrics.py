"""Scores of a matrix: worked by hand, against an independent reference, at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.evaluation import metrics as m

MATRIX = np.array([[6, 2, 0, 0], [1, 3, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
# class 0: TP 6, G 8, P 7, U 9; class 1: TP 3, G 5, P 5, U 7; class 2: nowhere; class 3: predicted once, never there


def test_hand_worked_matrix():
    areas = m.Areas.of(MATRIX)
    assert m.pixel_accuracy(areas) == pytest.approx(9 / 13)
    assert m.mean_accuracy(areas) == pytest.approx((6 / 8 + 3 / 5) / 2)
    assert m.frequency_weighted_iou(areas) == pytest.approx((8 * 6 / 9 + 5 * 3 / 7) / 13)
    assert m.mean_iou(areas, "present") == pytest.approx((6 / 9 + 3 / 7) / 2)
    assert m.mean_iou(areas, "union") == pytest.approx((6 / 9 + 3 / 7 + 0) / 3)
    assert m.averaged(areas, "present").sum() == 2 and m.averaged(areas, "union").sum() == 3
    assert m.pixel_accuracy(areas, [1]) == pytest.approx(3 / 5)


def test_class_scores_are_nan_where_nothing_is_divided():
    areas = m.Areas.of(MATRIX)
    np.testing.assert_allclose(m.class_iou(areas), [6 / 9, 3 / 7, np.nan, 0])
    np.testing.assert_allclose(m.class_accuracy(areas), [6 / 8, 3 / 5, np.nan, np.nan])
    np.testing.assert_allclose(m.class_precision(areas), [6 / 7, 3 / 5, np.nan, 0])
    np.testing.assert_allclose(m.class_dice(areas), [12 / 15, 6 / 10, np.nan, 0])


def test_hiou_is_of_the_set_means():
    areas = m.Areas.of(MATRIX)
    seen, unseen = 6 / 9, 3 / 7
    assert m.harmonic_iou(areas, [0], [1]) == pytest.approx(2 * seen * unseen / (seen + unseen))


def test_hiou_is_zero_when_unseen_is_zero():
    assert m.harmonic_mean(0.5, 0.0) == 0 and m.harmonic_mean(0.0, 0.0) == 0


def test_hiou_is_nan_without_unseen_classes():
    scores = m.scores_by_name(m.ClassSets((0, 1, 2, 3)), "union")
    values = {name: float(score(m.Areas.of(MATRIX))) for name, score in scores.items()}
    assert math.isnan(values["uIoU"]) and math.isnan(values["hIoU"]) and values["sIoU"] == values["mIoU"]


def test_split_chooses_the_classes_that_are_reported():
    sets = m.ClassSets.of_flags([False, True, False, False])
    areas = m.Areas.of(MATRIX)
    unseen = {name: float(score(areas)) for name, score in m.scores_by_name(sets, "union", "unseen").items()}
    everything = {name: float(score(areas)) for name, score in m.scores_by_name(sets, "union").items()}
    assert unseen["mIoU"] == everything["uIoU"] == pytest.approx(3 / 7)
    assert unseen["pAcc"] == everything["pAcc_unseen"] == pytest.approx(3 / 5)
    assert unseen["hIoU"] == everything["hIoU"]


def test_stuff_and_things_split_every_set():
    sets = m.ClassSets.of_flags([False, True, False, False], [True, True, False, False])
    assert sets.named()["unseen_things"] == (1,) and sets.named()["unseen_stuff"] == ()
    scores = m.scores_by_name(sets, "union")
    assert "mIoU_unseen_stuff" not in scores
    assert float(scores["mIoU_all_things"](m.Areas.of(MATRIX))) == pytest.approx((6 / 9 + 3 / 7) / 2)


def test_empty_matrix_has_no_score():
    areas = m.Areas.of(np.zeros((3, 3), dtype=np.int64))
    for score in m.scores_by_name(m.ClassSets((0, 1), (2,)), "union").values():
        assert math.isnan(float(score(areas)))


def test_matrix_must_be_square():
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        m.Areas.of(np.zeros((2, 3), dtype=np.int64))


matrices = st.integers(1, 6).flatmap(lambda k: arrays(np.int64, (k, k), elements=st.integers(0, 3)))


@settings(max_examples=150, deadline=None)
@given(matrices)
def test_scores_equal_plain_python(matrix):
    areas, ids = m.Areas.of(matrix), range(len(matrix))
    truth = [sum(int(x) for x in matrix[c]) for c in ids]
    union = [truth[c] + sum(int(matrix[g, c]) for g in ids) - int(matrix[c, c]) for c in ids]
    iou = {c: int(matrix[c, c]) / union[c] for c in ids if union[c]}

    def mean(values):
        values = list(values)
        return sum(values) / len(values) if values else math.nan

    def same(found, expected):
        return math.isnan(expected) and math.isnan(float(found)) or float(found) == pytest.approx(expected)

    assert same(m.mean_iou(areas, "union"), mean(iou.values()))
    assert same(m.mean_iou(areas, "present"), mean(iou[c] for c in ids if truth[c]))
    assert same(m.mean_accuracy(areas), mean(int(matrix[c, c]) / truth[c] for c in ids if truth[c]))
    total = sum(truth)
    assert same(m.pixel_accuracy(areas), int(np.trace(matrix)) / total if total else math.nan)
    weighted = sum(truth[c] * iou.get(c, 0) for c in ids) / total if total else math.nan
    assert same(m.frequency_weighted_iou(areas), weighted)


@settings(max_examples=60, deadline=None)
@given(matrices, st.randoms())
def test_scores_do_not_depend_on_the_order_of_classes(matrix, random):
    order = list(range(len(matrix)))
    random.shuffle(order)
    before, after = m.Areas.of(matrix), m.Areas.of(matrix[np.ix_(order, order)])
    for rule in ("union", "present"):
        np.testing.assert_allclose(m.mean_iou(before, rule), m.mean_iou(after, rule))


def test_leading_axes_are_kept():
    stack = [np.random.default_rng(seed).integers(0, 9, (4, 4)) for seed in range(3)]
    parts = [m.Areas.of(matrix) for matrix in stack]
    together = m.Areas(*(np.stack([getattr(p, f) for p in parts]) for f in ("hits", "truth", "predicted")))
    for score in m.scores_by_name(m.ClassSets((0, 1), (2, 3), (1, 2)), "present").values():
        np.testing.assert_allclose(score(together), [score(part) for part in parts])
