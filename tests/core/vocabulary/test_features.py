"""Which names are near each other for a model? Hand-made features with known twins and hubs."""

import numpy as np
import pytest

from ovseg_cli.core.vocabulary.features import (
    FEWEST,
    alike,
    astray,
    hub_size,
    hubs,
    nearest,
    runner_ups,
    wrong_answers,
    yardstick,
)


def unit(*rows):
    array = np.array(rows, dtype=float)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


AXES = np.eye(6)


def test_yardstick_is_the_median_of_names_and_their_plurals():
    # five names along the axes; plurals at cosines 0.6, 0.8, 0.96, 0.28 and 1
    sines = {0.6: 0.8, 0.8: 0.6, 0.96: 0.28, 0.28: 0.96, 1.0: 0.0}
    plurals = np.stack([c * AXES[i] + s * AXES[5] for i, (c, s) in enumerate(sines.items())])
    stick = yardstick(AXES, plurals, range(5))
    assert stick.cosine == pytest.approx(0.8) and "5 names" in stick.meaning


def test_yardstick_without_plurals_is_the_upper_fence_of_the_list():
    angles = np.deg2rad([0, 40, 80, 120, 160, 165])  # to the nearest 40° four times, then 5° twice
    rows = np.stack([np.cos(angles), np.sin(angles)], 1)
    stick = yardstick(rows, rows[:0], [])
    near = np.sort(np.cos(np.deg2rad([40, 40, 40, 40, 5, 5])))
    low, high = np.quantile(near, [0.25, 0.75])
    assert stick.cosine == pytest.approx(high + 1.5 * (high - low))
    assert yardstick(rows[: FEWEST - 1], rows[:0], []) is None


def test_alike_are_nearest_pairs_above_the_threshold():
    rows = unit([1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 0, 1])
    ((i, j, cosine),) = alike(rows, 0.9)
    assert (i, j) == (0, 1) and cosine == pytest.approx(1 / np.sqrt(1.01))
    assert alike(rows, 0.999) == [] and alike(rows[:1], 0) == []


def test_of_three_that_are_alike_each_pair_holds_a_nearest():
    rows = unit([1, 0], [1, 0.1], [1, 0.3])  # the first and the last are not nearest to each other
    assert [(i, j) for i, j, _ in alike(rows, 0.5)] == [(0, 1), (1, 2)]


def test_nearest_of_another_list():
    assert nearest(AXES[:2], unit([1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]), 0.7) == [
        (0, 1, 1.0),
        (1, 0, pytest.approx(np.sqrt(0.5))),
    ]
    assert nearest(AXES, AXES[:0], 0) == []


def test_hub_is_found_where_one_name_lies_amid_all():
    rows = unit(*np.eye(9)[:8] + 0, np.ones(9))  # eight names along axes, and one between them all
    second = runner_ups(rows)
    assert second[:8].tolist() == [8] * 8
    assert hubs(second) == [(8, list(range(8)))]
    assert hubs(np.array([1, 0, 3, 2])) == []


def test_hub_size_is_what_chance_does_not_reach():
    """By Poisson's sums: P(X >= n) for a mean of 1 is 0.0190 (4), 0.00366 (5), 0.000594 (6), 0.0000832 (7)."""
    assert hub_size(4) == 5 and hub_size(13) == 5 and hub_size(14) == 6 and hub_size(171) == 7 and hub_size(847) == 8


def test_wrong_answers_of_a_confusion_matrix():
    matrix = np.array([[5, 1, 3], [0, 7, 0], [2, 2, 9]])
    assert wrong_answers(matrix).tolist() == [2, -1, 0]
    assert matrix[0, 0] == 5, "the counts stay as they are"


def test_synonym_that_is_nearer_to_another_class():
    rows = np.stack([AXES[0], AXES[0], AXES[1], AXES[1], AXES[2]])  # the second text of class 0 ... of class 2
    assert astray(rows, [0, 0, 1, 1, 2]) == []
    # class 0 says x and y, class 1 y: the y of class 0 is astray; x is as far from both
    found = astray(np.stack([AXES[0], AXES[1], AXES[1]]), [0, 0, 1])
    assert [(row, other) for row, other, *_ in found] == [(1, 1)]
    assert astray(AXES[:0], []) == []


def test_stray_synonyms_are_those_of_plain_loops():
    draws = np.random.default_rng(4)
    owners = draws.integers(0, 6, 24)
    rows = unit(*draws.normal(size=(24, 5)))
    expected = []
    for i, own in enumerate(owners):
        if (owners == own).sum() < 2:
            continue
        means = {int(k): rows[(owners == k) & (np.arange(24) != i)].mean(0) for k in np.unique(owners)}
        cosines = {k: mean @ rows[i] / np.linalg.norm(mean) for k, mean in means.items()}
        best = max(cosines, key=cosines.get)
        if best != own:
            expected.append((i, best, pytest.approx(cosines[best]), pytest.approx(cosines[int(own)])))
    assert astray(rows, owners) == expected and expected
