"""Intervals from stored counts, against a loop that adds up drawn pictures one by one."""

from functools import partial

import numpy as np
import pytest

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation import metrics
from ovseg_cli.core.evaluation.bootstrap import difference, intervals, resampled_areas
from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.results import Result
from tests.core.evaluation.drawn import PRINTS, draw_result


def test_resamples_equal_adding_drawn_pictures_one_by_one(result):
    draws = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), size=8)
    found = list(resampled_areas(result.counts, 8, seed=5))
    together = metrics.Areas(*(np.concatenate([getattr(a, f) for a in found]) for f in ("hits", "truth", "predicted")))
    for i, times in enumerate(draws):
        matrix = np.zeros((5, 5), dtype=np.int64)
        for picture, number in enumerate(times):
            for _ in range(number):
                matrix += result.counts[picture].matrix()
        expected = metrics.Areas.of(matrix)
        for name in ("hits", "truth", "predicted"):
            assert (getattr(together, name)[i] == getattr(expected, name)).all()


def test_intervals_equal_a_plain_loop(result):
    found = intervals(result, "present", resamples=200, seed=3)
    draws = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=200)
    matrices = np.stack([result.counts[i].matrix() for i in range(30)])
    values = [metrics.mean_iou(metrics.Areas.of(np.tensordot(d, matrices, 1)), "present", [3, 4]) for d in draws]
    low, high = np.quantile(values, [0.025, 0.975])
    assert (found["uIoU"].low, found["uIoU"].high) == pytest.approx((low, high))
    assert found["uIoU"].value == result.metrics("present")["uIoU"]
    assert set(found) == set(result.metrics())


def test_same_seed_same_interval_other_seed_another(result):
    assert intervals(result, resamples=50, seed=1) == intervals(result, resamples=50, seed=1)
    assert intervals(result, resamples=50, seed=1) != intervals(result, resamples=50, seed=2)


def test_chunks_change_nothing(result, monkeypatch):
    whole = intervals(result, resamples=64)
    monkeypatch.setattr("ovseg_cli.core.evaluation.bootstrap._CHUNK", 30 * 9)
    assert intervals(result, resamples=64) == whole


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # 200 data sets of 60 pictures, each drawn with 60 % right pixels: 95 % intervals should hold the true accuracy.
    score = {"pAcc": metrics.pixel_accuracy}
    expected = float(np.mean([draw_result(1000 + s, 60).metrics()["pAcc"] for s in range(200)]))
    inside = 0
    for seed in range(200):
        found = intervals(draw_result(seed, 60), resamples=200, scores=score)["pAcc"]
        inside += found.low <= expected <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_one_picture_gives_an_interval_without_width():
    found = intervals(draw_result(num_images=1), resamples=20)["pAcc"]
    assert found.low == pytest.approx(found.value) and found.high == pytest.approx(found.value)


def test_score_that_does_not_exist_has_no_interval():
    found = intervals(draw_result(unseen=(False,) * 5), resamples=20)["uIoU"]
    assert np.isnan([found.value, found.low, found.high]).all()


def test_class_of_a_single_picture_is_missing_from_some_resamples():
    rare = Counts.of_matrix(np.diag([0, 5]))
    common = Counts.of_matrix(np.array([[8, 1], [0, 0]]))
    table = CountTable.of([str(i) for i in range(9)], [rare, *[common] * 8], 2)
    fields = vars(draw_result(num_classes=2, num_images=0, unseen=(False, False)))
    result = Result(**{**fields, "counts": table})
    found = intervals(result, resamples=300, scores={"rare": partial(metrics.mean_accuracy, classes=[1])})
    assert found["rare"].low == found["rare"].high == 1


def test_paired_difference_is_narrower_than_the_two_intervals():
    better = draw_result(1, 40, quality=0.65)
    matrix = [better.counts[i].matrix() for i in range(40)]
    for m in matrix:  # the baseline errs on two more pixels in a hundred, on the same pictures
        moved = m[0, 0] // 50
        m[0, 0] -= moved
        m[0, 1] += moved
    table = CountTable.of(better.images, [Counts.of_matrix(m) for m in matrix], 5)
    baseline = Result(**{**vars(better), "counts": table, "method": "clip"})
    gap = difference(better, baseline, resamples=300)["mIoU"]
    alone = intervals(better, resamples=300)["mIoU"]
    assert gap.value == pytest.approx(better.metrics()["mIoU"] - baseline.metrics()["mIoU"])
    assert gap.high - gap.low < (alone.high - alone.low) / 3
    assert gap.excludes_zero and gap.low > 0


def test_order_of_pictures_does_not_matter_for_a_pair(result):
    other = draw_result(8, 30)
    shuffled = other.in_order(other.images[::-1])
    assert difference(result, shuffled, resamples=50) == difference(result, other, resamples=50)


def test_difference_to_itself_is_zero(result):
    gap = difference(result, result, resamples=50)["mIoU"]
    assert gap.value == gap.low == gap.high == 0 and not gap.excludes_zero


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_images": 29}, "1 pictures are in one result only"),
        ({"fingerprints": {**PRINTS, "data": "other"}}, "files have changed"),
        ({"data": "camvid"}, "scored on toy:combo, the other on camvid"),
        ({"unseen": (True,) * 5}, "unseen flags"),
    ],
)
def test_results_of_other_pictures_are_not_compared(result, changes, message):
    with pytest.raises(UsageError, match=message):
        difference(result, draw_result(**changes), resamples=10)
