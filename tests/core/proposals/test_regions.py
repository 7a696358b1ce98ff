"""Regions against the masks that they stand for: nothing may be lost, resized or counted differently."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ovseg_cli.core.data import rle
from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.proposals.regions import NOWHERE, RegionMasks, neighbours, split_regions


def regions_of(masks: np.ndarray) -> RegionMasks:
    ids, table = split_regions(rle.encode(masks), masks.shape[1:])
    return RegionMasks(torch.from_numpy(ids.copy()), torch.from_numpy(table))


@st.composite
def some_masks(draw: st.DrawFn) -> np.ndarray:
    """Up to 150 masks: random boxes, noise, empty and full ones, and copies."""
    height, width, count = draw(st.integers(1, 9)), draw(st.integers(1, 11)), draw(st.integers(0, 150))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        kind = rng.integers(5)
        top, left = rng.integers(height), rng.integers(width)
        if kind == 0:
            mask[top : top + rng.integers(height) + 1, left : left + rng.integers(width) + 1] = True
        elif kind == 1:
            mask[:] = rng.random((height, width)) < 0.5
        elif kind == 2:
            mask[:] = True
        elif kind == 3:
            mask[:] = masks[0]
    return masks


def test_two_overlapping_masks_make_four_regions() -> None:
    # first:  1 1 0    second: 0 1 1    by hand: only first, both, only second; below neither
    #         0 0 0            0 0 0
    masks = np.array([[[1, 1, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]]], bool)
    regions = regions_of(masks)
    assert regions.table.shape == (2, 4) and regions.size == (2, 3) and len(regions) == 2
    top = regions.ids[0].tolist()
    assert len(set(top)) == 3 and regions.ids[1].unique().numel() == 1
    assert regions.table[:, top].tolist() == [[1, 1, 0], [0, 1, 1]]


@settings(deadline=None, max_examples=60)
@given(some_masks())
def test_written_out_masks_are_the_masks(masks: np.ndarray) -> None:
    regions = regions_of(masks)
    assert torch.equal(regions.masks(), torch.from_numpy(masks).to(torch.uint8) * 255)
    assert len(np.unique(regions.table.numpy(), axis=1).T) == regions.table.shape[1], "a region stands twice"
    assert not regions.table[:, NOWHERE].any()
    assert torch.equal(regions.areas(), torch.from_numpy(masks).sum((1, 2)).float())


@settings(deadline=None, max_examples=40)
@given(some_masks(), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_overlaps_are_those_of_the_masks(masks: np.ndarray, num_classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(-1, num_classes + 2, masks.shape[1:])
    expected = [[int((mask & (labels == k)).sum()) for k in range(num_classes)] for mask in masks]
    overlaps = regions_of(masks).overlaps(torch.from_numpy(labels), num_classes)
    assert overlaps.tolist() == expected or (len(masks) == 0 and overlaps.shape == (0, num_classes))


@settings(deadline=None, max_examples=40)
@given(some_masks(), st.integers(1, 20), st.integers(1, 20))
def test_resized_equals_interpolating_the_masks(masks: np.ndarray, height: int, width: int) -> None:
    expected = torch.from_numpy(masks).float()
    if len(masks):
        expected = F.interpolate(expected[None], (height, width), mode="bilinear", align_corners=False)[0]
        assert torch.allclose(regions_of(masks).resized((height, width)), expected, atol=1e-5)


def test_halves_stay_halves() -> None:
    """A ViT keeps a patch at exactly one half: a checkerboard to half its side must give .5 to the bit."""
    board = (np.indices((12, 12)).sum(0) % 2 == 0)[None]
    assert (regions_of(board).resized((6, 6)) == 0.5).all()


def test_neighbours_at_the_border_do_not_leave_the_picture() -> None:
    where, weights = neighbours(3, 6, torch.device("cpu"))
    assert where.min() == 0 and where.max() == 2 and torch.allclose(weights.sum(1), torch.ones(6))


def test_autocast_rounds_no_count() -> None:
    masks = regions_of(np.ones((1, 21, 49), bool))  # 1029 pixels; bfloat16 would say 1032
    with torch.autocast("cpu", torch.bfloat16):
        assert masks.areas().tolist() == [1029.0]
        assert masks.overlaps(torch.zeros(21, 49, dtype=torch.int64), 1).tolist() == [[1029.0]]


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match="differ in size"):
        regions_of(np.ones((1, 2, 3), bool)).overlaps(torch.zeros(3, 2), 2)


def test_broken_codes_are_refused() -> None:
    with pytest.raises(rle.RleError, match="overrun"):
        split_regions(rle.encode(np.ones((1, 4, 4), bool)), (3, 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    rng = np.random.default_rng(0)
    masks = regions_of(rng.random((70, 37, 53)) < 0.5)
    there = RegionMasks(masks.ids.cuda(), masks.table.cuda())
    labels = torch.from_numpy(rng.integers(-1, 6, (37, 53)))
    assert torch.equal(there.masks().cpu(), masks.masks()) and torch.equal(there.areas().cpu(), masks.areas())
    assert torch.equal(there.overlaps(labels.cuda(), 5).cpu(), masks.overlaps(labels, 5))
    assert torch.allclose(there.resized((9, 11)).cpu(), masks.resized((9, 11)), atol=1e-6)
