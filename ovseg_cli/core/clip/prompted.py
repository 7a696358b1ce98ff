"""A frozen ViT that is adapted by prompts: learned tokens between the class token and the patches of every block.

Source: visual prompt tuning (Jia et al., ECCV 2022) as ZegCLIP's code writes it. `T` prompts enter before block 0;
before each of the next `depth` blocks they are replaced by fresh ones; after the last of these they are dropped. One
linear map is shared by the prompts of all blocks.
Quirks that released weights need: the class embedding is added to the class token twice (`class_token_twice`), and with
`depth` > 0 the tokens leave through two LayerNorms in a row, one trained (`prompt_norm`), one CLIP's.
What leaves the last block is computed for the class token and the patches alone.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.clip.dense import fit_patches, tower_of
from ovseg_cli.core.clip.vit import Grid, merge_heads, project, run_blocks, split_heads
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
        """Run all blocks; (B, 1 + h·w, C) in and out, prompts join and leave inside."""
        count, last = self.num_prompts, len(visual.transformer.resblocks) - 1
        tokens = _join(tokens, self._projected(self.prompt_embeddings[0], tokens))
        for i in range(last + 1):
            if 0 < i <= self.depth:
                assert self.deep_prompt_embeddings is not None
                prompts = self._projected(self.deep_prompt_embeddings[i - 1], tokens)
                tokens = _join(_without(tokens, count), prompts)
            elif i == self.depth + 1 and self.depth:
                tokens = _without(tokens, count)
            has_prompts = tokens.shape[1] > 1 and (self.depth == 0 or i <= self.depth)
            if i == last and has_prompts:
                return _run_without(visual.transformer.resblocks[i], tokens, count)
            tokens = run_blocks(visual, tokens, i, i + 1)
        return tokens

    def _projected(self, prompts: Tensor, tokens: Tensor) -> Tensor:
        """Return (B, T, C); each picture drops other values."""
        rows = self.prompt_proj(prompts).expand(len(tokens), -1, -1)
        return F.dropout(rows, self.dropout, self.training).to(tokens.dtype)


def resize_bilinear(table: Tensor, trained: Grid, grid: Grid) -> Tensor:
    """Resize the patch part of a position table (1 + h₀·w₀, C) to another grid; the class position stays.

    Source: ZegCLIP, code: bilinear, corners not aligned, no anti-aliasing.
    """
    if grid == trained:
        return table
    maps = table[1:].unflatten(0, trained).permute(2, 0, 1)[None]
    maps = F.interpolate(maps, grid, mode="bilinear", align_corners=False)
    return torch.cat([table[:1], maps[0].flatten(1).T])


def _join(tokens: Tensor, prompts: Tensor) -> Tensor:
    return torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], dim=1)


def _without(tokens: Tensor, count: int) -> Tensor:
    return torch.cat([tokens[:, :1], tokens[:, 1 + count :]], dim=1)


def _run_without(block: Any, tokens: Tensor, count: int) -> Tensor:
    """Run a block and return all tokens but the prompts, which are read and not computed."""
    q, k, v = split_heads(block, tokens)
    q = torch.cat([q[:, :, :1], q[:, :, 1 + count :]], dim=2)
    mixed = F.scaled_dot_product_attention(q, k, v)
    out = _without(tokens, count) + block.ls_1(merge_heads(block, mixed))
    return out + block.ls_2(block.mlp(block.ln_2(out)))
