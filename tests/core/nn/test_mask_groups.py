"""Masks on their grid and the targets they become: by hand, against masks that are written out, and at the edges."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.nn.mask_groups import MaskGroups, grouped_targets, masks_on_grid


@dataclass
class Regions:
    """Binary masks as a map of regions."""

    ids: Tensor
    table: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return int(self.ids.shape[0]), int(self.ids.shape[1])

    def masks(self) -> Tensor:
        return self.table[:, self.ids.long()] * 255


@dataclass
class Soft:
    """Probabilities, 255 = 1."""

    levels: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return int(self.levels.shape[1]), int(self.levels.shape[2])

    def masks(self) -> Tensor:
        return self.levels


LEFT_AND_TOP = Regions(
    torch.tensor([[3, 3, 2, 2], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], dtype=torch.int32),
    torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]], dtype=torch.uint8),  # left half: 1 and 3; top row: 2 and 3
)


def test_two_masks_by_hand() -> None:
    ids, table = masks_on_grid(LEFT_AND_TOP, (4, 4))
    groups = MaskGroups.of([(ids, table)], [torch.zeros(2, 5)])
    targets = grouped_targets(groups, torch.tensor([2, 0]), 3)
    assert targets[0].tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]
    assert grouped_targets(groups, torch.tensor([1, 1]), 3)[0].tolist() == [[0] * 3, *[[0, 1, 0]] * 3]
    assert groups.own_targets()[0].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_a_mask_with_one_pixel_on_the_grid_is_left_out() -> None:
    ids, table = masks_on_grid(LEFT_AND_TOP, (2, 2))  # pixels (0, 0), (0, 2), (2, 0), (2, 2)
    assert ids.tolist() == [[3, 2], [1, 0]] and len(table) == 2
    _, table = masks_on_grid(LEFT_AND_TOP, (4, 1))  # the first column: the top row has one pixel of it
    assert table.tolist() == [[0, 1, 0, 1]]


def test_the_box_is_in_no_mask() -> None:
    ids, _ = masks_on_grid(LEFT_AND_TOP, (4, 4), cut_out=(0, 1, 2, 2))
    assert ids.tolist() == [[3, 0, 0, 2], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert LEFT_AND_TOP.ids[0, 1] == 3, "the masks of the batch stay as they are"
    _, table = masks_on_grid(LEFT_AND_TOP, (4, 4), cut_out=(0, 0, 4, 4))
    assert not len(table)


def test_soft_masks_hold_what_is_one_half_or_more() -> None:
    levels = torch.tensor([[[0, 127, 128, 255]], [[255, 255, 0, 0]]], dtype=torch.uint8)
    ids, table = masks_on_grid(Soft(levels), (1, 4))
    assert table[:, ids.long()].tolist() == [[[0, 0, 1, 1]], [[1, 1, 0, 0]]]


@pytest.mark.parametrize("masks", [Soft(torch.zeros(0, 5, 6, dtype=torch.uint8)), Soft(torch.zeros(2, 5, 6).byte())])
def test_no_masks_are_no_targets(masks: Soft) -> None:
    ids, table = masks_on_grid(masks, (4, 4))
    assert ids.shape == (4, 4) and not len(table)
    groups = MaskGroups.of([(ids, table)], [torch.zeros(0, 5)])
    targets = grouped_targets(groups, torch.zeros(0, dtype=torch.int64), 3)
    assert targets.shape[2] == 3 and not targets.any()
    assert groups.own_targets().shape[2] == 0 and groups.padded_features().shape == (1, 0, 5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.integers(1, 7))
def test_unions_equal_those_of_masks_that_are_written_out(seed: int, height: int, width: int, count: int, side: int):
    generator = torch.Generator().manual_seed(seed)
    written = (torch.rand(count, height, width, generator=generator) > 0.5).byte() * 255
    chosen = torch.randint(4, (count,), generator=generator)
    small = F.interpolate(written[:, None].float(), (side, side), mode="nearest")[:, 0] > 0
    kept = small.sum((1, 2)) > 1
    expected = torch.stack([small[kept & (chosen == name)].any(0) for name in range(4)], dim=-1)
    ids, table = masks_on_grid(Soft(written), (side, side))
    groups = MaskGroups.of([(ids, table)], [torch.zeros(int(kept.sum()), 2)])
    assert grouped_targets(groups, chosen[kept], 4)[0][ids.long()].bool().equal(expected)


def test_pictures_with_fewer_masks_are_padded() -> None:
    one = masks_on_grid(LEFT_AND_TOP, (4, 4))
    other = masks_on_grid(Soft(torch.full((1, 4, 4), 255, dtype=torch.uint8)), (4, 4))
    groups = MaskGroups.of([one, other], [torch.ones(2, 3), torch.full((1, 3), 2.0)])
    assert groups.padded_features().tolist() == [[[1.0] * 3, [1.0] * 3], [[2.0] * 3, [0.0] * 3]]
    assert groups.own_targets().shape == (2, 4, 2) and not groups.own_targets()[1, :, 1].any()
