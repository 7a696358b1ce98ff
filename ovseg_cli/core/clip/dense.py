"""How a CLIP image tower gives one feature for each patch instead of one for the picture.

For a ViT the steps are `embed` (patches, class token, positions), `run_blocks`, `last_block` (what a training-free
method changes) and `project`; methods that need access to the blocks call them one by one. A ConvNeXt skips its
pooling.

What a method changes is a `LastBlock`: which similarities weigh the values, which residual is added, whether the MLP
runs. With z the tokens that enter the block, y = ln_1(z), q, k, v the heads of y:

    u = residual(z) + W_out · attention(q, k, v) + b_out;   u = u + MLP(ln_2(u)) if mlp
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.errors import UsageError, unknown_name

Grid = tuple[int, int]
PositionRule = Literal["explicit", "scale-factor"]
POSITION_RULES = ("explicit", "scale-factor")


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


PATHS: dict[str, LastBlock] = {
    # CLIP as it is.
    "raw": LastBlock(),
    # MaskCLIP (Zhou et al., ECCV 2022). Its released config runs exact GELU and LayerNorm eps 1e-6 on OpenAI's
    # weights; here the activation and eps are those that the weights were trained with.
    "value": LastBlock(own_value),
    # MaskCLIP as CAT-Seg and PixelCLIP write it: only the class token's residual.
    "value-cls": LastBlock(own_value, residual="class"),
    # MaskCLIP as in the repository of ClearCLIP: the attention's output alone.
    "value-only": LastBlock(own_value, residual="none", mlp=False),
}


@dataclass(frozen=True)
class Tower:
    """Kind of an image tower and pixels between two dense features."""

    kind: Literal["vit", "convnext", "other"]
    stride: int


def tower_of(visual: Any) -> Tower:
    """Tell which kind of tower this is; "other" has no dense features."""
    if hasattr(visual, "conv1") and hasattr(visual, "transformer"):
        patch = visual.conv1.kernel_size
        plain = all(isinstance(b.attn, nn.MultiheadAttention) for b in visual.transformer.resblocks)
        is_vit = plain and patch[0] == patch[1] and visual.attn_pool is None
        return Tower("vit" if is_vit else "other", int(patch[0]))
    trunk = getattr(visual, "trunk", None)
    if trunk is not None and hasattr(trunk, "stages") and hasattr(getattr(trunk, "head", None), "norm"):
        return Tower("convnext", int(trunk.feature_info[-1]["reduction"]))
    return Tower("other", 1)


def dense_features(visual: nn.Module, images: Tensor, block: LastBlock, position: str = "explicit") -> Tensor:
    """Return one feature for each patch.

    Args:
        visual: Image tower of an open_clip model.
        images: (B, 3, H, W), normalised. A side that is no multiple of the patch is first shrunk, bilinearly, to the
            next lower one, so that the grid covers the whole picture (the patch convolution would cut the rest off).
        block: What the last block of a ViT does. A ConvNeXt has no attention: only "raw" is possible.
        position: How a ViT's position table is resized; a ConvNeXt has none.

    Returns:
        (B, h, w, D), not normalised; h, w = H, W over the patch, rounded down, at least 1.

    Raises:
        UsageError: The tower has no dense features, or no such path; unknown position rule.
    """
    if position not in POSITION_RULES:
        raise unknown_name("position rule", position, POSITION_RULES)
    tower = tower_of(visual)
    images = fit_patches(images, tower.stride)
    if tower.kind == "vit":
        return _dense_vit(visual, images, block, position)
    if tower.kind == "convnext" and block == PATHS["raw"]:
        return _dense_convnext(visual, images)
    if tower.kind == "convnext":
        raise UsageError(
            "this CLIP has a ConvNeXt image tower, which has no attention that could be changed.",
            "Use the method 'clip', or a CLIP with a ViT such as --clip ViT-B-16.",
        )
    raise UsageError(
        f"the image tower of this CLIP ({type(visual).__name__}) gives no dense features.",
        "Choose a CLIP with a plain ViT or a ConvNeXt, such as --clip ViT-B-16.",
    )


def pooled_features(visual: Any, images: Tensor, position: str = "explicit") -> Tensor:
    """Return (B, D) features of whole pictures from a plain ViT at any size: its class token, or its tokens' mean."""
    tokens, _ = embed(visual, fit_patches(images, tower_of(visual).stride), position)
    tokens = run_blocks(visual, tokens, 0, len(visual.transformer.resblocks))
    pooled, _ = visual._pool(tokens)
    return pooled if visual.proj is None else pooled @ visual.proj


def fit_patches(images: Tensor, patch: int) -> Tensor:
    """Shrink the sides of (B, 3, H, W) to multiples of the patch, at least one patch."""
    height, width = (max(patch, side // patch * patch) for side in images.shape[-2:])
    if (height, width) == tuple(images.shape[-2:]):
        return images
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)


def _dense_convnext(visual: Any, images: Tensor) -> Tensor:
    """All but the global pooling: trunk, its last LayerNorm, projection (pixelclip: CLIP without global pool)."""
    maps = visual.trunk.head.norm(visual.trunk.forward_features(images))
    return visual.head(maps.permute(0, 2, 3, 1))


def _dense_vit(visual: Any, images: Tensor, block: LastBlock, position: str) -> Tensor:
    tokens, grid = embed(visual, images, position)
    tokens = run_blocks(visual, tokens, 0, len(visual.transformer.resblocks) - 1)
    tokens, grid = last_block(visual.transformer.resblocks[-1], tokens, grid, block)
    patches = project(visual, tokens[:, 1:])
    return patches.unflatten(1, grid)


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
            DINO's code does and SCLIP, ClearCLIP, NACLIP and ProxyCLIP copy: the sampled places differ a little.

    Returns:
        (1 + h·w, C). Both rules are bicubic, align_corners=False, and change nothing on the trained grid.
    """
    if grid == trained:
        return table
    maps = table[1:].unflatten(0, trained).permute(2, 0, 1)[None]
    if rule == "explicit":
        maps = F.interpolate(maps, grid, mode="bicubic", align_corners=False)
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
