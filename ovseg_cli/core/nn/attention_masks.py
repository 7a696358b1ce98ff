"""From class queries and patch features to one mask a class: attention to mask, ZegCLIP's decoder.

A query attends to the patches; its scores before the softmax, averaged over the heads, are its mask (Zhang et al.,
SegViT, NeurIPS 2022). Queries go through all layers, post-norm; only the last layer's mask is read.

Published quirks: patches enter as they are (no projection, no norm, no position); a layer of ZegCLIP holds a
self-attention that it never calls; of the last layer nothing but the products of queries and keys has any effect, since
no loss is put on earlier masks. What has no effect is not built here: official checkpoints hold it, `ovseg convert`
names it.

The mean over H heads of the scaled scores is one product of the whole vectors: Σ_h q_h · k_h / (H √(d/H)).
"""

import math
from copy import deepcopy
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F


class CrossAttention(nn.Module):
    """Projections of queries, keys and, unless only masks are asked for, values; names as in official checkpoints."""

    def __init__(self, dim: int, heads: int, only_masks: bool = False):
        super().__init__()
        self.heads = heads
        self.q, self.k = nn.Linear(dim, dim), nn.Linear(dim, dim)
        if not only_masks:
            self.v, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def masks(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Return mask logits (B, C, n) of (B, C, d) queries and (B, n, d) memory."""
        dim = queries.shape[-1]
        scale = 1.0 / (self.heads * math.sqrt(dim / self.heads))
        return (self.q(queries) * scale) @ self.k(memory).transpose(1, 2)

    def forward(self, queries: Tensor, memory: Tensor, dropout: float = 0.0) -> Tensor:
        """Return (B, C, d), what the queries read from the memory."""
        q, k, v = (self._split(f(x)) for f, x in ((self.q, queries), (self.k, memory), (self.v, memory)))
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MaskLayer(nn.Module):
    """One layer: self-attention where asked for, cross-attention, feed-forward; each with dropout, shortcut and norm.

    Args:
        dim: d.
        heads: Of all attentions.
        ffn: Width of the feed-forward part.
        dropout: In training.
        self_attention: Queries attend to each other first (TagCLIP's layer 0).
        only_masks: The last layer, which gives masks and no queries.
    """

    def __init__(self, dim: int, heads: int, ffn: int, dropout: float, self_attention: bool, only_masks: bool):
        super().__init__()
        self.dropout, self.only_masks = dropout, only_masks
        self.multihead_attn = CrossAttention(dim, heads, only_masks)
        self.self_attn = None
        if self_attention:
            self.self_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
            self.norm1 = nn.LayerNorm(dim)
        if not only_masks:
            self.linear1, self.linear2 = nn.Linear(dim, ffn), nn.Linear(ffn, dim)
            self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def masks(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Return this layer's mask logits (B, C, n) for the queries that enter it."""
        return self.multihead_attn.masks(self.mixed(queries), memory)

    def mixed(self, queries: Tensor) -> Tensor:
        """Return the queries after their self-attention, where there is one."""
        if self.self_attn is None:
            return queries
        return self.norm1(queries + self._drop(self.self_attn(queries, queries, queries, need_weights=False)[0]))

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Return the queries (B, C, d) that leave this layer."""
        queries = self.mixed(queries)
        read = self.multihead_attn(queries, memory, self.dropout if self.training else 0.0)
        queries = self.norm2(queries + self._drop(read))
        return self.norm3(queries + self._drop(self.linear2(self._drop(F.relu(self.linear1(queries))))))

    def _drop(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.dropout, self.training)


class MaskDecoder(nn.Module):
    """Layers in a row on the same memory; the last one gives the masks.

    Args:
        dim: d, of queries and memory.
        layers: How many, at least 1.
        heads: Of all attentions; divides d.
        ffn: Width of the feed-forward part.
        dropout: In training.
        self_attention: The queries attend to each other in layer 0, so that a class's mask depends on the others.
        init: "copies": torch's own, the same in every layer (ZegCLIP); "xavier": uniform, each layer its own (TagCLIP).
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        ffn: int,
        dropout: float,
        self_attention: bool = False,
        init: Literal["copies", "xavier"] = "copies",
    ):
        super().__init__()
        plain = MaskLayer(dim, heads, ffn, dropout, False, False)
        made = []
        for i in range(layers):
            layer = MaskLayer(dim, heads, ffn, dropout, self_attention and i == 0, i == layers - 1)
            layer.load_state_dict(deepcopy(plain.state_dict()) | _own(layer, plain), strict=not layer.only_masks)
            made.append(layer)
        self.layers = nn.ModuleList(made)
        if init == "xavier":
            xavier(self)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Return mask logits (B, C, n) of queries (B, C, d) on memory (B, n, d)."""
        *layers, last = cast(list[MaskLayer], list(self.layers))
        for layer in layers:
            queries = layer(queries, memory)
        return last.masks(queries, memory)


def _own(layer: MaskLayer, plain: MaskLayer) -> dict[str, Tensor]:
    known = plain.state_dict().keys()
    return {name: value for name, value in layer.state_dict().items() if name not in known}


def xavier(module: nn.Module) -> None:
    """Draw every matrix of a module anew, Xavier-uniform, as TagCLIP's head does."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
