"""Pictures are chosen from stored counts: those on which models must differ, then a spread over the scores."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.confusion import Counts, count
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.page.choosing import choose, least_disagreement


def counts(*rows):
    return Counts.of_matrix(np.array(rows, dtype=np.int64))


def right(share, pixels=10):
    """A picture of one class of which this many pixels are right."""
    return counts([share, pixels - share], [0, 0])


def table(*parts, names=None):
    return CountTable.of(names or [f"p{i}" for i in range(len(parts))], parts, parts[0].num_classes)


def test_two_models_differ_at_least_where_their_counts_do():
    # of 10 pixels of class 0 one model calls 8 right, the other 3: at most 3 + 2 = 5 can be called the same
    assert least_disagreement([right(8), right(3)]) == pytest.approx(0.5)
    # both are wrong as often, and may be so on the same pixels
    assert least_disagreement([right(4), right(4)]) == 0
    # what is wrong for another class of ground truth is never the same pixel
    assert least_disagreement([counts([5, 5], [0, 10]), counts([10, 0], [5, 5])]) == pytest.approx(0.5)


def test_three_models_are_compared_pair_by_pair():
    # 10 and 0: 1; 10 and 5: 0.5; 0 and 5: 0.5
    assert least_disagreement([right(10), right(0), right(5)]) == pytest.approx(2 / 3)


def test_one_model_differs_from_the_ground_truth():
    assert least_disagreement([counts([6, 2], [1, 1])]) == pytest.approx(0.3)
    assert least_disagreement([counts([0, 0], [0, 0])]) == 0, "a picture without a labelled pixel"


@given(st.integers(0, 10**6), st.integers(2, 4))
def test_models_never_differ_less_than_their_counts_say(seed, models):
    generator = np.random.default_rng(seed)
    truth, *maps = generator.integers(0, 3, (models + 1, 6, 5))
    parts = [count(torch.from_numpy(one), torch.from_numpy(truth), 3, None) for one in maps]
    pairs = [(one != other).mean() for i, one in enumerate(maps) for other in maps[:i]]
    assert least_disagreement(parts) <= np.mean(pairs) + 1e-9


def test_half_tells_models_apart_and_half_is_spread_over_the_scores():
    # on p1 and p4 the models differ; the others go from bad (p5) to good (p0)
    first = table(*map(right, (10, 9, 7, 5, 1, 2)))
    other = table(*map(right, (10, 1, 7, 5, 9, 2)))
    chosen = choose([first, other], 4)
    assert chosen.names == ("p1", "p4", "p5", "p0")
    assert chosen.rule.startswith("4 of 6 pictures: 2 on which the models differ most") and "2 spread" in chosen.rule


def test_named_pictures_come_first_and_count():
    first = table(*map(right, (10, 9, 7, 5, 1, 2)))
    chosen = choose([first], 3, ["p3", "p0.png", "p3"])
    assert chosen.names[:2] == ("p3", "p0") and len(chosen.names) == 3
    assert choose([first], 1, ["p3", "p0"]).names == ("p3", "p0"), "named ones are never left out"
    with pytest.raises(UsageError, match="--picture p9: .* 6 pictures that were scored"):
        choose([first], 3, ["p9"])


def test_all_pictures_where_there_are_few():
    chosen = choose([table(right(1), right(2))], 24)
    assert set(chosen.names) == {"p0", "p1"} and chosen.rule == "All 2 pictures that were scored."


def test_only_pictures_that_all_models_have():
    chosen = choose([table(right(1), right(2), names=["a", "b"]), table(right(3), right(2), names=["b", "c"])], 24)
    assert chosen.names == ("b",)


def test_pictures_without_a_class_are_no_part_of_the_spread():
    nothing = counts([0, 0], [0, 0])
    chosen = choose([table(nothing, right(9), right(3), nothing, right(5))], 4)
    assert chosen.names == ("p2", "p4", "p1"), "half are the worst; of what is left one picture has a score"
