"""Counts of one picture and of many, against a double loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.confusion import Counts, add, count


def test_hand_worked_picture_of_nine_pixels():
    label = torch.tensor([[0, 0, 1], [1, 1, 255], [2, 2, 255]])
    prediction = torch.tensor([[0, 1, 1], [1, 2, 0], [2, 2, 2]])
    # 0→0 once, 0→1 once; 1→1 twice, 1→2 once; 2→2 twice; the two ignored pixels nowhere, whatever was predicted there
    expected = [[1, 1, 0], [0, 2, 1], [0, 0, 2]]
    assert count(prediction, label, 3, 255).matrix().tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_counts_equal_a_double_loop(data):
    num_classes = data.draw(st.integers(1, 40))
    shape = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    ignore = data.draw(st.sampled_from([None, 255, 65535, -1]))
    label = generator.integers(0, num_classes, shape)
    if ignore is not None:
        label[generator.random(shape) < 0.3] = ignore
    prediction = generator.integers(0, num_classes, shape)
    expected = np.zeros((num_classes, num_classes), dtype=np.int64)
    for truth, guess in zip(label.ravel(), prediction.ravel(), strict=True):
        if truth != ignore:
            expected[truth, guess] += 1
    found = count(torch.from_numpy(prediction).to(torch.int32), torch.from_numpy(label), num_classes, ignore)
    assert (found.matrix() == expected).all()
    assert found.pixels.dtype == np.int64 and (found.pixels > 0).all() and (np.diff(found.cells) > 0).all()
    back = Counts.of_matrix(expected)
    assert (back.cells == found.cells).all() and (back.pixels == found.pixels).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_every_integer_type_gives_the_same_counts(dtype):
    label = torch.tensor([[0, 200, 7]]).to(torch.uint8)
    prediction = torch.tensor([[0, 100, 7]]).to(dtype)
    matrix = count(prediction, label, 201, 255).matrix()
    assert matrix.sum() == 3 and matrix[200, 100] == 1


def test_sum_of_pictures_is_the_count_of_all_pixels():
    generator = torch.Generator().manual_seed(3)
    maps = [torch.randint(0, 5, (2, 4, 6), generator=generator) for _ in range(4)]
    parts = [count(prediction, label, 5, None) for prediction, label in maps]
    together = torch.cat(maps, 1)
    assert (add(parts, 5) == count(together[0], together[1], 5, None).matrix()).all()


def test_counts_stay_exact_beyond_float32():
    part = Counts(np.array([0]), np.array([2**24 + 1]), 2)
    assert add([part] * 3, 2)[0, 0] == 3 * (2**24 + 1)


@pytest.mark.parametrize("value", [3, 254, -2])
def test_label_outside_the_classes_is_named(value):
    label = torch.tensor([[0, value]])
    with pytest.raises(
        DataError, match=rf"street/7: label value {value} is not the ignore label 255 and not one of the 3 classes"
    ):
        count(torch.zeros(1, 2, dtype=torch.int32), label, 3, 255, "street/7")


def test_ignore_value_is_an_error_where_nothing_is_ignored():
    with pytest.raises(DataError, match="label value 255"):
        count(torch.zeros(1, 1, dtype=torch.int32), torch.tensor([[255]]), 3, None)


def test_prediction_outside_the_classes_is_named():
    with pytest.raises(DataError, match="predicted id 3 is not one of the 3 classes"):
        count(torch.tensor([[3]]), torch.tensor([[0]]), 3, 255)


def test_other_size_is_named():
    with pytest.raises(DataError, match="a: prediction is 2 x 3, label is 3 x 2"):
        count(torch.zeros(2, 3, dtype=torch.int32), torch.zeros(3, 2), 3, 255, "a")
