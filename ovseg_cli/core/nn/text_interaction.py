"""How pixels read the class names before any mask is made: FreeSeg's adaptive text interaction.

Source: Qin et al., "FreeSeg", CVPR 2023, section 3.3; the code behind the released weights, which we follow.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TextAttention(nn.Module):
    """Multi-head attention from pixels to text rows in a space of its own; keys `{q,k,v,out}_proj`."""

    def __init__(self, width: int, text_width: int, inner: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(text_width, inner)
        self.v_proj = nn.Linear(text_width, inner)
        self.out_proj = nn.Linear(inner, width)
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, pixels: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return (B, L, C) of pixels (B, L, C) and text rows (K, D)."""
        q = self.q_proj(pixels).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (
            project(text).unflatten(-1, (self.heads, -1)).transpose(0, 1)[None].expand(len(q), -1, -1, -1)
            for project, text in ((self.k_proj, keys), (self.v_proj, values))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class TextInteraction(nn.Module):
    """Each map of a pyramid, then the mask features, take up what the text rows say: q = LN(q) + gamma * attention.

    Two things look like slips and are part of the released weights, so they are kept. The residual starts from the
    *normalised* pixels. And the text rows are overwritten by their LayerNorm at each map, so that map i (0 first) sees
    them normalised i + 1 times.

    Args:
        width: C of the maps.
        text_width: D of the text rows.
        inner: Width of the attention, divisible by `heads`.
        heads: Of the attention.
        dropout: On the attention's weights.
    """

    def __init__(
        self, width: int = 256, text_width: int = 512, inner: int = 2048, heads: int = 8, dropout: float = 0.1
    ):
        super().__init__()
        self.layer_norm_q_1 = nn.LayerNorm(width)
        self.layer_norm_k_1 = nn.LayerNorm(text_width)
        self.attn = TextAttention(width, text_width, inner, heads, dropout)
        self.gamma = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, maps: list[Tensor], text: Tensor) -> list[Tensor]:
        """Return maps of the same shapes.

        Args:
            maps: (B, C, h, w) each, in the order in which they were trained: coarse to fine, mask features last.
            text: (K, D), non-object row included.
        """
        mixed = []
        for pixels in maps:
            text = self.layer_norm_k_1(text)
            queries = self.layer_norm_q_1(pixels.flatten(2).transpose(1, 2))
            queries = queries + self.gamma * self.attn(queries, text, text)
            mixed.append(queries.transpose(1, 2).reshape(pixels.shape))
        return mixed
