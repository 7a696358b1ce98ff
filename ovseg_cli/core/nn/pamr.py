"""Pixel-adaptive mask refinement: scores flow between neighbours of similar colour, a few steps long.

Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, section 3.4; SCLIP, NACLIP and
others use it after CLIP. With c the colours (any number of channels, here the normalised ones), i a pixel, j one of its
eight neighbours at each dilation, and s_i the standard deviation of a channel around i:

    a_ij = softmax over j of the channels' mean of -|c_i - c_j| / (1e-8 + 0.1 s_i);   score_i <- sum of a_ij score_j

Neighbours beyond the border are the border's pixels. The pixel itself is no neighbour of its own. As in the code, s_i
is the unbiased one, over all neighbours and, once a dilation, the pixel itself.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_SCORES_AT_ONCE = 1 << 22  # scores that are refined together (16 MiB): rows do not meet
_EPSILON, _SHARPNESS = 1e-8, 0.1


def refine(picture: Tensor, scores: Tensor, steps: int, dilations: Sequence[int]) -> Tensor:
    """Refine scores by the colours of their picture.

    Args:
        picture: (C, H, W) float.
        scores: (M, H, W) float.
        steps: How often scores flow; 0 returns them as they are.
        dilations: Distances of neighbours in pixels, each at least 1.

    Returns:
        (M, H, W); each score lies between the smallest and the largest of its row.

    Source: `PAMR` in the code of the paper, as SCLIP and NACLIP copy it.
    """
    if not steps or not scores.numel():
        return scores
    weights = neighbour_weights(picture, dilations)
    rows = max(1, _SCORES_AT_ONCE // (scores.shape[1] * scores.shape[2]))
    parts = []
    for part in scores.split(rows):
        for _ in range(steps):
            part = _flow(part, weights, dilations)
        parts.append(part)
    return torch.cat(parts)


def neighbour_weights(picture: Tensor, dilations: Sequence[int]) -> Tensor:
    """Return (8 · dilations, H, W): the share of each neighbour, in the order of `_neighbours`; they sum to 1."""
    around = torch.stack(list(_neighbours(picture, dilations)))
    centre = picture.expand(len(dilations), *picture.shape)
    spread = torch.cat([around, centre]).std(0)
    likeness = -(around - picture).abs() / (_EPSILON + _SHARPNESS * spread)
    return likeness.mean(1).softmax(0)


def _flow(scores: Tensor, weights: Tensor, dilations: Sequence[int]) -> Tensor:
    total = torch.zeros_like(scores)
    for weight, moved in zip(weights, _neighbours(scores, dilations), strict=True):
        total.addcmul_(weight, moved)
    return total


def _neighbours(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Yield (C, H, W) maps moved so that each pixel shows one of its neighbours: row by row, dilation by dilation."""
    height, width = maps.shape[-2:]
    reach = max(dilations)
    padded = F.pad(maps[None], [reach] * 4, mode="replicate")[0]
    for step in dilations:
        for down in (-step, 0, step):
            for right in (-step, 0, step):
                if down or right:
                    top, left = reach + down, reach + right
                    yield padded[:, top : top + height, left : left + width]
