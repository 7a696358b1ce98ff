"""How do a transposed convolution that doubles a map and the convolution after it become one convolution?

A transposed convolution 2x2 of stride 2 makes four fine pixels of each coarse one, without overlap; a convolution 3x3
mixes a fine pixel with its neighbours. Both are linear, so both together are one linear map. The fine pixels in the
middle of 2x2 coarse pixels, two by two, see just these four: a convolution 2x2 of the coarse map, zeros around it,
gives them as four groups of channels. For C channels in and half of them out that is a quarter fewer multiplications;
where the coarse map has few channels (`neighbourhoods`), almost all of them are saved.

     coarse   |   a   |   b   |        fine, between a and b (rows likewise)
     fine     | . | x | x | . |        x x: each sees fine pixels of a and b alone
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def merged_kernel(up: Tensor, conv: Tensor) -> Tensor:
    """Return the kernel of one convolution 2x2, padding 1, for both.

    Args:
        up: (I, J, 2, 2), weight of the transposed convolution of stride 2.
        conv: (O, J, 3, 3), weight of the convolution after it, padding 1.

    Returns:
        (4·O, I, 2, 2): of the fine pixels in a window's middle the upper left, upper right, lower left, lower right.
    """
    response = F.conv2d(up, conv, padding=2)  # (I, O, 4, 4): what one coarse pixel adds to its fine ones and around
    response = response.unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(2, 4)  # (I, O, coarse, fine, coarse, fine)
    return response.permute(3, 5, 1, 0, 2, 4).flatten(0, 2)


def fine_pixels(windows: Tensor) -> Tensor:
    """Put the pixels of all windows in their places: (n, 4·O, h + 1, w + 1) becomes (n, O, 2·h, 2·w), channels last."""
    pixels = windows.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1)).transpose(2, 3)  # (n, h + 1, 2, w + 1, 2, O)
    return pixels.flatten(3, 4).flatten(1, 2)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def bias_map(bias: Tensor, conv: Tensor, size: tuple[int, int]) -> Tensor:
    """Return what the transposed convolution's bias adds after the convolution, which sees zeros outside the map.

    Args:
        bias: (J,).
        conv: (O, J, 3, 3).
        size: (H, W) of the fine map, at least 2; the pixels at an edge are alike, and so are all others.

    Returns:
        (1, O, H, W).
    """
    edges = F.conv2d(bias[None, :, None, None].expand(-1, -1, 3, 3), conv, padding=1)
    rows, columns = (torch.tensor([0, *[1] * (side - 2), 2], device=bias.device) for side in size)
    return edges[:, :, rows][:, :, :, columns]


def neighbourhoods(maps: Tensor) -> Tensor:
    """Write a convolution 3x3 of one channel out: each pixel's 3x3 neighbours, and a one.

    What a convolution makes of them is a matrix product of these ten numbers, its bias that of the one. Outside the map
    there is no one, as there is no bias: so a later convolution sees exactly what it saw.

    Args:
        maps: (n, 1, h, w).

    Returns:
        (n, 10, h, w), channels last.
    """
    height, width = maps.shape[2:]
    wide = F.pad(maps, (1, 1, 1, 1))
    shifted = [wide[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.cat([*shifted, torch.ones_like(maps)], 1).contiguous(memory_format=torch.channels_last)


def merged_first_kernel(first: tuple[Tensor, Tensor], up: tuple[Tensor, Tensor], conv: Tensor) -> Tensor:
    """Return the kernel that makes of `neighbourhoods` what three convolutions made of the maps.

    Args:
        first: Weight (I, 1, 3, 3) and bias (I,) of a convolution of the maps, padding 1.
        up: Weight (I, J, 2, 2) and bias (J,) of the transposed convolution after it.
        conv: (O, J, 3, 3), weight of the convolution after that, padding 1.

    Returns:
        (4·O, 10, 2, 2), as `merged_kernel`.
    """
    taps = torch.cat([first[0].flatten(1), first[1][:, None]], 1)  # (I, 10)
    of_taps = torch.einsum("it,ijpq->tjpq", taps, up[0])
    of_one = torch.cat([of_taps[:9], of_taps[9:] + up[1][:, None, None]])
    return merged_kernel(of_one, conv)
