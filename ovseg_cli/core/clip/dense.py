"""How a CLIP image tower gives one feature for each patch instead of one for the picture.

A ViT runs its last block as a `LastBlock` says (vit.py); a ConvNeXt skips its pooling.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.clip.vit import LastBlock, embed, last_block, own_value, project, run_blocks
from ovseg_cli.core.errors import UsageError, unknown_name

PositionRule = Literal["explicit", "scale-factor", "align-corners"]
POSITION_RULES = ("explicit", "scale-factor", "align-corners")

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
    return project_tokens(visual, dense_tokens(visual, images, block, position))


def dense_tokens(visual: Any, images: Tensor, block: LastBlock, position: str = "explicit") -> Tensor:
    """Return one token for each patch, as the tower has it before its last LayerNorm and its projection.

    Args:
        visual: As in `dense_features`, and so are the others.
        images: (B, 3, H, W), normalised.
        block: What the last block of a ViT does.
        position: How a ViT's position table is resized.

    Returns:
        (B, h, w, C), C the tower's own width.

    Raises:
        UsageError: As `dense_features`.
    """
    if position not in POSITION_RULES:
        raise unknown_name("position rule", position, POSITION_RULES)
    check_tower(visual, attention=block != PATHS["raw"])
    tower = tower_of(visual)
    images = fit_patches(images, tower.stride)
    if tower.kind == "convnext":
        return visual.trunk.forward_features(images).permute(0, 2, 3, 1)
    return _vit_tokens(visual, images, block, position)


def project_tokens(visual: Any, tokens: Tensor) -> Tensor:
    """Bring tokens (..., C), or means of tokens, into the space of the text: last LayerNorm, projection, (..., D).

    A ConvNeXt's tokens are projected without its global pooling (PixelCLIP: CLIP without global pool).
    """
    if tower_of(visual).kind == "vit":
        return project(visual, tokens)
    maps = tokens.flatten(0, -2)[:, :, None, None]
    return visual.head(visual.trunk.head.norm(maps).flatten(1)).unflatten(0, tokens.shape[:-1])


def check_tower(visual: nn.Module, attention: bool) -> None:
    """Refuse a tower without dense features, or without the attention that a method changes.

    Args:
        visual: Image tower of an open_clip model.
        attention: The method changes the last block's attention.

    Raises:
        UsageError: It is refused.
    """
    kind = tower_of(visual).kind
    if kind == "other":
        raise UsageError(
            f"the image tower of this CLIP ({type(visual).__name__}) gives no dense features.",
            "Choose a CLIP with a plain ViT or a ConvNeXt, such as --clip ViT-B-16.",
        )
    if kind == "convnext" and attention:
        raise UsageError(
            "this CLIP has a ConvNeXt image tower, which has no attention that could be changed.",
            "Use the method 'clip', or a CLIP with a ViT such as --clip ViT-B-16.",
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


def _vit_tokens(visual: Any, images: Tensor, block: LastBlock, position: str) -> Tensor:
    tokens, grid = embed(visual, images, position)
    tokens = run_blocks(visual, tokens, 0, len(visual.transformer.resblocks) - 1)
    tokens, grid = last_block(visual.transformer.resblocks[-1], tokens, grid, block)
    return tokens[:, 1:].unflatten(1, grid)
