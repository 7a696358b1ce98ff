"""How queries become masks and embeddings: the plain DETR decoder that MaskFormer reads the coarsest map with.

Key names are those of the published checkpoints: `transformer.decoder.layers.N.*`, `query_embed`, `input_proj`,
`mask_embed`, and for the class head `class_embed` (ZSSeg, two layers) or `projection_layer` (ZegFormer, one).

Source: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020; Cheng et al., "Per-Pixel
Classification is Not All You Need", NeurIPS 2021; code, `TransformerPredictor`. No encoder layers, post-norm.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.nn.generator_output import GeneratorOutput
from ovseg_cli.core.nn.mask_decoder import Mlp
from ovseg_cli.core.nn.positions import sine_positions


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and a ReLU FFN, each followed by its LayerNorm.

    Positions are added to queries and keys, never to values.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, where: Tensor, memory: Tensor, keys: Tensor) -> Tensor:
        """Return (B, Q, C).

        Args:
            queries: (B, Q, C).
            where: (B, Q, C), the queries' own positions.
            memory: (B, L, C), values of the cross-attention.
            keys: (B, L, C), memory with positions.
        """
        placed = queries + where
        mixed, _ = self.self_attn(placed, placed, queries, need_weights=False)
        queries = self.norm1(queries + self.dropout(mixed))
        mixed, _ = self.multihead_attn(queries + where, keys, memory, need_weights=False)
        queries = self.norm2(queries + self.dropout(mixed))
        hidden = self.linear2(self.dropout(F.relu(self.linear1(queries))))
        return self.norm3(queries + self.dropout(hidden))


class LayerStack(nn.Module):
    """Layers one after the other, and the LayerNorm through which each one's queries are read."""

    def __init__(self, layers: int, width: int, heads: int, ffn: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, ffn, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, where: Tensor, memory: Tensor, keys: Tensor) -> list[Tensor]:
        """Return the queries (B, Q, C) after each layer, normalised; they start from zeros."""
        queries, found = torch.zeros_like(where), []
        for layer in self.layers:
            queries = layer(queries, where, memory, keys)
            found.append(self.norm(queries))
        return found


class DetrDecoder(nn.Module):
    """Queries read one map, layer after layer; each layer's queries are turned into masks and embeddings.

    Args:
        inputs: Channels of the map.
        width: C of the queries.
        mask_width: E of the mask features.
        embed_width: D of the class embeddings.
        embed_hidden: Hidden width of the class head; 0 is a single linear layer.
        queries: Q.
        layers: Decoder layers.
        heads: Of all attentions.
        ffn: Hidden width of the FFN.
        dropout: In attention, FFN and before each residual sum.
    """

    def __init__(
        self,
        inputs: int,
        width: int = 256,
        mask_width: int = 256,
        embed_width: int = 512,
        embed_hidden: int = 1024,
        queries: int = 100,
        layers: int = 6,
        heads: int = 8,
        ffn: int = 2048,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.transformer = nn.ModuleDict({"decoder": LayerStack(layers, width, heads, ffn, dropout)})
        self.query_embed = nn.Embedding(queries, width)
        self.input_proj = nn.Identity() if inputs == width else nn.Conv2d(inputs, width, 1)
        self.mask_embed = Mlp([width, width, width, mask_width])
        if embed_hidden:
            self.class_embed = Mlp([width, embed_hidden, embed_width])
        else:
            self.projection_layer = nn.Linear(width, embed_width)
        self._initialise()

    def _initialise(self) -> None:
        for parameter in self.transformer.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        if isinstance(self.input_proj, nn.Conv2d):
            nn.init.kaiming_uniform_(self.input_proj.weight, a=1)
            nn.init.zeros_(self.input_proj.bias)  # type: ignore[arg-type]

    def forward(self, coarse: Tensor, mask_features: Tensor) -> GeneratorOutput:
        """Return the predictions of the last layer, and as `aux` those of all earlier ones.

        Args:
            coarse: (B, inputs, h, w), the map that the queries read.
            mask_features: (B, E, H/4, W/4).
        """
        projected = self.input_proj(coarse)
        waves = sine_positions((int(coarse.shape[2]), int(coarse.shape[3])), projected.shape[1], projected)
        memory, keys = (m.flatten(2).transpose(1, 2) for m in (projected, projected + waves))
        where = self.query_embed.weight.expand(len(coarse), -1, -1)
        stack = self.transformer["decoder"](where, memory, keys)
        found = [self._predict(queries, mask_features) for queries in stack]
        return GeneratorOutput(*found[-1], found[:-1])

    def _predict(self, queries: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, Q, D) and mask logits (B, Q, h, w) of normalised queries."""
        masks = torch.einsum("bqe,behw->bqhw", self.mask_embed(queries), mask_features)
        head = self.class_embed if hasattr(self, "class_embed") else self.projection_layer
        return head(queries), masks
