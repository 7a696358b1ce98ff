"""Multi-scale deformable attention in plain PyTorch: each query looks at a few places of each level of a pyramid.

Source: Zhu et al., "Deformable DETR", ICLR 2021, Eq. 3. The authors' compiled operator is replaced by `grid_sample`.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Size = tuple[int, int]


class DeformableAttention(nn.Module):
    """Attention over sampled places.

    Args:
        width: C, divisible by `heads`.
        levels: L, maps of the pyramid.
        heads: M.
        points: P, places that a head looks at in each level.
    """

    def __init__(self, width: int, levels: int = 3, heads: int = 8, points: int = 4):
        super().__init__()
        self.levels, self.heads, self.points = levels, heads, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start from equal weights on a star of places: head m looks in direction m, its p-th point p cells away."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        star = torch.stack([angle.cos(), angle.sin()], dim=-1)
        star = star / star.abs().amax(dim=-1, keepdim=True)  # on the unit square
        steps = torch.arange(1, self.points + 1)
        offsets = star[:, None, None] * steps[None, None, :, None].expand(self.heads, self.levels, -1, 1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        for zeroed in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(zeroed)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, places: Tensor, memory: Tensor, sizes: list[Size]) -> Tensor:
        """Mix values sampled around each query's place.

        Args:
            queries: (B, T, C).
            places: (T, 2) x and y of each query, 0 to 1 over the map.
            memory: (B, S, C), the levels' cells one level behind the other, row-major.
            sizes: (h, w) of each level; the products add up to S.

        Returns:
            (B, T, C).
        """
        batch, length, _ = queries.shape
        shape = (batch, length, self.heads, self.levels, self.points)
        cells = queries.new_tensor([[w, h] for h, w in sizes])
        offsets = self.sampling_offsets(queries).view(*shape, 2) / cells[:, None]
        weights = self.attention_weights(queries).view(batch, length, self.heads, -1).softmax(-1).view(shape)
        sampled = sample(self.value_proj(memory), places[:, None, None, None] + offsets, sizes)
        return self.output_proj(_mix(sampled, weights))


def sample(values: Tensor, places: Tensor, sizes: list[Size]) -> Tensor:
    """Read maps at places between cells, bilinearly; outside a map there are zeros.

    Args:
        values: (B, S, C), levels one behind the other.
        places: (B, T, M, L, P, 2), 0 to 1.
        sizes: (h, w) of each level.

    Returns:
        (B · M, C / M, T, L · P).
    """
    batch, length, heads, _, _, _ = places.shape
    maps = values.view(batch, -1, heads, values.shape[-1] // heads).permute(0, 2, 3, 1).flatten(0, 1)  # (B·M, c, S)
    grids = (2 * places - 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 1)  # (B·M, L, T, P, 2)
    parts = maps.split([h * w for h, w in sizes], dim=2)
    sampled = [
        F.grid_sample(part.unflatten(2, size), grids[:, i], mode="bilinear", align_corners=False)
        for i, (part, size) in enumerate(zip(parts, sizes, strict=True))
    ]
    return torch.cat(sampled, dim=-1)


def _mix(sampled: Tensor, weights: Tensor) -> Tensor:
    """Weigh (B · M, c, T, L · P) by (B, T, M, L, P); returns (B, T, M · c)."""
    batch, length, heads = weights.shape[:3]
    weights = weights.flatten(3).transpose(1, 2).flatten(0, 1)  # (B·M, T, L·P)
    mixed = torch.einsum("nctp,ntp->nct", sampled, weights)
    return mixed.reshape(batch, -1, length).transpose(1, 2)
