"""What all methods share that score each patch of CLIP by its cosine with the names.

A method says what CLIP's last block does; batching, windows, up-sampling and mask pooling are here.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.clip import inputs
from ovseg_cli.core.clip.dense import check_tower, dense_tokens, project_tokens
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.vit import LastBlock
from ovseg_cli.core.methods.base import Source, check_masks
from ovseg_cli.core.methods.windows import WindowConfig, WindowMethod, score_windows, windows_of
from ovseg_cli.core.types import DensePrediction, Prediction, TextFeatures, WindowPrediction

EPSILON = 1e-12
"""Shortest length that is divided by, as in `F.normalize`."""


class DenseConfig(WindowConfig):
    """Settings of methods that score each patch."""

    antialias: bool = Field(
        default=True, description="Average over all pixels when shrinking a picture, as PIL does; off: bilinear only."
    )
    position: Literal["explicit", "scale-factor"] = Field(
        default="explicit",
        description="How a ViT's position table is resized: bicubic to the grid's size, or by a scale of (h+0.1)/side.",
    )
    upsample_features: int = Field(
        default=0,
        ge=0,
        description="Features are resized to a square grid of this side before the cosine; 0 keeps the patch grid.",
    )
    softmax_scale: float = Field(
        default=0.0,
        ge=0,
        description="Multiplies cosines before the softmax of a background threshold; 0 is the CLIP's own logit scale.",
    )
    mask_pooling: Literal["features-up", "masks-down"] = Field(
        default="features-up",
        description="Mask classification: features brought to the mask's pixels, or masks to the patch grid.",
    )
    pool_before_projection: bool = Field(
        default=False,
        description="Mask classification: average a mask's tokens, then last norm and projection (FC-CLIP); off: each "
        "token is projected first.",
    )


class DenseMethod(WindowMethod):
    """A method whose scores are cosines of dense features and names.

    Attributes:
        changes_attention: The method needs a ViT, since it changes its last block.
    """

    Config = DenseConfig
    config: DenseConfig
    sources: ClassVar[dict[str, Source]] = {
        **WindowMethod.sources,
        "window": Source("ours", "whole pictures; SCLIP's family slides 224 by 112"),
        "stride": Source("ours", "as window"),
        "antialias": Source("ours", "CLIP's own preprocessing shrinks with PIL, which averages; PixelCLIP's does not"),
        "position": Source(
            "code", "PixelCLIP and MaskCLIP: explicit; SCLIP, ClearCLIP, NACLIP, ProxyCLIP: scale-factor"
        ),
        "upsample_features": Source("ours", "PixelCLIP's code resizes to 64 before it normalises"),
        "softmax_scale": Source("ours", "SCLIP's family sets 40 to 65 by data set; CLIP trained with its own"),
        "mask_pooling": Source("code", "PixelCLIP's training pools up-sampled features; FC-CLIP's masks go down"),
        "pool_before_projection": Source("code", "PixelCLIP's dense path projects first; FC-CLIP pools first"),
    }

    changes_attention: ClassVar[bool] = False

    def __init__(self, clip: ClipModel, config: DenseConfig | None = None):
        check_tower(clip.visual, self.changes_attention)
        super().__init__(clip, config)

    @property
    def probability_scale(self) -> float:
        """What turns a cosine into a logit."""
        return self.config.softmax_scale or self.clip.logit_scale

    @property
    def visual(self) -> nn.Module:
        """The image tower that reads pictures."""
        return self.clip.visual

    @abstractmethod
    def block(self, images: Tensor) -> LastBlock:
        """Return what the last block does for (B, 3, H, W) normalised images."""

    def tokens(self, images: Tensor) -> Tensor:
        """Return (B, h, w, C) tokens before last norm and projection, of (B, 3, H, W) normalised images."""
        return dense_tokens(self.visual, images, self.block(images), self.config.position)

    def features(self, images: Tensor) -> Tensor:
        """Return (B, h, w, D) features, any scale, of (B, 3, H, W) normalised images."""
        return project_tokens(self.visual, self.tokens(images))

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], text: TextFeatures) -> list[Prediction]:
        """Score pictures against names: cosines, no temperature.

        Args:
            images: Pictures of any size, each (3, H, W) uint8 RGB.
            text: Features of M names.

        Returns:
            One prediction a picture, `WindowPrediction` where `window` is set.
        """
        self.check_text(text)
        canvases = [self.prepare(image) for image in images]
        boxes = [windows_of(canvas, self.config.window, self.config.stride) for canvas in canvases]
        rows = text.to(self.clip.device).features
        grids = score_windows(canvases, boxes, self.config.windows_per_batch, lambda batch: self.score(batch, rows))
        parts = zip(images, canvases, boxes, grids, strict=True)
        return [self._prediction(image, canvas, box, grid) for image, canvas, box, grid in parts]

    def prepare(self, image: Tensor) -> Tensor:
        """Resize and normalise one picture: (3, H, W) uint8 to (3, h, w) on the CLIP's device; see `resized`."""
        resized = self.resized(image, self.config.antialias)
        return inputs.normalise(resized, self.clip.mean, self.clip.std)

    def score(self, images: Tensor, text: Tensor) -> Tensor:
        """Return cosines (B, M, h, w) of (B, 3, H, W) normalised images and (M, D) text features."""
        return self.cosines(self.features(images), text)

    def cosines(self, features: Tensor, text: Tensor) -> Tensor:
        """Return cosines (B, M, h', w') of (B, h, w, D) features and (M, D) text features.

        Where features are up-sampled, their products with the names are up-sampled in their place, which is the same
        and less to multiply; only lengths are those of up-sampled features.
        """
        maps, side = features.permute(0, 3, 1, 2), self.config.upsample_features
        if not side:
            return torch.einsum("bdhw,md->bmhw", F.normalize(maps, dim=1), text)
        lengths = _resized(maps, side).norm(dim=1, keepdim=True).clamp_min(EPSILON)
        return _resized(torch.einsum("bdhw,md->bmhw", maps, text), side) / lengths

    def _prediction(
        self, image: Tensor, canvas: Tensor, boxes: list[inputs.Box], grids: list[Tensor]
    ) -> DensePrediction | WindowPrediction:
        size = (int(image.shape[-2]), int(image.shape[-1]))
        if not self.config.window:
            return DensePrediction(grids[0], size)
        shape = (int(canvas.shape[-2]), int(canvas.shape[-1]))
        return WindowPrediction(torch.stack(grids), torch.tensor(boxes), shape, size)

    @torch.no_grad()
    def classify_masks(self, image: Tensor, masks: Tensor, text: TextFeatures) -> Tensor:
        """Score masks of one picture by masked average pooling of its dense features.

        Args:
            image: (3, H, W) uint8 RGB.
            masks: (N, H, W), 0 to 1.
            text: Features of M names.

        Returns:
            (N, M) logits, cosines times the CLIP's `logit_scale`. An empty mask gives a row of zeros.

        Raises:
            ShapeError: Masks and picture, or text and CLIP, do not fit together.

        Source: PixelCLIP, section 4.2 (no code is published). "features-up" is the pooling of its training, at the
            mask's own resolution; "masks-down" is FC-CLIP's: masks bilinearly to the grid, binarised at one half.
            `pool_before_projection` is FC-CLIP's order.
        """
        self.check_text(text)
        check_masks(masks, image)
        text = text.to(self.clip.device)
        maps = self.tokens(self.prepare(image)[None])[0]
        maps = maps if self.config.pool_before_projection else project_tokens(self.visual, maps)
        weights = self._on_grid(masks.to(maps), (int(maps.shape[0]), int(maps.shape[1]))).flatten(1)
        areas = weights.sum(1, keepdim=True)
        pooled = weights @ maps.flatten(0, 1) / areas.clamp_min(torch.finfo(areas.dtype).tiny)
        if self.config.pool_before_projection:
            pooled = project_tokens(self.visual, pooled).masked_fill(areas == 0, 0)
        return self.clip.logit_scale * F.normalize(pooled, dim=1) @ text.features.T

    def _on_grid(self, masks: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return (N, h, w) weights of the patches.

        Averaging up-sampled features over a mask is linear in the features, so the mask can be brought down by the
        transposed up-sampling instead: the same sums, and no features at full size.
        """
        if self.config.mask_pooling == "masks-down":
            small = F.interpolate(masks[:, None], grid, mode="bilinear", align_corners=False)[:, 0]
            return (small > 0.5).to(masks)
        rows = inputs.bilinear_weights(grid[0], masks.shape[-2], masks)
        columns = inputs.bilinear_weights(grid[1], masks.shape[-1], masks)
        return rows.T @ masks @ columns


def _resized(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
