"""What is done to candidate masks outside a network: stability, boxes, duplicates, small holes and islands.

Source of all steps: Kirillov et al., "Segment Anything", ICCV 2023, appendix B, and its automatic mask generator.
"""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.ops import nms

_NEIGHBOURS = np.ones((3, 3), dtype=int)  # eight, as Segment Anything counts pieces


def stability_scores(logits: Tensor, threshold: float = 0.0, offset: float = 1.0) -> Tensor:
    """Return how little a mask changes when its threshold moves.

    Args:
        logits: (N, H, W).
        threshold: Where the mask is cut.
        offset: How far the threshold moves down and up.

    Returns:
        (N,) IoU between the masks cut at threshold + offset and at threshold - offset; 0 where the larger is empty.
    """
    inner, outer = areas(logits > threshold + offset), areas(logits > threshold - offset)
    return inner / outer.clamp(min=1)


def areas(masks: Tensor) -> Tensor:
    """Return the (N,) int64 number of pixels of each of (N, H, W) bool masks.

    On the CPU numpy counts: it was measured a hundred times as fast as a sum over bool.
    """
    if masks.device.type != "cpu":
        return masks.sum((1, 2))
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()], dtype=torch.int64)


def mask_boxes(masks: Tensor) -> Tensor:
    """Return (N, 4) float32 boxes of (N, H, W) bool masks: left, top, right, bottom, both ends inside.

    An empty mask has the box 0, 0, 0, 0.
    """
    ends, full = [], torch.ones(len(masks), dtype=torch.bool, device=masks.device)
    for dim in (1, 2):  # columns, then rows
        occupied = masks.any(dim)
        length = occupied.shape[1]
        first = occupied.to(torch.uint8).argmax(1)
        last = length - 1 - occupied.flip(1).to(torch.uint8).argmax(1)
        ends.append((first, last))
        full = occupied.any(1)
    (left, right), (top, bottom) = ends
    boxes = torch.stack([left, top, right, bottom], dim=1).float()
    return boxes * full[:, None]


def touches_crop_edge(boxes: Tensor, crop: tuple[int, int, int, int], size: tuple[int, int], near: int = 20) -> Tensor:
    """Return which boxes end at a crop's edge that is not the picture's edge: such masks are cut off.

    Args:
        boxes: (N, 4) left, top, right, bottom in the picture.
        crop: left, top, right, bottom of the crop in the picture.
        size: (H, W) of the picture.
        near: Pixels that still count as the edge.
    """
    edges = torch.tensor(crop, dtype=torch.float32, device=boxes.device)
    outline = torch.tensor([0, 0, size[1], size[0]], dtype=torch.float32, device=boxes.device)
    return (((boxes - edges).abs() <= near) & ((boxes - outline).abs() > near)).any(1)


def drop_duplicates(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Return the indices that non-maximum suppression over boxes keeps, best score first.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou: A box that overlaps a better one by more than this goes; 1 keeps all.
    """
    if iou >= 1:
        return scores.argsort(descending=True, stable=True)
    return nms(boxes.float(), scores.float(), iou)


def remove_small_regions(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    """Fill holes and then drop islands smaller than `min_area` pixels.

    Args:
        mask: (H, W) bool.
        min_area: Pixels; where every island is smaller, the largest stays.

    Returns:
        The mask, and whether anything changed.
    """
    filled = mask | _small_pieces(~mask, min_area)
    pieces, count = ndimage.label(filled, structure=_NEIGHBOURS)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    keep = sizes >= min_area
    if count and not keep.any():
        keep[sizes.argmax()] = True
    cleaned = np.concatenate([[False], keep])[pieces]
    return cleaned, bool((cleaned != mask).any())


def _small_pieces(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Return the pieces of a mask that are smaller than `min_area`."""
    pieces, count = ndimage.label(mask, structure=_NEIGHBOURS)
    small = np.bincount(pieces.ravel(), minlength=count + 1) < min_area
    small[0] = False
    return small[pieces]
