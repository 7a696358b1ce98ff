"""A transposed convolution and the convolution after it as one: by hand, against both in turn, and at the border."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ovseg_cli.core.nn.upsampling_conv import (
    bias_map,
    fine_pixels,
    merged_first_kernel,
    merged_kernel,
    neighbourhoods,
)


def draw(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def test_pixels_of_windows_by_hand():
    # One coarse pixel has four windows around it; each has one fine pixel of it: the inner one of its four.
    windows = torch.zeros(1, 4, 2, 2)
    windows[0, :, 0, 0] = torch.tensor([-1, -1, -1, 1])  # of the upper left window the lower right
    windows[0, :, 0, 1] = torch.tensor([-1, -1, 2, -1])
    windows[0, :, 1, 0] = torch.tensor([-1, 3, -1, -1])
    windows[0, :, 1, 1] = torch.tensor([4, -1, -1, -1])
    assert fine_pixels(windows).tolist() == [[[[1, 2], [3, 4]]]]


def test_one_coarse_pixel_by_hand():
    # It becomes 1 2 / 3 4; a convolution that takes the left neighbour moves them to the right, and 2 and 4 get lost.
    up, conv = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.zeros(1, 1, 3, 3)
    conv[0, 0, 1, 0] = 1
    fine = fine_pixels(F.conv2d(torch.ones(1, 1, 1, 1), merged_kernel(up, conv), padding=1))
    assert fine.tolist() == [[[[0, 1], [0, 3]]]]


def test_neighbourhood_by_hand():
    found = neighbourhoods(torch.tensor([[[[5.0, 6.0]]]]))
    assert found[0, :, 0, 0].tolist() == [0, 0, 0, 0, 5, 6, 0, 0, 0, 1]
    assert found[0, :, 0, 1].tolist() == [0, 0, 0, 5, 6, 0, 0, 0, 0, 1]


@settings(max_examples=25, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 10_000),
)
def test_both_layers_in_turn_give_the_same(channels, size, seed):
    inner, middle, outer = channels
    shapes = (2, inner, *size), (inner, middle, 2, 2), (middle,), (outer, middle, 3, 3)
    maps, up, bias, conv = draw(seed, *shapes)
    expected = F.conv2d(F.conv_transpose2d(maps, up, bias, stride=2), conv, padding=1)
    found = fine_pixels(F.conv2d(maps, merged_kernel(up, conv), padding=1))
    torch.testing.assert_close(found + bias_map(bias, conv, (2 * size[0], 2 * size[1])), expected)


@settings(max_examples=25, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 10_000),
)
def test_all_three_layers_in_turn_give_the_same(channels, size, seed):
    inner, middle, outer = channels
    shapes = (2, 1, *size), (inner, 1, 3, 3), (inner,), (inner, middle, 2, 2), (middle,), (outer, middle, 3, 3)
    maps, first, first_bias, up, up_bias, conv = draw(seed, *shapes)
    coarse = F.conv2d(maps, first, first_bias, padding=1)
    expected = F.conv2d(F.conv_transpose2d(coarse, up, up_bias, stride=2), conv, padding=1)
    kernel = merged_first_kernel((first, first_bias), (up, up_bias), conv)
    torch.testing.assert_close(fine_pixels(F.conv2d(neighbourhoods(maps), kernel, padding=1)), expected)


@pytest.mark.parametrize("size", [(2, 2), (2, 5), (4, 3)])
def test_bias_meets_fewer_weights_at_the_edges(size):
    bias, conv = torch.ones(1), torch.ones(1, 1, 3, 3)  # counts the pixels that a pixel sees
    rows, columns = ([min(i, 1) + 1 + min(side - 1 - i, 1) for i in range(side)] for side in size)
    assert bias_map(bias, conv, size)[0, 0].tolist() == [[row * column for column in columns] for row in rows]


def test_channels_stand_last():
    maps = fine_pixels(torch.randn(2, 8, 4, 4))
    assert neighbourhoods(torch.randn(2, 1, 4, 4)).is_contiguous(memory_format=torch.channels_last)
    assert maps.stride(1) == 1
