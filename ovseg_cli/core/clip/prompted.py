"""A frozen ViT that is adapted by prompts: learned tokens between the class token and the patches of every block.

Source: visual prompt tuning (Jia et al., ECCV 2022) as ZegCLIP's code writes it. `T` prompts enter before block 0;
before each of the next `depth` blocks they are replaced by fresh ones; after the last of these they are dropped. One
linear map is shared by the prompts of all blocks.
Quirks that released weights need: the class embedding is added to the class token twice (`class_token_twice`), and with
`depth` > 0 the tokens leave through two LayerNorms in a row, one trained (`prompt_norm`), one CLIP's.
Prompts stand behind the patches here: attention does not know the order of what it reads, and they have no position.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.clip.dense import fit_patches, tower_of
from ovseg_cli.core.clip.vit import Grid, merge_heads, project, run_blocks
from ovseg_cli.core.errors import UsageError

EVERY_BLOCK = -1


class PromptedTower(nn.Module):
    """Prompts for an image tower, which stays outside: it is frozen and belongs to the CLIP.

    Args:
        visual: Image tower of an open_clip model, a plain ViT; only its sizes are read here.
        prompts: T, at least 1.
        depth: D, blocks after the first that get prompts of their own; `EVERY_BLOCK` for all, 0 leaves those of the
            input in (shallow prompts).
        dropout: Share of the prompts' values that is dropped in training.
        class_token_twice: Keep the published quirk.

    Raises:
        UsageError: No plain ViT, or a ViT with fewer blocks.
    """

    def __init__(
        self,
        visual: Any,
        prompts: int,
        depth: int = EVERY_BLOCK,
        dropout: float = 0.1,
        class_token_twice: bool = True,
    ):
        super().__init__()
        tower = tower_of(visual)
        if tower.kind != "vit":
            raise UsageError(
                f"the image tower of this CLIP ({type(visual).__name__}) takes no prompts.",
                "Choose a CLIP with a plain ViT, such as --clip ViT-B-16.",
            )
        width, blocks = int(visual.conv1.out_channels), len(visual.transformer.resblocks)
        if depth >= blocks:
            raise UsageError(
                f"prompt_depth = {depth}: this CLIP's image tower has {blocks} blocks, prompts of their own can have "
                f"the {blocks - 1} after the first.",
                f"Use --set prompt_depth={blocks - 1}, or -1 for all.",
            )
        self.depth = blocks - 1 if depth == EVERY_BLOCK else depth
        self.dropout, self.class_token_twice = dropout, class_token_twice
        bound = math.sqrt(6.0 / (3 * tower.stride**2 + width))
        self.prompt_embeddings = nn.Parameter(torch.empty(1, prompts, width).uniform_(-bound, bound))
        deep = torch.empty(self.depth, prompts, width).uniform_(-bound, bound)
        self.deep_prompt_embeddings = nn.Parameter(deep) if self.depth else None
        self.prompt_proj = nn.Linear(width, width)
        nn.init.kaiming_normal_(self.prompt_proj.weight, a=0, mode="fan_out")
        self.prompt_norm = nn.LayerNorm(width, eps=1e-6) if self.depth else None

    @property
    def num_prompts(self) -> int:
        """T."""
        return int(self.prompt_embeddings.shape[1])

    def forward(self, visual: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pictures of any size.

        Args:
            visual: The tower that this was made for.
            images: (B, 3, H, W), normalised; a side that is no multiple of the patch is shrunk to the next lower one.

        Returns:
            Patch features (B, h, w, D) and picture features (B, D), both of unit length.
        """
        tokens, grid = self.embed(visual, fit_patches(images, tower_of(visual).stride))
        tokens = self.run(visual, tokens)
        if self.prompt_norm is not None:
            tokens = self.prompt_norm(tokens)
        features = F.normalize(project(visual, tokens), dim=-1)
        return features[:, 1:].unflatten(1, grid), features[:, 0]

    def embed(self, visual: Any, images: Tensor) -> tuple[Tensor, Grid]:
        """Return what enters block 0 without prompts, (B, 1 + h·w, C), and the grid."""
        patches = visual.conv1(images)
        grid = (int(patches.shape[2]), int(patches.shape[3]))
        table = resize_bilinear(visual.positional_embedding, tuple(visual.grid_size), grid).to(patches.dtype)
        first = visual.class_embedding.to(patches.dtype)
        first = (2 * first if self.class_token_twice else first) + table[0]
        tokens = patches.flatten(2).transpose(1, 2) + table[1:]
        return visual.ln_pre(torch.cat([first.expand(len(images), 1, -1), tokens], dim=1)), grid

    def run(self, visual: Any, tokens: Tensor) -> Tensor:
        """Run all blocks; (B, 1 + h·w, C) in and out.

        Prompts that are replaced after a block, or dropped, are only read by the other tokens: what they themselves
        become is not computed.
        """
        blocks = visual.transformer.resblocks
        if not self.depth:
            return self._run_shallow(visual, tokens)
        for i, block in enumerate(blocks):
            if i > self.depth:
                return run_blocks(visual, tokens, i, len(blocks))
            tokens = _run_beside(block, tokens, self._projected(self._rows_of(i), len(tokens)))
        return tokens

    def _run_shallow(self, visual: Any, tokens: Tensor) -> Tensor:
        """Run all blocks with the prompts of the input, which go through them like the other tokens."""
        last = len(visual.transformer.resblocks) - 1
        prompts = self._projected(self.prompt_embeddings[0], len(tokens))
        joined = torch.cat([tokens, prompts.expand(len(tokens), -1, -1).to(tokens.dtype)], dim=1)
        joined = run_blocks(visual, joined, 0, last)
        tokens, prompts = joined.split([tokens.shape[1], self.num_prompts], dim=1)
        return _run_beside(visual.transformer.resblocks[last], tokens, prompts)

    def _rows_of(self, block: int) -> Tensor:
        """Return (T, C), the prompts of a block."""
        if block == 0:
            return self.prompt_embeddings[0]
        assert self.deep_prompt_embeddings is not None
        return self.deep_prompt_embeddings[block - 1]

    def _projected(self, prompts: Tensor, count: int) -> Tensor:
        """Return (count, T, C) where each picture drops other values, (1, T, C) where nothing is dropped."""
        rows = self.prompt_proj(prompts)[None]
        if not (self.training and self.dropout):
            return rows
        return F.dropout(rows.expand(count, -1, -1), self.dropout)


def resize_bilinear(table: Tensor, trained: Grid, grid: Grid) -> Tensor:
    """Resize the patch part of a position table (1 + h₀·w₀, C) to another grid; the class position stays.

    Source: ZegCLIP, code: bilinear, corners not aligned, no anti-aliasing.
    """
    if grid == trained:
        return table
    maps = table[1:].unflatten(0, trained).permute(2, 0, 1)[None]
    maps = F.interpolate(maps, grid, mode="bilinear", align_corners=False)
    return torch.cat([table[:1], maps[0].flatten(1).T])


def _run_beside(block: Any, tokens: Tensor, prompts: Tensor) -> Tensor:
    """Run a block on tokens (B, L, C) that also read prompts (B or 1, T, C), which are read and not computed.

    Queries have a product of their own, so that of keys and values only what holds both kinds of tokens is kept.
    """
    attn, width = block.attn, tokens.shape[-1]
    weights, biases = (part.split([width, 2 * width]) for part in (attn.in_proj_weight, attn.in_proj_bias))
    normed = block.ln_1(tokens)
    q = F.linear(normed, weights[0], biases[0]).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
    pairs = [F.linear(x, weights[1], biases[1]) for x in (normed, block.ln_1(prompts.to(tokens.dtype)))]
    joined = torch.cat([pairs[0], pairs[1].expand(len(tokens), -1, -1)], dim=1)
    k, v = joined.unflatten(-1, (2, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    tokens = tokens + block.ls_1(merge_heads(block, F.scaled_dot_product_attention(q, k, v)))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
