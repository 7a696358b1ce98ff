"""mIoU over truly novel classes, by hand; and names that took pixels of many classes."""

import numpy as np
import pytest

from ovseg_cli.core.report.tables import View
from ovseg_cli.core.vocabulary.class_list import ClassList
from ovseg_cli.core.vocabulary.novelty import novelty_of, novelty_table
from ovseg_cli.core.vocabulary.run_results import takers
from ovseg_cli.core.vocabulary.training import Overlap, Training
from tests.core.report.results import random_result, result

NAMES = ("cat", "sofa", "couch", "lava")
UNSEEN = (False, False, True, True)
MATRIX = [[8, 0, 2, 0], [0, 6, 4, 0], [0, 5, 5, 0], [0, 0, 0, 4]]  # rows ground truth
# IoU: cat 8/10, sofa 6/15, couch 5/16, lava 4/4


def scored(**options):
    return result(MATRIX, **{"class_names": NAMES, "unseen": UNSEEN, **options})


def test_an_unseen_class_with_a_training_synonym_is_not_novel():
    part = novelty_of(scored())
    assert part.novel == (3,) and part.known == (0, 1, 2)
    assert {i: (o.name, o.how) for i, o in part.twins.items()} == {2: ("sofa", "synonym")}


def test_scores_by_hand():
    table = novelty_table([[scored()]], View(resamples=10))
    (row,) = table.records()
    assert row["mIoU"] == pytest.approx(100 * (0.8 + 6 / 15 + 5 / 16 + 1) / 4)
    assert row["mIoU_novel"] == pytest.approx(100)
    assert row["mIoU_known"] == pytest.approx(100 * (0.8 + 6 / 15 + 5 / 16) / 3)
    assert row["uIoU"] == pytest.approx(100 * (5 / 16 + 1) / 2)
    assert (row["novel"], row["known"], row["twins"]) == (1, 3, "couch: sofa")
    assert row["mIoU_novel_low"] == row["mIoU_novel_high"] == pytest.approx(100)  # one picture: no spread
    assert any("couch (sofa, synonym)" in note for note in table.notes)


def test_training_on_other_data_and_further_overlaps():
    training = Training((("cats",), ("felt",)), "elsewhere")
    other = scored(unseen=(False,) * 4)
    part = novelty_of(other, training, {3: Overlap("felt", "alike", "cosine 0.970", 0.97)})
    assert part.known == (0, 3) and part.novel == (1, 2)
    assert {i: o.how for i, o in part.twins.items()} == {0: "plural", 3: "alike"}
    (row,) = novelty_table([[other]], View(resamples=0), [part]).records()
    assert row["mIoU_novel"] == pytest.approx(100 * (6 / 15 + 5 / 16) / 2) and "uIoU" not in row


def test_background_is_in_neither_part():
    part = novelty_of(scored(background=0))
    assert part.known == (1, 2) and part.novel == (3,)


def test_without_training_names_every_class_is_novel():
    free = scored(unseen=(False,) * 4)
    table = novelty_table([[free]], View(resamples=0))
    (row,) = table.records()
    assert row["novel"] == 4 and row["mIoU_novel"] == row["mIoU"] and row["mIoU_known"] is None
    assert any("every class counts as novel" in note for note in table.notes)


def test_seeds_give_mean_and_spread():
    seeds = [random_result(draw, class_names=("cat", "sofa", "couch"), seed=draw) for draw in (0, 1)]
    (row,) = novelty_table([seeds]).records()
    assert row["mIoU_known_n"] == 2 and row["mIoU_known_spread"] > 0


def test_a_result_outlives_its_run(tmp_path):
    assert novelty_of(scored(run=str(tmp_path / "gone"))).training == "the seen classes of toy:combo"


def test_names_that_took_pixels():
    matrix = 10 * np.eye(8, dtype=int)
    matrix[:7, 7] = 3  # the last name is everybody's wrong answer
    names = tuple("abcdefgh")
    mine = ClassList("run", names, tuple((name,) for name in names))
    scores = result(matrix.tolist(), class_names=names, unseen=(False,) * 8)
    (found,) = takers(mine, [scores])
    assert found.name == "h" and found.number == 7 and "100 % of all wrong pixels" in found.evidence
    assert takers(mine, []) == [] and takers(ClassList("x", ("a",), (("a",),)), [scores]) == []
    only_unseen = result(matrix.tolist(), class_names=names, unseen=(False,) * 8, protocol={"candidates": "unseen"})
    assert takers(mine, [only_unseen]) == [], "names that may not be given take nothing"
