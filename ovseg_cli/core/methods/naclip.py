"""NACLIP: each token attends to tokens with a like key, and more to its neighbours.

Paper: Hajimiri, Ben Ayed, Dolz, "Pay Attention to Your Neighbours: Training-Free Open-Vocabulary Semantic
Segmentation", WACV 2025. Trained: nothing. Frozen: everything.

    attention = softmax(s k kᵀ + Ω), Ω_ij = exp(-|place_i - place_j|² / 2σ²) on the patch grid, 0 to and from the class
    token; no residual, no MLP

Where paper and code disagree: nowhere in the attention. The paper reports rows with and without refinement (PAMR), the
code refines unless told otherwise (about 5 points on VOC-21); so do we, `--set pamr_steps=0` leaves it out.
"""

from functools import lru_cache, partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ovseg_cli.core.clip.vit import Grid, LastBlock, Similarities
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.last_block import LastBlockConfig, LastBlockMethod


class NaClipConfig(LastBlockConfig):
    """Settings of NACLIP."""

    sigma: float = Field(default=5.0, gt=0, description="Width of the neighbourhood, in patches.")
    pamr_steps: int = Field(
        default=10, ge=0, description="Steps of pixel-adaptive mask refinement at the picture's own size; 0 is none."
    )
    windows_per_batch: int = Field(
        default=4, ge=1, description="Windows or pictures of equal size that go through the encoder at once."
    )


class NaClip(LastBlockMethod):
    """NACLIP."""

    name: ClassVar[str] = "naclip"
    title: ClassVar[str] = "NACLIP"
    paper: ClassVar[str] = "Hajimiri et al., WACV 2025"
    name_variants: ClassVar[tuple[str, ...]] = ("sclip",)
    Config = NaClipConfig
    config: NaClipConfig
    sources: ClassVar[dict[str, Source]] = {
        **LastBlockMethod.sources,
        "sigma": Source("code", "NACLIP, gaussian_std 5"),
        "pamr_steps": Source("code", "NACLIP, pamr_steps 10"),
        "windows_per_batch": Source("ours", "refinement holds all scores of so many pictures at their own size"),
    }

    def block(self, images: Tensor) -> LastBlock:
        """Return what the last block does for (B, 3, H, W) normalised images."""
        bias = partial(neighbourhood, sigma=self.config.sigma)
        return LastBlock(Similarities(("kk",), bias), residual="none", mlp=False)


@lru_cache(maxsize=8)
def neighbourhood(grid: Grid, sigma: float) -> Tensor:
    """Return (1 + h·w, 1 + h·w): a Gaussian of the distance between patches, 0 to and from the class token.

    Args:
        grid: (h, w).
        sigma: Its standard deviation in patches; the peak is 1.
    """
    rows, columns = (_gaussian(length, sigma) for length in grid)
    count = grid[0] * grid[1]
    bias = torch.zeros(1 + count, 1 + count)
    bias[1:, 1:] = torch.einsum("ik,jl->ijkl", rows, columns).reshape(count, count)
    return bias


def _gaussian(length: int, sigma: float) -> Tensor:
    places = torch.arange(length, dtype=torch.float32)
    return torch.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
