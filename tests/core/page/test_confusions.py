"""Which classes stand in a confusion matrix that is small enough to read, and what stands in it."""

import numpy as np

from ovseg_cli.core.page.confusions import confusion_of, most_confused
from ovseg_cli.core.page.rows import Member, Row
from tests.core.report.results import result

# ground truth (rows) as prediction (columns): a loses 7 to c, c 2 to a; d loses 5 to b; b 4 to a; c 1 to d
LOST = [
    [90, 0, 7, 0],
    [4, 50, 0, 0],
    [2, 0, 30, 1],
    [0, 5, 0, 20],
]
FOUR = {"class_names": ("a", "b", "c", "d"), "unseen": (False,) * 4}


def row_of(*matrices, **options):
    one = result(*matrices, **options)
    return Row("Model", (Member("Model", one, None),))


def test_pairs_come_in_by_what_they_lose_to_each_other():
    # a and c: 7 + 2 = 9; b and d: 5; a and b: 4; c and d: 1
    assert most_confused(result(LOST, **FOUR)) == [0, 2, 1, 3]
    assert most_confused(result(LOST, **FOUR), most=2) == [0, 2]


def test_a_pair_without_room_leaves_it_to_one_that_needs_less():
    # with room for three: a and c, then b and d would make four, then a and b make three
    assert most_confused(result(LOST, **FOUR), most=3) == [0, 2, 1]


def test_counts_are_those_of_the_result_and_totals_those_of_all_predictions():
    found = confusion_of(row_of(LOST, LOST, **FOUR))
    assert found is not None
    assert (found.model, found.title, found.names) == ("Model", "toy:combo, val", ("a", "c", "b", "d"))
    assert found.pixels == ((180, 14, 0, 0), (4, 60, 0, 2), (8, 0, 100, 0), (0, 0, 10, 40))
    assert found.totals == (194, 66, 108, 50)


def test_nobody_is_confused_where_all_is_right():
    assert confusion_of(row_of(np.diag([3, 4, 5]).tolist())) is None


def test_no_more_than_twelve_of_many_classes():
    many = 40
    draws = np.random.default_rng(1).integers(0, 100, (many, many))
    one = result(draws.tolist(), class_names=tuple(map(str, range(many))), unseen=(False,) * many)
    chosen = most_confused(one)
    assert len(chosen) == len(set(chosen)) == 12
    lost = np.triu(draws + draws.T, 1)
    assert {*np.unravel_index(int(lost.argmax()), lost.shape)} == {*chosen[:2]}
