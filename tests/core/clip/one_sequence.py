"""IP-CLIP as the paper's code computes it: one sequence of proposals and patches under one attention mask.

The reference of `core/clip/masked.py`, for tests and benchmarks: slower, and its mask has heads × (N + L)² numbers.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip.vit import embed, project, run_blocks


def one_sequence(visual, images: Tensor, masks: Tensor, start_layer: int, position: str = "align-corners") -> Tensor:
    """Return (B, N + h·w, D): proposals, then patches, of (B, N, h', w') probabilities; not normalised."""
    tokens, grid = embed(visual, images, position)
    tokens = run_blocks(visual, tokens, 0, start_layer)
    kept = F.interpolate(masks.to(images.dtype), grid, mode="bilinear", align_corners=False) >= 0.5
    hidden = blocked(kept)
    heads = visual.transformer.resblocks[0].attn.num_heads
    bias = torch.zeros_like(hidden, dtype=tokens.dtype).masked_fill_(hidden, float("-inf"))
    bias = bias.repeat_interleave(heads, dim=0)  # (B * heads, N + L, N + L)
    tokens = torch.cat([tokens[:, :1].expand(-1, kept.shape[1], -1), tokens[:, 1:]], dim=1)
    for block in visual.transformer.resblocks[start_layer:]:
        tokens = block(tokens, attn_mask=bias)
    return project(visual, tokens)


def blocked(kept: Tensor) -> Tensor:
    """Return (B, N + L, N + L) bool, True where a row may not look, of (B, N, h, w) kept patches."""
    batch, count = kept.shape[:2]
    patches = kept[0, 0].numel()
    hidden = torch.zeros(batch, count + patches, count + patches, dtype=torch.bool, device=kept.device)
    hidden[:, :, :count] = True
    hidden[:, :count, count:] = ~kept.flatten(2)
    hidden[:, range(count), range(count)] = False
    return hidden
