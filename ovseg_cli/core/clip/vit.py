"""The steps of a plain ViT image tower one by one, for methods that read or change its blocks.

`embed` (patches, class token, positions), `run_blocks`, `last_block` (what a training-free method changes), `project`.
What a method changes is a `LastBlock`: which similarities weigh the values, which residual is added, whether the MLP
runs. With z the tokens that enter the block, y = ln_1(z), q, k, v the heads of y:

    u = residual(z) + W_out · attention(q, k, v) + b_out;   u = u + MLP(ln_2(u)) if mlp
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int]


class Attention(Protocol):
    """Mixes values: heads q, k, v (B, heads, 1 + h·w, d), class token first, and the grid (h, w).

    Returns mixed values of the same layout and their grid, which may be another one (ProxyCLIP).
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Mix the values."""


@dataclass(frozen=True)
class Similarities:
    """Attention from chosen pairs of projections: softmax(s · a bᵀ + bias) for each pair, summed, times v.

    Attributes:
        pairs: For instance ("qk",) for plain CLIP, ("qq",), ("kk",), or ("qq", "kk") whose two maps are added, so that
            the weights of a token sum to 2.
        bias: From a grid (h, w) to (1 + h·w, 1 + h·w), added before the softmax; None adds nothing.
    """

    pairs: tuple[str, ...] = ("qk",)
    bias: Callable[[Grid], Tensor] | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Mix the values."""
        heads = {"q": q, "k": k, "v": v}
        bias = None if self.bias is None else self.bias(grid).to(q)
        maps = [
            F.scaled_dot_product_attention(heads[a], heads[b], v, attn_mask=bias) for a, b in map(tuple, self.pairs)
        ]
        return torch.stack(maps).sum(0) if len(maps) > 1 else maps[0], grid


def own_value(q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """Identity attention: each token keeps its own value."""
    return v, grid


@dataclass(frozen=True)
class LastBlock:
    """What the last block does.

    Attributes:
        attention: How values are mixed: `Similarities(...)`, `own_value`, or a method's own function.
        residual: What the attention's output is added to: each token's own input, the class token's, or nothing.
        mlp: Whether the block's MLP (with its own residual) runs.
    """

    attention: Attention = Similarities()
    residual: Literal["own", "class", "none"] = "own"
    mlp: bool = True


def embed(visual: Any, images: Tensor, position: str) -> tuple[Tensor, Grid]:
    """Return the tokens that enter the first block, (B, 1 + h·w, C) with the class token first, and the grid (h, w)."""
    patches = visual.conv1(images)
    grid = (int(patches.shape[2]), int(patches.shape[3]))
    class_token = visual.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
    tokens = torch.cat([class_token, patches.flatten(2).transpose(1, 2)], dim=1)
    table = resize_positions(visual.positional_embedding, tuple(visual.grid_size), grid, position)
    return visual.ln_pre(tokens + table.to(tokens.dtype)), grid


def resize_positions(table: Tensor, trained: Grid, grid: Grid, rule: str) -> Tensor:
    """Resize the patch part of a position table to another grid; the class position stays.

    Args:
        table: (1 + h₀·w₀, C), class position first.
        trained: (h₀, w₀).
        grid: (h, w), square or not.
        rule: "explicit" interpolates to the target size (PixelCLIP); "scale-factor" passes (h + 0.1) / h₀ as scale, as
            DINO's code does and SCLIP, ClearCLIP, NACLIP and ProxyCLIP copy: the sampled places differ a little;
            "align-corners" puts corner on corner (MAFT).

    Returns:
        (1 + h·w, C). All rules are bicubic and change nothing on the trained grid; the first two do not align corners.
    """
    if grid == trained:
        return table
    maps = table[1:].unflatten(0, trained).permute(2, 0, 1)[None]
    if rule == "explicit":
        maps = F.interpolate(maps, grid, mode="bicubic", align_corners=False)
    elif rule == "align-corners":
        maps = F.interpolate(maps, grid, mode="bicubic", align_corners=True)
    else:
        scale = ((grid[0] + 0.1) / trained[0], (grid[1] + 0.1) / trained[1])
        maps = F.interpolate(maps, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([table[:1], maps[0].flatten(1).T])


def run_blocks(visual: Any, tokens: Tensor, start: int, stop: int) -> Tensor:
    """Run blocks start to stop - 1 on (B, L, C) tokens, with fused attention."""
    for block in visual.transformer.resblocks[start:stop]:
        q, k, v = split_heads(block, tokens)
        mixed = F.scaled_dot_product_attention(q, k, v)
        tokens = tokens + block.ls_1(merge_heads(block, mixed))
        tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return tokens


def last_block(block: Any, tokens: Tensor, grid: Grid, how: LastBlock) -> tuple[Tensor, Grid]:
    """Run one block with changed attention; returns tokens and their grid."""
    mixed, new_grid = how.attention(*split_heads(block, tokens), grid)
    out = block.ls_1(merge_heads(block, mixed))
    if how.residual != "none":
        out = out + (tokens if how.residual == "own" else tokens[:, :1])
    if how.mlp:
        out = out + block.ls_2(block.mlp(block.ln_2(out)))
    return out, new_grid


def split_heads(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k, v, each (B, heads, L, d), of (B, L, C) tokens after the block's first LayerNorm."""
    attn = block.attn
    qkv = F.linear(block.ln_1(tokens), attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def merge_heads(block: Any, mixed: Tensor) -> Tensor:
    """Return (B, L, C) from (B, heads, L, d): heads side by side, then the output projection."""
    return block.attn.out_proj(mixed.transpose(1, 2).flatten(2))


def project(visual: Any, tokens: Tensor) -> Tensor:
    """Bring tokens into the space of the text: last LayerNorm and projection."""
    tokens = visual.ln_post(tokens)
    return tokens if visual.proj is None else tokens @ visual.proj
