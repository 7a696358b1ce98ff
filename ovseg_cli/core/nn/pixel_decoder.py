"""How backbone maps become a pyramid for the queries and one fine map for the masks: deformable encoder and FPN step.

Key names are those of the published checkpoints: `input_proj`, `transformer`, `adapter_1`, `layer_1`, `mask_features`.

Source: Cheng et al., "Masked-attention Mask Transformer", CVPR 2022, as FreeSeg uses it: the encoder's FFN is 1024 wide
whatever the configuration says, its dropout 0.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.nn.deformable_attention import DeformableAttention, Size
from ovseg_cli.core.nn.positions import sine_positions
from ovseg_cli.core.nn.resnet import NormedConv


@dataclass(frozen=True)
class Pyramid:
    """What the pixel decoder returns.

    Attributes:
        levels: Three maps (B, C, h, w), coarse to fine: strides 32, 16, 8.
        mask_features: (B, E, H/4, W/4).
    """

    levels: list[Tensor]
    mask_features: Tensor


class EncoderLayer(nn.Module):
    """Deformable self-attention and a ReLU FFN, each followed by its LayerNorm."""

    def __init__(self, width: int, ffn: int, dropout: float, heads: int, points: int):
        super().__init__()
        self.self_attn = DeformableAttention(width, 3, heads, points)
        self.dropout1 = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, ffn)
        self.dropout2 = nn.Dropout(dropout)
        self.linear2 = nn.Linear(ffn, width)
        self.dropout3 = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(width)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, tokens: Tensor, positions: Tensor, places: Tensor, sizes: list[Size]) -> Tensor:
        """Return (B, S, C); `positions` (S, C) are added to the queries, `places` (S, 2) say where each lies."""
        mixed = self.self_attn(tokens + positions, places, tokens, sizes)
        tokens = self.norm1(tokens + self.dropout1(mixed))
        hidden = self.linear2(self.dropout2(F.relu(self.linear1(tokens))))
        return self.norm2(tokens + self.dropout3(hidden))


class EncoderStack(nn.Module):
    """Encoder layers; keys `layers.N.*`."""

    def __init__(self, width: int, layers: int, ffn: int, dropout: float, heads: int, points: int):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, ffn, dropout, heads, points) for _ in range(layers))

    def forward(self, tokens: Tensor, positions: Tensor, places: Tensor, sizes: list[Size]) -> Tensor:
        """Return (B, S, C)."""
        for layer in self.layers:
            tokens = layer(tokens, positions, places, sizes)
        return tokens


class DeformableEncoder(nn.Module):
    """The levels of a pyramid read each other.

    Attributes:
        level_embed: (3, C), added to each level's positions.
    """

    def __init__(self, width: int, layers: int, ffn: int, dropout: float, heads: int, points: int):
        super().__init__()
        self.level_embed = nn.Parameter(torch.randn(3, width))
        self.encoder = EncoderStack(width, layers, ffn, dropout, heads, points)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return maps of the same sizes, (B, C, h, w) each; the first is the coarsest."""
        sizes = [(int(m.shape[2]), int(m.shape[3])) for m in maps]
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        waves = [sine_positions(size, maps[0].shape[1], maps[0]).flatten(1).T for size in sizes]
        positions = torch.cat([w + self.level_embed[i] for i, w in enumerate(waves)])
        places = torch.cat([cell_centres(size, maps[0]) for size in sizes])
        tokens = self.encoder(tokens, positions, places, sizes)
        parts = tokens.transpose(1, 2).split([h * w for h, w in sizes], dim=2)
        return [part.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]


class PixelDecoder(nn.Module):
    """Projections of res3 to res5, deformable encoder, one FPN step to stride 4.

    Args:
        channels: Channels of res2 to res5 by name.
        width: C of the levels.
        mask_width: E of the mask features.
        layers, ffn, heads, points, dropout: Of the encoder.
        groups: Of the group norms.
    """

    def __init__(
        self,
        channels: dict[str, int],
        width: int = 256,
        mask_width: int = 256,
        layers: int = 6,
        ffn: int = 1024,
        heads: int = 8,
        points: int = 4,
        dropout: float = 0.1,
        groups: int = 32,
    ):
        super().__init__()
        self.input_proj = nn.ModuleList(
            nn.Sequential(_projection(channels[name], width), nn.GroupNorm(groups, width))
            for name in ("res5", "res4", "res3")
        )
        self.transformer = DeformableEncoder(width, layers, ffn, dropout, heads, points)
        self.adapter_1 = NormedConv(channels["res2"], width, 1, nn.GroupNorm(groups, width))
        self.layer_1 = NormedConv(width, width, 3, nn.GroupNorm(groups, width))
        self.mask_features = nn.Conv2d(width, mask_width, 1)
        self._initialise()

    def _initialise(self) -> None:
        for conv in (self.adapter_1, self.layer_1, self.mask_features):
            nn.init.kaiming_uniform_(conv.weight, a=1)
        if self.mask_features.bias is not None:
            nn.init.zeros_(self.mask_features.bias)

    def forward(self, maps: dict[str, Tensor]) -> Pyramid:
        """Return the pyramid of backbone maps res2 to res5."""
        names = ("res5", "res4", "res3")
        levels = self.transformer([proj(maps[name]) for proj, name in zip(self.input_proj, names, strict=True)])
        lateral = self.adapter_1(maps["res2"])
        top = F.interpolate(levels[-1], lateral.shape[-2:], mode="bilinear", align_corners=False)
        return Pyramid(levels, self.mask_features(F.relu(self.layer_1(lateral + top))))


def _projection(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 1)
    nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def cell_centres(size: Size, like: Tensor) -> Tensor:
    """Return (h · w, 2): x and y of each cell's centre, 0 to 1 over the map, row-major."""
    y, x = ((torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / n for n in size)
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)
