"""Deformable attention by hand, and against a loop over heads, levels, places and neighbours."""

import math

import pytest
import torch

from ovseg_cli.core.nn.deformable_attention import DeformableAttention, sample
from ovseg_cli.core.nn.pixel_decoder import cell_centres
from ovseg_cli.core.nn.positions import sine_positions

SIZES = [(2, 3), (4, 6), (5, 2)]


def read(level, x, y):
    """Bilinear value of a map (c, h, w) at x, y of 0 to 1; zero outside."""
    _, height, width = level.shape
    column, row = x * width - 0.5, y * height - 0.5
    value = torch.zeros(level.shape[0], dtype=level.dtype)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                value += (1 - abs(row - i)) * (1 - abs(column - j)) * level[:, i, j]
    return value


def by_loops(attention, queries, places, memory, sizes):
    batch, length, width = queries.shape
    heads, levels, points, c = attention.heads, len(sizes), attention.points, width // attention.heads
    values = attention.value_proj(memory)
    offsets = attention.sampling_offsets(queries).view(batch, length, heads, levels, points, 2)
    weights = attention.attention_weights(queries).view(batch, length, heads, -1).softmax(-1)
    weights = weights.view(batch, length, heads, levels, points)
    out = torch.zeros(batch, length, heads, c, dtype=queries.dtype)
    for b in range(batch):
        start = 0
        for n, (h, w) in enumerate(sizes):
            level = values[b, start : start + h * w].T.reshape(heads, c, h, w)
            start += h * w
            for t in range(length):
                for m in range(heads):
                    for p in range(points):
                        x = float(places[t, 0] + offsets[b, t, m, n, p, 0] / w)
                        y = float(places[t, 1] + offsets[b, t, m, n, p, 1] / h)
                        out[b, t, m] += weights[b, t, m, n, p] * read(level[m], x, y)
    return attention.output_proj(out.flatten(2))


def test_a_query_that_looks_at_its_own_cell_gets_its_value():
    attention = DeformableAttention(4, levels=1, heads=2, points=1).double()
    attention.sampling_offsets.bias.data.zero_()
    memory = torch.randn(1, 6, 4, dtype=torch.float64)
    out = attention(memory, cell_centres((2, 3), memory), memory, [(2, 3)])
    torch.testing.assert_close(out, attention.output_proj(attention.value_proj(memory)))


def test_half_a_cell_to_the_right_averages_two_neighbours_and_outside_is_zero():
    values = torch.tensor([[[1.0], [3.0]]])  # one row of two cells
    places = torch.tensor([0.5, 0.5, 1.5, 0.5]).view(1, 2, 1, 1, 1, 2)
    assert sample(values, places, [(1, 2)]).flatten().tolist() == [2.0, 0.0]


@torch.no_grad()
def test_equals_loops():
    torch.manual_seed(0)
    attention = DeformableAttention(8, levels=3, heads=2, points=2).double()
    for linear in (attention.sampling_offsets, attention.attention_weights):
        linear.weight.normal_(std=0.5)
    length = sum(h * w for h, w in SIZES)
    memory, queries = torch.randn(2, length, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    places = torch.rand(5, 2, dtype=torch.float64)
    result = attention(queries, places, memory, SIZES)
    torch.testing.assert_close(result, by_loops(attention, queries, places, memory, SIZES))


def test_new_attention_looks_in_one_direction_a_head_ever_farther():
    attention = DeformableAttention(8, levels=2, heads=4, points=3)
    offsets = attention.sampling_offsets.bias.view(4, 2, 3, 2)
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for p in range(3):
        torch.testing.assert_close(offsets[:, 0, p], (p + 1) * directions, atol=1e-6, rtol=0)
    assert offsets[:, 0].equal(offsets[:, 1]) and not attention.attention_weights.weight.any()


def test_centres_are_x_then_y_row_by_row():
    centres = cell_centres((2, 4), torch.zeros(1))
    assert centres[0].tolist() == [0.125, 0.25] and centres[1].tolist() == [0.375, 0.25]
    assert centres[4].tolist() == [0.125, 0.75]


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_positions_by_the_formula(size):
    waves = sine_positions(size, 8, torch.zeros(1, dtype=torch.float64))
    assert waves.shape == (8, *size)
    for y in range(size[0]):
        for x in range(size[1]):
            angles = [(y + 1) / (size[0] + 1e-6) * 2 * math.pi, (x + 1) / (size[1] + 1e-6) * 2 * math.pi]
            expected = [f(a / 10000 ** (2 * k / 4)) for a in angles for k in (0, 1) for f in (math.sin, math.cos)]
            torch.testing.assert_close(waves[:, y, x], torch.tensor(expected, dtype=torch.float64))
