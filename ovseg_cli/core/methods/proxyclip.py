"""ProxyCLIP: another network says which patches belong together, CLIP says what they are.

Paper: Lan, Chen, Ke, Wang, Feng, Zhang, "ProxyCLIP: Proxy Attention Improves CLIP for Open-Vocabulary Segmentation",
ECCV 2024. Trained: nothing. Frozen: everything. The proxy is any plain ViT of timm: DINO, DINOv2, DINOv3.

    A = γ (E Eᵀ - β mean(E Eᵀ)), E the proxy's patch tokens at unit length; entries below 0 count for nothing;
    u = W_out · softmax(A) v + b_out, the same map for all heads, v resized to the proxy's grid; no residual, no MLP

Where paper and code disagree, or we from the code:
- The code's mean runs over all windows of a batch, and its evaluation has one window a batch; here it is each window's
  own, whatever the batch.
- Where β·mean exceeds 1 the code divides zero by zero; a patch always belongs to itself here.
- The code pads windows to multiples of 56 pixels (with square grids only right since it does); here a window is shrunk
  to whole patches, which changes nothing for windows of 224 and 336 pixels.
- SAM and MAE, which the paper also tries as proxies, are not here.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip.dense import fit_patches
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.vit import Grid, LastBlock
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.last_block import LastBlockConfig, LastBlockMethod
from ovseg_cli.core.proposals.vit_tokens import build_vit, vit_tokens
from ovseg_cli.core.proposals.weights import weights_digest
from ovseg_cli.core.reporter import Silent


class ProxyClipConfig(LastBlockConfig):
    """Settings of ProxyCLIP."""

    window: int = Field(
        default=336, ge=0, description="Side of a sliding window in pixels of the resized picture; 0 is none."
    )
    proxy: str = Field(
        default="vit_base_patch8_224.dino", description="Network whose patches are compared: a plain ViT of timm."
    )
    proxy_weights: str = Field(
        default="published", description="'published' (timm's), a local file, or 'random' to try the code path."
    )
    beta: float = Field(default=1.2, ge=0, description="How far above the mean similarity two patches belong together.")
    gamma: float = Field(default=3.0, gt=0, description="Multiplies the similarities before the softmax.")


class ProxyClip(LastBlockMethod):
    """ProxyCLIP."""

    name: ClassVar[str] = "proxyclip"
    title: ClassVar[str] = "ProxyCLIP"
    paper: ClassVar[str] = "Lan et al., ECCV 2024, with a DINO"
    name_variants: ClassVar[tuple[str, ...]] = ("proxyclip", "sclip")
    Config = ProxyClipConfig
    config: ProxyClipConfig
    sources: ClassVar[dict[str, Source]] = {
        **LastBlockMethod.sources,
        "window": Source("code", "ProxyCLIP, slide_crop 336"),
        "proxy": Source("code", "ProxyCLIP, dino_vitb8"),
        "proxy_weights": Source("code", "as published"),
        "beta": Source("code", "ProxyCLIP, beta 1.2"),
        "gamma": Source("code", "ProxyCLIP, gamma 3.0"),
    }

    def __init__(self, clip: ClipModel, config: ProxyClipConfig | None = None):
        super().__init__(clip, config)
        name, weights = self.config.proxy, self.config.proxy_weights
        self.proxy = build_vit(name, weights, "scale-factor", Silent(), settings=("proxy", "proxy_weights"))

    @property
    def digest(self) -> str:
        """Fingerprint of CLIP's weights and the proxy's."""
        return digest_of(["proxyclip-1", super().digest, weights_digest(self.proxy)])

    def block(self, images: Tensor) -> LastBlock:
        """Return what the last block does for (B, 3, H, W) normalised images."""
        tokens = self.proxy_tokens(images)
        weights = shares(similarities(tokens), self.config.beta, self.config.gamma)
        grid = (int(tokens.shape[1]), int(tokens.shape[2]))
        return LastBlock(ProxyAttention(weights, grid), residual="none", mlp=False)

    def proxy_tokens(self, images: Tensor) -> Tensor:
        """Return the proxy's (B, h', w', C) tokens of (B, 3, H, W) images that CLIP's statistics have normalised."""
        statistics = self.proxy.pretrained_cfg
        mean, std = (torch.tensor(statistics[key], device=images.device) for key in ("mean", "std"))
        pixels = images * self.clip.std[:, None, None] + self.clip.mean[:, None, None]
        pixels = fit_patches(pixels, self.proxy.patch_embed.patch_size[0])
        return vit_tokens(self.proxy, (pixels - mean[:, None, None]) / std[:, None, None])


def similarities(tokens: Tensor) -> Tensor:
    """Return (B, n, n) cosines between the n = h·w tokens of each picture, (B, h, w, C)."""
    unit = F.normalize(tokens.flatten(1, 2), dim=2)
    return unit @ unit.transpose(1, 2)


def shares(similar: Tensor, beta: float, gamma: float, mean: Tensor | None = None) -> Tensor:
    """Return how much each patch takes from each other one.

    Args:
        similar: (B, n, n) cosines.
        beta: Times the mean: the cosine below which two patches have nothing to do with each other.
        gamma: Scale before the softmax.
        mean: The mean that is meant, broadcast to `similar`; by default each picture's own.

    Returns:
        (B, n, n), rows add up to 1; a patch always takes something from itself.
    """
    mean = similar.mean((1, 2), keepdim=True) if mean is None else mean
    scores = gamma * (similar - beta * mean)
    itself = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
    return scores.masked_fill((scores < 0) & ~itself, float("-inf")).softmax(-1)


@dataclass(frozen=True, eq=False)
class ProxyAttention:
    """Mixes values by shares that are known already.

    Attributes:
        shares: (B, n, n) of the n = h'·w' patches of the proxy.
        grid: (h', w'), to which values are resized.
    """

    shares: Tensor
    grid: Grid

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Mix the values; the class token keeps its own."""
        heads, width = v.shape[1], v.shape[3]
        maps = v[:, :, 1:].transpose(2, 3).reshape(len(v), heads * width, *grid)
        maps = F.interpolate(maps, self.grid, mode="bilinear", align_corners=False)
        values = maps.reshape(len(v), heads, width, -1).transpose(2, 3)
        return torch.cat([v[:, :, :1], self.shares[:, None] @ values], dim=2), self.grid
