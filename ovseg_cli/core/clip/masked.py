"""How a plain CLIP ViT embeds mask proposals: class tokens that see only the patches inside their mask (IP-CLIP).

From block S (the start layer) on, the class token is replaced by N copies, one a proposal. A copy attends to itself and
to the patches inside its mask; patches attend to patches only. No parameter is added. Since patches never read a
proposal, their stream is a plain ViT and the proposals are merely further queries of its blocks:

    patches    ← block(patches)
    proposal_i ← softmax([q_i·k_i, q_i·K_patches + bias_i]) [v_i; V_patches], then output projection and MLP

so that no attention map over both is ever built, and any N works. The steps are separate, because a training step runs
blocks 0 to S - 1 once for the pass with masks and the pass without: `run_prefix`, then `masked_from`, `unmasked_from`.

Source: Jiao et al., "Learning Mask-aware CLIP Representations for Zero-Shot Segmentation", NeurIPS 2023. Its code
builds the one long sequence, accepts N = 1 and 100 only, square grids only, and ignores its own start-layer setting.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip.dense import tower_of
from ovseg_cli.core.clip.vit import Grid, embed, merge_heads, project, run_blocks, split_heads
from ovseg_cli.core.errors import ShapeError, UsageError

POSITION = "align-corners"
"""Rule of the paper's code for the position table (vit.resize_positions)."""


@dataclass(frozen=True)
class Prefix:
    """What blocks 0 to S - 1 make of pictures.

    Attributes:
        tokens: (B, 1 + h·w, C), class token first.
        grid: (h, w).
        start_layer: S.
    """

    tokens: Tensor
    grid: Grid
    start_layer: int


def check_start_layer(visual: Any, start_layer: int) -> None:
    """Refuse a tower without class token and plain blocks, or a start layer that it does not have.

    Raises:
        UsageError: It is refused.
    """
    if tower_of(visual).kind != "vit" or visual.pool_type != "tok":
        raise UsageError(
            f"masks enter CLIP through the class token of a plain ViT; this tower ({type(visual).__name__}) has none.",
            "Choose a CLIP such as --clip ViT-B-16.",
        )
    depth = len(visual.transformer.resblocks)
    if not 0 <= start_layer < depth:
        raise UsageError(
            f"start layer {start_layer}: this CLIP has {depth} blocks.", f"Choose a block from 0 to {depth - 1}."
        )


def run_prefix(visual: Any, images: Tensor, start_layer: int, position: str = POSITION) -> Prefix:
    """Run the blocks that no mask changes.

    Args:
        visual: open_clip's VisionTransformer.
        images: (B, 3, H, W), normalised. Pixels beyond the last whole patch are left out, as in the paper's code.
        start_layer: S, the first block in which masks hold.
        position: How the position table is resized (vit.resize_positions).

    Raises:
        UsageError: The tower is no plain ViT, or has no block S.
    """
    check_start_layer(visual, start_layer)
    tokens, grid = embed(visual, images, position)
    return continue_prefix(visual, tokens, grid, start_layer)


def continue_prefix(visual: Any, tokens: Tensor, grid: Grid, start_layer: int) -> Prefix:
    """`run_prefix` of tokens that `vit.embed` made: two towers with the same embedding share it."""
    return Prefix(run_blocks(visual, tokens, 0, start_layer), grid, start_layer)


def kept_patches(masks: Tensor, grid: Grid, threshold: float = 0.5, keep_best: bool = False) -> Tensor:
    """Say which patches a proposal sees.

    Args:
        masks: (..., h', w') probabilities or bool, of any size; they cover the same canvas as the grid.
        grid: (h, w).
        threshold: A patch is kept where the resized mask is at least this.
        keep_best: A mask that has pixels but keeps no patch keeps the one that it covers most.

    Returns:
        (..., h, w) bool. Masks are resized bilinearly, corners not aligned, without anti-aliasing.

    Raises:
        ShapeError: Masks are neither probabilities nor bool.
    """
    if masks.dtype != torch.bool and not masks.is_floating_point():
        raise ShapeError(f"masks {tuple(masks.shape)} are {masks.dtype}; pass probabilities between 0 and 1, or bool")
    flat = masks.detach().reshape(-1, 1, *masks.shape[-2:])
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    if not len(flat):
        return torch.zeros(*masks.shape[:-2], *grid, dtype=torch.bool, device=masks.device)
    kept = F.interpolate(flat, grid, mode="bilinear", align_corners=False).flatten(1) >= threshold
    if keep_best:
        share = F.adaptive_avg_pool2d(flat, grid).flatten(1)  # (n, h·w); point samples would miss what lies between
        lost = ~kept.any(1) & (share > 0).any(1)
        kept[lost] = F.one_hot(share[lost].argmax(1), kept.shape[1]).bool()
    return kept.reshape(*masks.shape[:-2], *grid)


def masked_features(
    visual: Any,
    images: Tensor,
    masks: Tensor,
    start_layer: int,
    *,
    position: str = POSITION,
    threshold: float = 0.5,
    keep_best: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Embed mask proposals of pictures.

    Args:
        visual: open_clip's VisionTransformer with plain blocks.
        images: (B, 3, H, W), normalised.
        masks: (B, N, h', w') probabilities or bool covering the pictures, of any size; (B, h', w') means N = 1.
        start_layer: S, 0 <= S < depth: the first block in which masks hold.
        position: How the position table is resized; "align-corners" is the paper's.
        threshold: As in `kept_patches`, and so is `keep_best`.
        keep_best: The paper's code lets small masks vanish: False.
        chunk: Proposals that go through a block at once, for memory; None is all. Does not change the numbers.

    Returns:
        (B, N, D), not normalised. A mask that keeps no patch gives the class token of block S, seeing itself only.

    Raises:
        UsageError: The tower is no plain ViT, or has no block S.
        ShapeError: Masks do not fit the pictures.
    """
    masks = masks[:, None] if masks.ndim == 3 else masks
    if masks.ndim != 4 or len(masks) != len(images):
        raise ShapeError(f"masks {tuple(masks.shape)} are not one (N, h, w) for each of {len(images)} pictures")
    prefix = run_prefix(visual, images, start_layer, position)
    return masked_from(visual, prefix, kept_patches(masks, prefix.grid, threshold, keep_best), chunk)


def masked_from(visual: Any, prefix: Prefix, kept: Tensor, chunk: int | None = None) -> Tensor:
    """Go on from block S with proposals: (B, N, D) of (B, N, h, w) bool, not normalised."""
    if not kept.shape[1]:
        return project(visual, prefix.tokens[:, :0])
    memory: list[tuple[Tensor, Tensor]] = []
    parts = kept.flatten(2).split(chunk or kept.shape[1], dim=1)
    tokens = [_first_proposals(visual, prefix, parts[0], memory if len(parts) > 1 else None)]
    tokens += [_further_proposals(visual, prefix, part, memory) for part in parts[1:]]
    return project(visual, torch.cat(tokens, 1) if len(parts) > 1 else tokens[0])


def patches_from(visual: Any, prefix: Prefix) -> Tensor:
    """Go on from block S with the patches of a run with proposals: (B, h, w, D); they see patches only."""
    tokens = run_blocks(visual, prefix.tokens[:, 1:], prefix.start_layer, len(visual.transformer.resblocks))
    return project(visual, tokens).unflatten(1, prefix.grid)


def unmasked_from(visual: Any, prefix: Prefix) -> Tensor:
    """Go on from block S without proposals, class token and patches together: (B, D), plain CLIP's feature.

    Only the class token leaves the last block, so only its row is computed there.
    """
    last = len(visual.transformer.resblocks) - 1
    tokens = run_blocks(visual, prefix.tokens, prefix.start_layer, last)
    block = visual.transformer.resblocks[last]
    q, k, v = _heads_of_queries(block, tokens, slice(0, 1))
    return project(visual, _finish(block, tokens[:, :1], F.scaled_dot_product_attention(q, k, v)))[:, 0]


def _first_proposals(visual: Any, prefix: Prefix, kept: Tensor, memory: list[tuple[Tensor, Tensor]] | None) -> Tensor:
    """Run patches and proposals as rows of the same matrices, [patches, proposals]; returns (B, n, C).

    Keys and values of the patches, before a block changes them, are left in `memory` for `_further_proposals`.
    """
    blocks = visual.transformer.resblocks[prefix.start_layer :]
    patches, count = prefix.tokens.shape[1] - 1, kept.shape[1]
    rows = torch.cat([prefix.tokens[:, 1:], prefix.tokens[:, :1].expand(-1, count, -1)], dim=1)
    own, bias = slice(patches, None), _bias(kept, prefix.tokens)
    for index, block in enumerate(blocks):
        is_last = index == len(blocks) - 1
        q, k, v = _heads_of_queries(block, rows, own) if is_last else split_heads(block, rows)
        if memory is not None:
            memory.append((k[:, :, :patches], v[:, :, :patches]))
        mixed = F.scaled_dot_product_attention(q[:, :, -count:], k, v, attn_mask=bias.to(q.dtype))
        if not is_last:
            plain = F.scaled_dot_product_attention(q[:, :, :patches], k[:, :, :patches], v[:, :, :patches])
            mixed = torch.cat([plain, mixed], dim=2)
        rows = _finish(block, rows[:, own] if is_last else rows, mixed)
    return rows


def _further_proposals(visual: Any, prefix: Prefix, kept: Tensor, memory: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Run proposals alone, with the keys and values that `_first_proposals` left; returns (B, n, C)."""
    rows, bias = prefix.tokens[:, :1].expand(-1, kept.shape[1], -1), _bias(kept, prefix.tokens)
    for block, (keys, values) in zip(visual.transformer.resblocks[prefix.start_layer :], memory, strict=True):
        q, k, v = split_heads(block, rows)
        k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        rows = _finish(block, rows, F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)))
    return rows


def _bias(kept: Tensor, like: Tensor) -> Tensor:
    """Return (B, 1, n, h·w + n): 0 where proposal i may look (its patches, itself), -inf elsewhere."""
    itself = torch.eye(kept.shape[1], dtype=torch.bool, device=kept.device).expand(len(kept), -1, -1)
    seen = torch.cat([kept, itself], dim=2)[:, None]
    return torch.zeros_like(seen, dtype=like.dtype).masked_fill_(~seen, float("-inf"))


def _heads_of_queries(block: Any, tokens: Tensor, queries: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Return q of some tokens, k and v of all, each (B, heads, ., d): what a last block needs."""
    attn, tokens = block.attn, block.ln_1(tokens)
    weight, bias, width = attn.in_proj_weight, attn.in_proj_bias, tokens.shape[-1]
    q = F.linear(tokens[:, queries], weight[:width], bias[:width])
    k, v = F.linear(tokens, weight[width:], bias[width:]).chunk(2, dim=-1)
    q, k, v = (x.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    return q, k, v


def _finish(block: Any, tokens: Tensor, mixed: Tensor) -> Tensor:
    """Add the attention's output and the MLP's."""
    tokens = tokens + block.ls_1(merge_heads(block, mixed))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
