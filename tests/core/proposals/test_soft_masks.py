"""Soft masks of low resolution against the same masks written out at full size by torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.proposals.soft_masks import SoftMasks, bilinear


def whole(levels: Tensor, size: tuple[int, int]) -> SoftMasks:
    return SoftMasks(levels, bilinear(levels.shape[1], size[0]), bilinear(levels.shape[2], size[1]))


@st.composite
def soft(draw: st.DrawFn) -> tuple[Tensor, tuple[int, int]]:
    shape = [draw(st.integers(1, 9)) for _ in range(3)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    levels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return levels, (draw(st.integers(1, 40)), draw(st.integers(1, 40)))


def upsampled(levels: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(levels[None].double(), size, mode="bilinear", align_corners=False)[0] / 255


def test_two_pixels_become_four_by_hand() -> None:
    # 0 and 200 at centres .5 and 1.5; four pixels have their centres at .25, .75, 1.25, 1.75
    masks = whole(torch.tensor([[[0, 200]]], dtype=torch.uint8), (1, 4))
    assert masks.masks().tolist() == [[[0, 50, 150, 200]]] and masks.size == (1, 4) and len(masks) == 1


@settings(deadline=None, max_examples=40)
@given(soft())
def test_written_out_masks_are_interpolated(case: tuple[Tensor, tuple[int, int]]) -> None:
    levels, size = case
    ours = whole(levels, size)
    assert (ours.masks().double() - 255 * upsampled(levels, size)).abs().max() <= 0.502
    assert torch.allclose(ours.areas().double(), upsampled(levels, size).sum((1, 2)), rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(soft(), st.integers(1, 12), st.integers(1, 12))
def test_resized_is_the_written_out_mask_resized(case: tuple[Tensor, tuple[int, int]], height: int, width: int) -> None:
    levels, size = case
    expected = F.interpolate(upsampled(levels, size)[None], (height, width), mode="bilinear")[0]
    assert torch.allclose(whole(levels, size).resized((height, width)).double(), expected, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(soft(), st.integers(1, 4), st.integers(0, 2**31))
def test_overlaps_are_sums_over_the_pixels_of_a_class(
    case: tuple[Tensor, tuple[int, int]], num_classes: int, seed: int
) -> None:
    levels, size = case
    labels = torch.randint(-1, num_classes + 1, size, generator=torch.Generator().manual_seed(seed))
    full = upsampled(levels, size)
    expected = torch.stack([(full * (labels == k)).sum((1, 2)) for k in range(num_classes)], 1)
    assert torch.allclose(whole(levels, size).overlaps(labels, num_classes).double(), expected, rtol=1e-4, atol=1e-4)


def test_autocast_rounds_nothing() -> None:
    masks = whole(torch.full((1, 3, 7), 200, dtype=torch.uint8), (21, 49))
    with torch.autocast("cpu", torch.bfloat16):
        assert masks.masks().unique().tolist() == [200]
        assert torch.allclose(masks.resized((4, 4)), torch.tensor(200 / 255), atol=1e-6)
        overlaps = masks.overlaps(torch.zeros(21, 49, dtype=torch.int64), 1)
    assert torch.allclose(overlaps, torch.tensor(1029 * 200 / 255), rtol=1e-5)


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match="differ in size"):
        whole(torch.zeros(1, 2, 2, dtype=torch.uint8), (4, 4)).overlaps(torch.zeros(4, 5), 2)
