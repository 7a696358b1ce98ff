"""DINO masks: k-means over the tokens of a self-supervised ViT, one mask a cluster.

Shin et al., "PixelCLIP", NeurIPS 2024, uses them as pseudo-masks; Caron et al., "DINO", ICCV 2021, is its network. The
masks of a picture do not overlap and cover it; a cluster may have several pieces.

Ours: PixelCLIP clusters a random crop of 640 pixels, we cluster the whole picture (long side at most 1333, as its
loader scales them); a score, the mean cosine between a cluster's tokens and their centroid, since k-means has none; a
start drawn from the seed and the picture's pixels, so that a picture's masks do not depend on what came before it.
"""

import zlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.proposals.base import GeneratorConfig, ProposalGenerator
from ovseg_cli.core.reporter import Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.types import Proposals


class DinoConfig(GeneratorConfig):
    """Settings of DINO masks."""

    model: str = Field(default="vit_small_patch16_224.dino", description="A plain ViT of timm, by name and tag.")
    weights: str = Field(
        default="published", description="'published' (timm's), a local file, or 'random' to try the code path."
    )
    clusters: int = Field(default=16, ge=1, description="Clusters of k-means; some may stay empty and give no mask.")
    start: Literal["random", "k-means++"] = Field(
        default="random", description="First centroids: rows drawn uniformly with replacement, or spread out."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the first centroids.")
    iterations: int = Field(default=100, ge=1, description="At most so many iterations of k-means.")
    tolerance: float = Field(
        default=1e-4, ge=0, description="k-means stops when the summed squared shift of the centroids is not larger."
    )
    feature: Literal["token", "query", "key", "value"] = Field(
        default="token", description="A block's output after the last LayerNorm, or a projection of its attention."
    )
    layer: int = Field(default=-1, description="Block that is read, from 0; negative counts from the end.")
    position: Literal["scale-factor", "explicit"] = Field(
        default="scale-factor", description="How a position table is resized: as DINO's code does, or as timm does."
    )
    short_side: int = Field(
        default=0, ge=0, description="Pixels of the short side that the network sees; 0 keeps the picture's size."
    )
    max_long_side: int = Field(
        default=1333, ge=1, description="Pictures are scaled down where the long side would exceed this."
    )


class Dino(ProposalGenerator):
    """Makes one mask of each cluster of a ViT's tokens."""

    name: ClassVar[str] = "dino"
    title: ClassVar[str] = "DINO k-means"
    source: ClassVar[str] = "PixelCLIP, Shin et al., NeurIPS 2024; DINO, Caron et al., ICCV 2021"
    Config: ClassVar[type[GeneratorConfig]] = DinoConfig
    needs_weights: ClassVar[bool] = True
    sources: ClassVar[dict[str, str]] = {
        "model": "code: DINO v1 ViT-S/16, frozen",
        "clusters": "code: 16",
        "start": "code: rows drawn with replacement",
        "iterations": "code: 100",
        "tolerance": "code: 1e-4",
        "feature": "code: last block after the final LayerNorm, class token dropped",
        "position": "code: DINO's interpolation",
        "short_side": "code: the crop keeps its size, cut down to a multiple of the patch",
        "max_long_side": "code: the loader's limit",
        "seed": "ours",
    }
    config: DinoConfig

    def __init__(self, config: DinoConfig | None = None, device: str = "cpu", reporter: Reporter | None = None):
        super().__init__(config or DinoConfig(), device, reporter)
        from ovseg_cli.core.proposals.vit_tokens import build_vit

        config = self.config
        self.model: Any = build_vit(config.model, config.weights, config.position, self.reporter).to(device)
        depth = self.depth
        if not -depth <= config.layer < depth:
            raise UsageError(
                f"layer {config.layer}: {config.model} has {depth} blocks.",
                f"Choose 0 to {depth - 1}, or -1 for the last.",
            )

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.model.blocks)

    @cached_property
    def weights(self) -> str:
        """Fingerprint of the network's weights."""
        from ovseg_cli.core.proposals.weights import weights_digest

        return weights_digest(self.model)

    def generate(self, image: "Tensor", label: "Tensor | None" = None) -> "Proposals":
        """Make the masks of one picture.

        Args:
            image: (3, H, W) uint8 RGB.
            label: Not used.

        Returns:
            At most `clusters` bool masks that do not overlap; they cover the picture unless `max_masks` cuts them off.

        Raises:
            UsageError: The picture is smaller than one patch.
        """
        from ovseg_cli.core.types import Proposals

        tokens = self.tokens(image)
        labels, scores = self._cluster(tokens.flatten(0, 1), self._generator(image))
        size = (int(image.shape[1]), int(image.shape[2]))
        masks = cluster_masks(labels.view(tokens.shape[:2]), size)
        order = scores.argsort(descending=True, stable=True)[: self.config.max_masks]
        return Proposals(masks[order].cpu(), scores[order].cpu(), size)

    def tokens(self, image: "Tensor") -> "Tensor":
        """Return the (h, w, D) tokens of a (3, H, W) uint8 picture, on the network's device."""
        from ovseg_cli.core.proposals.vit_tokens import vit_tokens

        return vit_tokens(self.model, self._prepare(image)[None], self.config.feature, self.config.layer)[0]

    def _prepare(self, image: "Tensor") -> "Tensor":
        """Normalise and resize to whole patches; bilinear without antialias, as PixelCLIP does."""
        import torch

        from ovseg_cli.core.clip.inputs import normalise, resize_image

        size = self._size(int(image.shape[1]), int(image.shape[2]))
        values = self.model.pretrained_cfg
        mean, std = (torch.tensor(values[key], device=self.device) for key in ("mean", "std"))
        return normalise(resize_image(image.to(self.device), size, antialias=False), mean, std)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that the network sees: the nearest lower multiples of the patch."""
        config, patch = self.config, self.model.patch_embed.patch_size
        scale = config.short_side / min(height, width) if config.short_side else 1.0
        scale = min(scale, config.max_long_side / max(height, width))
        rows, columns = int(height * scale + 1e-6) // patch[0], int(width * scale + 1e-6) // patch[1]
        if not rows or not columns:
            raise UsageError(
                f"a picture of {width} × {height} pixels is smaller than one patch of {config.model}.",
                "Let the network see it larger: --set short_side=224 --set max_long_side=1333.",
            )
        return rows * patch[0], columns * patch[1]

    def _generator(self, image: "Tensor") -> Any:
        import torch

        seed = zlib.crc32(image.contiguous().numpy().tobytes(), self.config.seed)
        return torch.Generator().manual_seed(seed)

    def _cluster(self, points: "Tensor", generator: Any) -> "tuple[Tensor, Tensor]":
        """Return clusters 0 to n - 1 of (L, D) points, empty ones left out, and a score for each."""
        from ovseg_cli.core.proposals import kmeans

        config = self.config
        draw = kmeans.random_start if config.start == "random" else kmeans.spread_start
        start = draw(points, config.clusters, generator)
        labels, _ = kmeans.kmeans(points, start, config.iterations, config.tolerance)
        labels = labels.unique(return_inverse=True)[1]
        return labels, kmeans.cohesion(points, labels)


def cluster_masks(labels: "Tensor", size: tuple[int, int]) -> "Tensor":
    """Return (n, H, W) bool masks of an (h, w) map of clusters 0 to n - 1, resized by nearest neighbour."""
    import torch
    from torch.nn import functional as F

    full = F.interpolate(labels[None, None].float(), size, mode="nearest")[0, 0].long()
    return full == torch.arange(int(labels.max()) + 1, device=labels.device)[:, None, None]
