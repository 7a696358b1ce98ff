"""What frozen IP-CLIP and MAFT share: one pass of a CLIP embeds all masks, cosines with the names score them.

The masks are a host's or any generator's; the scores stand alone or are combined with the host's, as the host combines
its own with CLIP's (core/clip/masked.py embeds, core/nn/ensembles.py has the formulas).
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip.masked import check_start_layer, kept_patches, masked_from, run_prefix
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.errors import ShapeError, UsageError
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.masked import Candidates, Canvas, MaskMethod, SourceConfig, SourceMethod
from ovseg_cli.core.nn.ensembles import clip_scores
from ovseg_cli.core.types import TextFeatures


class MaskedClipConfig(SourceConfig):
    """Settings of both; the defaults are those of MAFT's code for ViT-B/16 on FreeSeg, but for the masks' source."""

    resize: Literal["square", "short-side", "none"] = Field(
        default="short-side", description="How a picture is brought to the generator of the masks."
    )
    side: int = Field(default=640, ge=0, description="Short side in pixels; 0 is 1.5 times the CLIP's image size.")
    start_layer: int = Field(
        default=-1, ge=-1, description="First block in which masks hold, from 0; -1 is two thirds of the CLIP's depth."
    )
    clip_side: int = Field(
        default=480, ge=0, description="Side in pixels of the square that the canvas is squashed to; 0 leaves it."
    )
    temperature: float = Field(default=100.0, ge=0, description="Multiplies cosines; 0 is the CLIP's own scale.")
    ensemble: bool = Field(default=False, description="Combine the scores with the host's, as the host does.")
    keep_best: bool = Field(
        default=False, description="A mask too small for any patch keeps the one that it covers most."
    )


class MaskedClipMethod(SourceMethod):
    """Names masks by one pass of a CLIP whose class tokens are masked.

    Attributes:
        start_layer: S, the first block in which masks hold.
    """

    Config = MaskedClipConfig
    config: MaskedClipConfig
    templates = "vild"
    sources: ClassVar[dict[str, Source]] = {
        **SourceMethod.sources,
        "resize": Source("code", "test-time resize: short side 640, long side up to 2560"),
        "side": Source("code", "MIN_SIZE_TEST 640"),
        "start_layer": Source(
            "code", "8 of 12 for ViT-B/16, whatever START_LAYERS says; 16 of 24 for ViT-L/14: author"
        ),
        "clip_side": Source("code", "480 x 480, hard-coded; the aspect ratio is lost"),
        "temperature": Source("code", "the constant 100, which is the scale of OpenAI's CLIPs"),
        "ensemble": Source("code", "CLIP_ENSEMBLE_WEIGHT 0; the paper's tables have both"),
        "keep_best": Source("code", "small masks vanish; the toy world's patches are too coarse for that"),
    }

    def __init__(self, clip: ClipModel, config: MaskedClipConfig | None = None):
        super().__init__(clip, config)
        check_start_layer(clip.visual, max(self.config.start_layer, 0))
        depth = len(clip.visual.transformer.resblocks)
        self.start_layer = depth * 2 // 3 if self.config.start_layer < 0 else self.config.start_layer

    @property
    def tower(self) -> Any:
        """The image tower that reads the masks."""
        return self.clip.visual

    @property
    def temperature(self) -> float:
        """Multiplies cosines."""
        return self.config.temperature or self.clip.logit_scale

    def score_candidates(self, canvas: Canvas, candidates: Candidates, text: TextFeatures) -> Tensor:
        """Return (N, M) class scores of masks, combined with the host's where `ensemble` is on.

        Raises:
            UsageError: `ensemble` is on and the masks come from no host.
        """
        logits = self.mask_logits(canvas, candidates.masks, text)
        if not self.config.ensemble:
            return clip_scores(logits)
        if candidates.class_logits is None or not isinstance(self.source, MaskMethod):
            raise UsageError(
                "ensemble: these masks come from no host, so there are no class logits to combine with.",
                "Leave it out, or take the masks of a host.",
            )
        height, width = canvas.area
        empty = ~(candidates.masks[:, :height, :width] > 0.5).flatten(1).any(1)
        return self.source.fuse(candidates.class_logits, logits, text.seen, empty)

    def mask_logits(self, canvas: Canvas, masks: Tensor, text: TextFeatures) -> Tensor:
        """Return (N, M) scaled cosines of masks (N, Hc, Wc) on a canvas."""
        return self.logits(self.mask_features([canvas], masks[None])[0], text)

    def mask_features(self, canvases: Sequence[Canvas], masks: Tensor) -> Tensor:
        """Return (B, N, D) features, not normalised, of masks (B, N, Hc, Wc) on canvases of one size."""
        prefix = run_prefix(self.tower, self.clip_images(canvases), self.start_layer)
        kept = kept_patches(masks, prefix.grid, keep_best=self.config.keep_best)
        return masked_from(self.tower, prefix, kept)

    def logits(self, features: Tensor, text: TextFeatures) -> Tensor:
        """Return (..., M) scaled cosines of (..., D) features, in float32 whatever the rest is computed in."""
        with torch.autocast(features.device.type, enabled=False):
            features = F.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)
            return self.temperature * features @ text.features.to(features).T

    def clip_images(self, canvases: Sequence[Canvas]) -> Tensor:
        """Return (B, 3, s, s): padded canvases of one size as CLIP sees them, squashed to a square of `clip_side`."""
        images = torch.stack([canvas.normalised(self.clip.mean * 255, self.clip.std * 255) for canvas in canvases])
        if not self.config.clip_side:
            return images
        return F.interpolate(images, (self.config.clip_side,) * 2, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def classify_masks(self, image: Tensor, masks: Tensor, text: TextFeatures) -> Tensor:
        """Score any masks of one picture; no source is needed.

        Args:
            image: (3, H, W) uint8 RGB.
            masks: (N, H, W), 0 to 1.
            text: Features of M names.

        Returns:
            (N, M) logits: scaled cosines. A mask without pixels gives a row of zeros; one that is too small for any
            patch is read as `keep_best` says.

        Raises:
            ShapeError: Masks and picture, or text and CLIP, do not fit together.
        """
        self.check_text(text)
        if masks.ndim != 3 or masks.shape[-2:] != image.shape[-2:]:
            raise ShapeError(f"masks {tuple(masks.shape)} and picture {tuple(image.shape)} differ in height or width")
        canvas, text = self.canvas(image), text.to(self.clip.device)
        masks = masks.to(canvas.image)
        if not len(masks):
            return masks.new_zeros(0, len(text.features))
        (height, width), (h, w) = canvas.size, canvas.area
        placed = F.interpolate(masks[:, None], (h, w), mode="bilinear", align_corners=False)[:, 0]
        logits = self.mask_logits(canvas, F.pad(placed, (0, width - w, 0, height - h)), text)
        return logits.masked_fill(~masks.flatten(1).any(1)[:, None], 0.0)
