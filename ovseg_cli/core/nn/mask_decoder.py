"""How queries become masks and embeddings: Mask2Former's decoder, whose queries look only inside their last mask.

Key names are those of the published checkpoints (`transformer_cross_attention_layers.N.multihead_attn`, ...).

Source: Cheng et al., "Masked-attention Mask Transformer", CVPR 2022, section 3.2. FreeSeg runs *ten* layers where the
configuration "DEC_LAYERS = 10" meant nine (its subclass forgets a "- 1"); the number of layers is explicit here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.nn.generator_output import GeneratorOutput
from ovseg_cli.core.nn.pixel_decoder import Pyramid
from ovseg_cli.core.nn.positions import sine_positions


class CrossAttention(nn.Module):
    """Queries read a map inside their masks; post-norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, where: Tensor, memory: Tensor, positions: Tensor, blocked: Tensor) -> Tensor:
        """Return (B, Q, C) of queries, memory (B, L, C) and `blocked` (B, Q, L), True where a query may not look."""
        heads = self.multihead_attn.num_heads
        mask = blocked[:, None].expand(-1, heads, -1, -1).flatten(0, 1)
        mixed, _ = self.multihead_attn(queries + where, memory + positions, memory, attn_mask=mask, need_weights=False)
        return self.norm(queries + mixed)


class SelfAttention(nn.Module):
    """Queries read each other; post-norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, where: Tensor) -> Tensor:
        """Return (B, Q, C)."""
        placed = queries + where
        mixed, _ = self.self_attn(placed, placed, queries, need_weights=False)
        return self.norm(queries + mixed)


class FeedForward(nn.Module):
    """ReLU MLP; post-norm."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor) -> Tensor:
        """Return (B, Q, C)."""
        return self.norm(queries + self.linear2(F.relu(self.linear1(queries))))


class Mlp(nn.Module):
    """Linear layers with ReLU between them; keys `layers.N`."""

    def __init__(self, widths: list[int]):
        super().__init__()
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class MaskDecoder(nn.Module):
    """Cross-attention inside masks, self-attention, FFN, again and again; the levels take turns, coarse to fine.

    Args:
        width: C of queries and levels.
        mask_width: E of the mask features.
        embed_width: D of the class embeddings.
        embed_hidden: Hidden width of the class head (2 layers).
        queries: Q.
        layers: Decoder layers.
        heads: Of all attentions.
        ffn: Hidden width of the FFN.
    """

    def __init__(
        self,
        width: int = 256,
        mask_width: int = 256,
        embed_width: int = 512,
        embed_hidden: int = 1024,
        queries: int = 100,
        layers: int = 10,
        heads: int = 8,
        ffn: int = 2048,
    ):
        super().__init__()
        self.query_feat = nn.Embedding(queries, width)
        self.query_embed = nn.Embedding(queries, width)
        self.level_embed = nn.Embedding(3, width)
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttention(width, heads) for _ in range(layers))
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttention(width, heads) for _ in range(layers))
        self.transformer_ffn_layers = nn.ModuleList(FeedForward(width, ffn) for _ in range(layers))
        for part in (
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
        ):
            for parameter in part.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)
        self.decoder_norm = nn.LayerNorm(width)
        self.class_embed = Mlp([width, embed_hidden, embed_width])
        self.mask_embed = Mlp([width, width, width, mask_width])

    def forward(self, pyramid: Pyramid) -> GeneratorOutput:
        """Return the predictions of the last layer, and as `aux` those of the bare queries and all earlier layers."""
        memory = [m.flatten(2).transpose(1, 2) + self.level_embed.weight[i] for i, m in enumerate(pyramid.levels)]
        waves = [sine_positions(_size(m), m.shape[1], m).flatten(1).T for m in pyramid.levels]
        queries, where = (e.weight.expand(len(memory[0]), -1, -1) for e in (self.query_feat, self.query_embed))
        found = [self._predict(queries, pyramid.mask_features)]
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for i, (cross, own, ffn) in enumerate(layers):
            level = i % 3
            blocked = outside(found[-1][1], _size(pyramid.levels[level]))
            queries = ffn(own(cross(queries, where, memory[level], waves[level], blocked), where))
            found.append(self._predict(queries, pyramid.mask_features))
        return GeneratorOutput(*found[-1], found[:-1])

    def _predict(self, queries: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, Q, D) and mask logits (B, Q, h, w)."""
        queries = self.decoder_norm(queries)
        masks = torch.einsum("bqe,behw->bqhw", self.mask_embed(queries), mask_features)
        return self.class_embed(queries), masks


@torch.no_grad()
def outside(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Say which cells a query may not look at: where its mask, brought to the level, is below one half.

    Args:
        mask_logits: (B, Q, h, w).
        size: (h', w') of the level.

    Returns:
        (B, Q, h' · w') bool; a query without any cell may look everywhere.
    """
    small = F.interpolate(mask_logits, size, mode="bilinear", align_corners=False).flatten(2)
    blocked = small.sigmoid() < 0.5
    return blocked & ~blocked.all(dim=-1, keepdim=True)


def _size(level: Tensor) -> tuple[int, int]:
    return int(level.shape[2]), int(level.shape[3])
