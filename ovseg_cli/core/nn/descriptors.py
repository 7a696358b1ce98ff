"""What does a class ask a picture for? Relationship descriptors: from text rows and the picture's feature to queries.

Source: ZegCLIP, equation of the relationship descriptor, and the options of TagCLIP's code. With text rows t_c (the
trusty token among them) and the picture's feature g, all as they leave the encoders:

    product   q_c = W [g · t_c ; t_c] + b      the released form of both methods (`qms_q`)
    concat    q_c = W [g ; t_c] + b            (`s_q`)
    text      q_c = W t_c + b                  (`q`)

TagCLIP's Figure 5 shows two arrangements of its Trusty Learner; the released code has a third, in which the attention
among queries is that of the decoder's first layer:

    released         product, then self-attention in the decoder's layer 0 (as Figure 5, left)
    figure-5-left    x_c = W [g · t_c ; t_c] + b;   q = LN(x + MHA(x, x, x))
    figure-5-right   x_c = g · t_c;   o = LN(x + MHA(x, x, x));   q_c = W [o_c ; t_c] + b   (t_c without g)
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.nn.attention_masks import CrossAttention

Kind = Literal["product", "concat", "text"]


class Descriptor(nn.Module):
    """Queries from text rows and the picture's feature, each class by itself.

    Args:
        dim: d.
        kind: Which of the forms above.
    """

    def __init__(self, dim: int, kind: Kind = "product"):
        super().__init__()
        self.kind = kind
        self.q_proj = nn.Linear(dim if kind == "text" else 2 * dim, dim)

    def forward(self, picture: Tensor, rows: Tensor) -> Tensor:
        """Return queries (B, C, d).

        Args:
            picture: (B, d).
            rows: (C, d).
        """
        weight, bias = self.q_proj.weight, self.q_proj.bias
        if self.kind == "text":
            return self.q_proj(rows).expand(len(picture), -1, -1)
        ahead, behind = weight.chunk(2, dim=1)  # [x ; t] W = x W_1 + t W_2: what all pictures share is computed once
        shared = F.linear(rows, behind, bias)
        if self.kind == "concat":
            return F.linear(picture, ahead)[:, None] + shared
        return F.linear(picture[:, None] * rows, ahead) + shared


class SelfAttentionLearner(nn.Module):
    """Figure 5, left: descriptors first, then attention among all of them."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.input_proj = nn.Linear(2 * dim, dim)
        self.attention, self.norm = CrossAttention(dim, heads), nn.LayerNorm(dim)
        self.dropout = dropout

    def forward(self, picture: Tensor, rows: Tensor) -> Tensor:
        """Return queries (B, C, d) of picture features (B, d) and rows (C, d)."""
        x = self.input_proj(_paired(picture[:, None] * rows, rows))
        return _attended(self, x)


class AttentionConcatLearner(nn.Module):
    """Figure 5, right: attention among the products first, then each is put beside its own text row."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.attention, self.norm = CrossAttention(dim, heads), nn.LayerNorm(dim)
        self.q_proj = nn.Linear(2 * dim, dim)
        self.dropout = dropout

    def forward(self, picture: Tensor, rows: Tensor) -> Tensor:
        """Return queries (B, C, d) of picture features (B, d) and rows (C, d)."""
        return self.q_proj(_paired(_attended(self, picture[:, None] * rows), rows))


def _attended(learner: SelfAttentionLearner | AttentionConcatLearner, x: Tensor) -> Tensor:
    dropout = learner.dropout if learner.training else 0.0
    read = F.dropout(learner.attention(x, x, dropout), learner.dropout, learner.training)
    return learner.norm(x + read)


def _paired(ahead: Tensor, rows: Tensor) -> Tensor:
    return torch.cat([ahead, rows.expand(len(ahead), -1, -1)], dim=-1)
