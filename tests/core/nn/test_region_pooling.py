"""Sums of features under masks: by hand, against the resized features and the masks written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.region_pooling import region_sums, region_weights

SIDES = st.tuples(st.integers(1, 7), st.integers(1, 7))
SIZES = st.tuples(st.integers(1, 23), st.integers(1, 23))


def written_out(features, ids, table):
    """Features resized, masks as maps, both in float64."""
    full = F.interpolate(features.double().permute(2, 0, 1)[None], tuple(ids.shape), mode="bilinear")[0]
    masks = table.double()[:, ids.flatten().long()]
    return (masks @ full.flatten(1).T).float(), masks.sum(1).float()


def drawn(grid, size, masks=5, regions=9, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(*grid, width, generator=generator)
    ids = torch.randint(0, regions, size, generator=generator, dtype=torch.int32)
    return features, ids, torch.randint(0, 2, (masks, regions), generator=generator, dtype=torch.uint8)


def test_by_hand():
    # one row of two features, 0 and 4, becomes 0 1 3 4; regions a a b b; masks {a}, {a, b}, none
    features = torch.tensor([[[0.0], [4.0]]])
    table = torch.tensor([[1, 0], [1, 1], [0, 0]], dtype=torch.uint8)
    sums, areas = region_sums(features, torch.tensor([[0, 0, 1, 1]]), table)
    assert sums.tolist() == [[1.0], [8.0], [0.0]] and areas.tolist() == [2.0, 4.0, 0.0]


def test_weights_by_hand():
    # the four pixels hold of the left feature 1, 3/4, 1/4, 0
    weights = region_weights(torch.tensor([[0, 0, 2, 2]]), 3, (1, 2))
    assert weights.tolist() == [[1.75, 0.25], [0.0, 0.0], [0.25, 1.75]]


@settings(max_examples=60, deadline=None)
@given(SIDES, SIZES, st.integers(0, 4), st.integers(1, 9), st.integers(0, 10_000))
def test_equal_to_resizing_and_writing_out(grid, size, masks, regions, seed):
    case = drawn(grid, size, masks, regions, seed=seed)
    sums, areas = region_sums(*case)
    expected, expected_areas = written_out(*case)
    torch.testing.assert_close(sums, expected, atol=2e-6 * (1 + areas.max().item() if masks else 1), rtol=0)
    assert areas.equal(expected_areas)


@settings(max_examples=20, deadline=None)
@given(SIDES, SIZES, st.integers(0, 10_000))
def test_weights_of_all_regions_add_up_to_the_pixels(grid, size, seed):
    _, ids, table = drawn(grid, size, seed=seed)
    weights = region_weights(ids, table.shape[1], grid)
    assert (weights >= 0).all()
    pixels = torch.bincount(ids.flatten(), minlength=table.shape[1]).float()
    torch.testing.assert_close(weights.sum(1), pixels, atol=1e-4, rtol=1e-6)


def test_paper_sizes_within_float_rounding():
    case = drawn((20, 20), (256, 256), masks=60, regions=300, width=32)
    expected, _ = written_out(*case)
    assert (region_sums(*case)[0] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_map_of_the_grids_own_size_is_a_plain_sum():
    features, ids, table = drawn((4, 5), (4, 5))
    expected = table.float()[:, ids.flatten().long()] @ features.flatten(0, 1)
    torch.testing.assert_close(region_sums(features, ids, table)[0], expected)


def test_gradients_reach_the_features():
    features, ids, table = drawn((3, 4), (11, 9))
    slopes = []
    for sums in (region_sums, written_out):
        own = features.clone().requires_grad_()
        sums(own, ids, table)[0].square().sum().backward()
        slopes.append(own.grad)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-3)


def test_autocast_does_not_round():
    features, ids, table = drawn((5, 5), (31, 17), seed=3)
    with torch.autocast("cpu", torch.bfloat16):
        sums, areas = region_sums(features, ids, table)
        low, _ = region_sums(features.bfloat16(), ids, table)
    plain, plain_areas = region_sums(features, ids, table)
    assert sums.equal(plain) and areas.equal(plain_areas)
    assert low.dtype == torch.float32 and low.equal(region_sums(features.bfloat16().float(), ids, table)[0])


def test_a_region_without_a_column_is_an_error():
    features, _, table = drawn((2, 2), (4, 4), regions=3)
    with pytest.raises(ShapeError, match=r"region 3 has no column in a table of \(5, 3\)"):
        region_sums(features, torch.full((4, 4), 3), table)


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_a_gpu_sums_alike_wherever_the_masks_lie(place):
    features, ids, table = drawn((20, 20), (64, 64), masks=30, regions=90)
    sums, areas = region_sums(features.cuda(), ids.to(place), table.to(place))
    expected, expected_areas = written_out(features, ids, table)
    assert sums.is_cuda and areas.is_cuda and areas.cpu().equal(expected_areas)
    torch.testing.assert_close(sums.cpu(), expected, atol=1e-3, rtol=1e-5)
