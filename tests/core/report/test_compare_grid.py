"""Scores and table of the comparison grid, from confusions made by hand; notes below panels and parts of a legend."""

import math

import numpy as np
import pytest
import torch

from ovseg_cli.core.data.palette import colors
from ovseg_cli.core.evaluation.confusion import count
from ovseg_cli.core.report.compare_grid import Found, comparison_table, score, score_text
from ovseg_cli.core.report.figures import PanelRow, side_by_side

LABEL = torch.tensor([[0, 0, 1, 255]])


def found(*predictions, caption="m", label=LABEL, **more):
    counts = tuple(count(torch.tensor([p]), label, 3, 255) for p in predictions)
    return Found(caption, tuple(np.array([p]) for p in predictions), counts, **more)


def test_score_of_a_hand_made_picture():
    # class 0: 1 of 2 right, nothing else called 0: 1/2; class 1: 1 right of 2 called 1: 1/2; class 2 is not there
    assert found([0, 1, 1, 0]).scores == [pytest.approx(50)]
    # a class that the ground truth lacks takes pixels away, and is no class of the mean: (1/2 + 1) / 2
    assert found([0, 2, 1, 2]).scores == [pytest.approx(75)]
    assert found([0, 0, 1, 2]).scores == [pytest.approx(100)], "pixels without a class count nowhere"


def test_pictures_together_are_counted_by_pixels_not_averaged():
    two = found([0, 0, 1, 0], [0, 1, 1, 0])
    assert two.scores == [pytest.approx(100), pytest.approx(50)]
    assert score(two.counts) == pytest.approx(100 * (3 / 4 + 2 / 3) / 2)


def test_picture_without_a_class_has_no_score():
    empty = found([0, 0, 0, 0], label=torch.full((1, 4), 255))
    assert math.isnan(empty.scores[0]) and score_text(empty.scores[0]) == "no pixel with a class"
    assert comparison_table([empty], ["p"], "x").records()[0]["mIoU"] is None


def test_table_has_a_row_a_picture_and_a_column_a_model():
    models = [found([0, 0, 1, 0], caption="one"), found([0, 1, 1, 0], caption="two", notes=("read labels.",))]
    table = comparison_table(models, ["p"], "toy val, 1 picture")
    assert [column.header for column in table.columns] == ["picture", "one", "two"]
    assert [[row["picture"], row["mIoU"], row["mIoU_1"]] for row in table.records()] == [
        ["p", 100.0, 50.0], ["all of these", 100.0, 50.0],
    ]  # fmt: skip
    assert table.notes[-1] == "two: read labels."


def test_notes_stand_below_their_panels():
    image, label = np.full((96, 96, 3), 100, np.uint8), np.zeros((96, 96), np.int64)
    arguments = (["picture", "truth"], ("a",), colors(1))
    plain = side_by_side([PanelRow(image, [label])], *arguments, panel=96)
    noted = side_by_side([PanelRow(image, [label], notes=["mIoU 41.2"])], *arguments, panel=96)
    assert 0 < noted.height - plain.height < 30
    bottom = noted.height - plain.height
    caption = plain.height - side_by_side([PanelRow(image, [label])], *arguments, panel=96).height
    ink = (np.asarray(noted.convert("L")) < 128).nonzero()
    rows = ink[0][ink[1] > 110]
    assert caption == 0 and ((rows > 96 + bottom) & (rows < 96 + 70)).any()


def test_parts_of_a_legend_may_hold_the_same_name_twice():
    image, label = np.full((96, 96, 3), 100, np.uint8), np.zeros((96, 96), np.int64)
    label[:, 48:] = 2
    table = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
    rows, groups = [PanelRow(image, [label])], [("one", [0, 1]), ("two", [2])]
    drawn = side_by_side(rows, ["a", "b"], ("sky", "sea", "sky"), table, panel=96, groups=groups)
    there = {color for _, color in drawn.getcolors(1 << 20)}
    assert {(250, 0, 0), (0, 0, 250)} <= there and (0, 250, 0) not in there
