"""Where the points lie that ask a promptable network for masks, and which crops of the picture are asked."""

import math

import torch
from torch import Tensor

Crop = tuple[int, int, int, int]  # left, top, right, bottom


def point_grid(per_side: int) -> Tensor:
    """Return (n², 2) points x, y between 0 and 1, row-major: the centres of n × n equal cells."""
    axis = (torch.arange(per_side, dtype=torch.float64) + 0.5) / per_side
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1).float()


def crop_layers(size: tuple[int, int], layers: int, overlap: float) -> list[tuple[int, Crop]]:
    """Return the crops of a picture: the whole, then 2 × 2, then 4 × 4 …, each with the number of its layer.

    Args:
        size: (H, W).
        layers: Layers after the whole picture.
        overlap: Share of the short side that neighbours of the first layer have in common; halves with each layer.

    Source: Segment Anything's automatic mask generator.
    """
    height, width = size
    crops: list[tuple[int, Crop]] = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        count = 2**layer
        common = int(overlap * min(size) * 2 / count)
        step_x, step_y = (math.ceil((common * (count - 1) + side) / count) - common for side in (width, height))
        for left in (step_x * i for i in range(count)):
            for top in (step_y * i for i in range(count)):
                right, bottom = min(left + step_x + common, width), min(top + step_y + common, height)
                if right > left and bottom > top:
                    crops.append((layer, (left, top, right, bottom)))
    return crops
