"""What is done to candidate masks, each step by hand and against a plain reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, masks_to_boxes

from ovseg_cli.core.proposals.mask_filters import (
    areas,
    drop_duplicates,
    mask_boxes,
    remove_small_regions,
    stability_scores,
    touches_crop_edge,
)
from ovseg_cli.core.proposals.point_grid import crop_layers, point_grid


def test_stability_by_hand():
    logits = torch.tensor([[[5.0, 0.5], [-0.5, -5.0]], [[3.0, 2.0], [2.0, 2.0]], [[-9.0, -9.0], [-9.0, -9.0]]])
    # above +1: 1 pixel, above -1: 3 pixels; then 4 of 4; then none of none
    assert torch.allclose(stability_scores(logits), torch.tensor([1 / 3, 1.0, 0.0]))
    assert torch.allclose(stability_scores(logits, threshold=2.0, offset=1.0), torch.tensor([1.0, 0.0, 0.0]))


def test_areas_by_hand():
    masks = torch.tensor([[[True, False], [True, True]], [[False, False], [False, False]]])
    assert areas(masks).tolist() == [3, 0]
    assert areas(masks.transpose(1, 2)).tolist() == [3, 0]
    assert areas(masks.to("meta")).shape == (2,)  # another device counts by itself


def test_boxes_by_hand():
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[0, 1:3, 2:5] = True
    masks[1, 0, 0] = True
    assert mask_boxes(masks).tolist() == [[2, 1, 4, 2], [0, 0, 0, 0], [0, 0, 0, 0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_boxes_equal_torchvisions(height: int, width: int, seed: int):
    masks = torch.rand(5, height, width, generator=torch.Generator().manual_seed(seed)) > 0.7
    masks = masks[masks.flatten(1).any(1)]  # torchvision's wants no empty ones
    if len(masks):
        assert torch.equal(mask_boxes(masks), masks_to_boxes(masks))


def test_no_masks_have_no_boxes():
    assert mask_boxes(torch.zeros(0, 3, 4, dtype=torch.bool)).shape == (0, 4)
    assert stability_scores(torch.zeros(0, 3, 4)).shape == (0,)


def test_duplicates_by_hand():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]]).float()
    scores = torch.tensor([0.5, 0.9, 0.1])
    assert drop_duplicates(boxes, scores, 0.7).tolist() == [1, 2]  # IoU of the first two is 0.9
    assert drop_duplicates(boxes, scores, 0.95).tolist() == [1, 0, 2]
    assert drop_duplicates(boxes, scores, 1.0).tolist() == [1, 0, 2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 25), st.floats(0.1, 0.9), st.integers(0, 2**31))
def test_duplicates_equal_the_plain_greedy_rule(count: int, iou: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    corner, side = torch.rand(count, 2, generator=generator), torch.rand(count, 2, generator=generator)
    boxes, scores = torch.cat([corner, corner + side], 1), torch.rand(count, generator=generator)
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if all(float(box_iou(boxes[i : i + 1], boxes[j : j + 1])) <= iou for j in kept):
            kept.append(i)
    assert drop_duplicates(boxes, scores, iou).tolist() == kept


def test_crop_edges_by_hand():
    crop, size = (100, 0, 200, 150), (300, 200)  # left 100 and bottom 150 lie inside the picture
    boxes = torch.tensor(
        [
            [110, 40, 160, 90],  # left end near 100: cut off
            [140, 40, 199, 90],  # right end at the picture's own edge
            [140, 0, 160, 90],  # top end at the picture's own edge
            [140, 40, 160, 145],  # bottom end near 150: cut off
            [121, 40, 160, 129],  # one pixel too far from both
        ]
    ).float()
    assert touches_crop_edge(boxes, crop, size).tolist() == [True, False, False, True, False]


def test_the_whole_picture_has_no_crop_edge():
    boxes = torch.rand(50, 4) * 100
    assert not touches_crop_edge(boxes, (0, 0, 100, 80), (80, 100)).any()


def test_small_regions_by_hand():
    mask = np.zeros((6, 8), dtype=bool)
    mask[0:5, 0:5] = True
    mask[2, 2] = False  # a hole of one pixel
    mask[5, 7] = True  # an island of one pixel
    cleaned, changed = remove_small_regions(mask, 2)
    expected = np.zeros((6, 8), dtype=bool)
    expected[0:5, 0:5] = True
    assert changed and (cleaned == expected).all()
    assert remove_small_regions(expected, 2)[1] is False


def test_regions_of_exactly_the_least_area_stay():
    mask = np.zeros((5, 9), dtype=bool)
    mask[:, :5] = True
    mask[1, 1:3] = False  # a hole of two pixels
    mask[2, 7:9] = True  # an island of two pixels
    assert not remove_small_regions(mask, 2)[1]
    assert remove_small_regions(mask, 3)[0].sum() == 25


def test_pieces_that_touch_at_a_corner_are_one():
    mask = np.eye(4, dtype=bool)
    cleaned, changed = remove_small_regions(mask, 4)
    assert not changed and (cleaned == mask).all()


def test_the_largest_of_only_small_islands_stays():
    mask = np.zeros((3, 7), dtype=bool)
    mask[0, 0], mask[0, 3:5] = True, True
    cleaned, _ = remove_small_regions(mask, 5)
    assert cleaned.sum() == 2 and cleaned[0, 3:5].all()
    empty = np.zeros((10, 10), dtype=bool)
    assert not remove_small_regions(empty, 5)[0].any()


def test_points_are_the_centres_of_cells():
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert point_grid(1).tolist() == [[0.5, 0.5]]


def test_crops_by_hand():
    # 40 × 60, overlap ½ of the short side: 20 pixels between neighbours; 2 × 2 crops of 30 × 40
    assert crop_layers((40, 60), 1, 0.5) == [
        (0, (0, 0, 60, 40)),
        (1, (0, 0, 40, 30)),
        (1, (0, 10, 40, 40)),
        (1, (20, 0, 60, 30)),
        (1, (20, 10, 60, 40)),
    ]


@pytest.mark.parametrize("size", [(37, 53), (1, 1), (2, 90), (480, 640)])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_each_layer_covers_the_picture(size: tuple[int, int], layers: int):
    crops = crop_layers(size, layers, 512 / 1500)
    for layer in range(layers + 1):
        covered = torch.zeros(size, dtype=torch.bool)
        for number, (left, top, right, bottom) in crops:
            if number == layer:
                assert 0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]
                covered[top:bottom, left:right] = True
        assert covered.all()


def test_crops_equal_the_librarys():
    from transformers.models.sam.image_processing_sam import _build_point_grid, _generate_per_layer_crops

    for size in ((480, 640), (37, 53), (101, 64)):
        boxes, layers = _generate_per_layer_crops(2, 512 / 1500, size)
        assert crop_layers(size, 2, 512 / 1500) == [(n, tuple(b)) for n, b in zip(layers, boxes, strict=True)]
    torch.testing.assert_close(point_grid(7), torch.as_tensor(_build_point_grid(7)).float(), rtol=0, atol=1e-6)
