"""What do the features under each mask add up to, without resizing the features to the masks' size?

PixelCLIP up-samples a picture's features (h, w, D) to the grid of the masks, (M, M'), and sums them over each mask's
pixels: M·M'·D numbers a picture. A bilinear resize is linear: every pixel mixes four features, so a region's sum is a
sum of features with weights that the pixels of the region alone decide. Here the weights are added up first, (R, h·w),
then over the regions of each mask, and the features come last, in one small product.
"""

import torch
from torch import Tensor

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.resize import bilinear_axis


def region_sums(features: Tensor, ids: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Sum features over the pixels of masks; in float32 whatever autocast says.

    Args:
        features: (h, w, D), in thought resized bilinearly to the size of the map, corners not aligned.
        ids: (M, M') integers, the region of each pixel, 0 to R - 1; may lie on another device than the features, with
            the table, and what is small is moved.
        table: (N, R), 1 where the mask holds the region.

    Returns:
        Sums (N, D), with gradients for the features, and areas in pixels (N,), whole numbers; both float32, on the
        device of the features. A mask without a pixel has sum and area 0.

    Raises:
        ShapeError: A region has no column in the table.
    """
    height, width, _ = features.shape
    counts = torch.bincount(ids.flatten(), minlength=table.shape[1])
    if len(counts) > table.shape[1]:
        raise ShapeError(f"region {len(counts) - 1} has no column in a table of {tuple(table.shape)}")
    with torch.autocast(features.device.type, enabled=False), torch.autocast(ids.device.type, enabled=False):
        masks = table.float()
        weights = masks @ region_weights(ids, len(counts), (height, width))
        sums = weights.to(features.device) @ features.float().flatten(0, 1)
        return sums, (masks @ counts.float()).to(features.device)


def region_weights(ids: Tensor, count: int, grid: tuple[int, int]) -> Tensor:
    """Return how much of each feature the pixels of each region hold together, (R, h·w) float32.

    Args:
        ids: (M, M') integers, 0 to R - 1.
        count: R.
        grid: (h, w) of the features.
    """
    rows, columns = (_corners(grid[axis], int(ids.shape[axis]), ids.device) for axis in (0, 1))
    weights = torch.zeros(count * grid[0] * grid[1], device=ids.device)
    first = ids.long() * (grid[0] * grid[1])
    for row, of_row in rows:
        for column, of_column in columns:
            place = first + (row * grid[1])[:, None] + column
            weights.index_add_(0, place.flatten(), (of_row[:, None] * of_column).flatten())
    return weights.unflatten(0, (count, grid[0] * grid[1]))


def _corners(source: int, target: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return the lower and the upper of the two samples that each position mixes, and the weight of each, (target,)."""
    axis = bilinear_axis(source, target)
    pairs = [(axis.low, 1 - axis.weight), (axis.high, axis.weight)]
    return [(samples.to(device), weight.to(device)) for samples, weight in pairs]
