"""Where a cell of a feature map lies, as sines and cosines that attention can read."""

import math

import torch
from torch import Tensor


def sine_positions(size: tuple[int, int], width: int, like: Tensor) -> Tensor:
    """Return DETR's sine embedding of a map's cells.

    Rows and columns are counted from 1 and scaled to 0 .. 2π; half of the channels speak of y, half of x, each
    pair a sine and a cosine at one of `width` / 4 wavelengths.

    Args:
        size: (h, w).
        width: Channels, divisible by 4.
        like: Gives dtype and device.

    Returns:
        (width, h, w).

    Source: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020; its code divides by the last
    row or column plus 1e-6.
    """
    half = width // 2
    channel = torch.arange(half, device=like.device)
    wavelength = 10000 ** (2 * (channel // 2) / half).to(like.dtype)
    rows, columns = (_waves(n, wavelength, like) for n in size)  # (h, half), (w, half)
    y = rows[:, None].expand(-1, size[1], -1)
    x = columns[None].expand(size[0], -1, -1)
    return torch.cat([y, x], dim=-1).permute(2, 0, 1)


def _waves(cells: int, wavelength: Tensor, like: Tensor) -> Tensor:
    """Return (cells, half): sine and cosine in turn."""
    place = torch.arange(1, cells + 1, dtype=like.dtype, device=like.device)
    angle = (place / (cells + 1e-6) * (2 * math.pi))[:, None] / wavelength
    return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)
