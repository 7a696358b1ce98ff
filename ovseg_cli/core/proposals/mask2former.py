"""Mask2Former and MaskFormer as class-agnostic generators: all queries' masks, whatever class they were given.

Cheng et al., "Masked-attention Mask Transformer", CVPR 2022; "Per-Pixel Classification is Not All You Need", NeurIPS
2021. Networks and preprocessing are the transformers library's. The class is thrown away: a mask's score is the
probability that the query names any object at all, 1 - P(no object), times the mean probability of its own pixels, as
Mask2Former's instance inference weighs a class by it.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ovseg_cli.core.proposals.base import GeneratorConfig, ProposalGenerator
from ovseg_cli.core.proposals.tiny_models import TINY
from ovseg_cli.core.reporter import Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.types import Proposals

_SIZES = ("tiny", "small", "base", "large")
_TRAINED_ON = {
    "mask2former": ("coco-instance", "coco-panoptic", "ade-semantic"),
    "maskformer": ("coco", "ade"),
}
KNOWN = {
    f"{family}-swin-{size}-{data}": f"facebook/{family}-swin-{size}-{data}"
    for family, sets in _TRAINED_ON.items()
    for data in sets
    for size in _SIZES
} | {name: name for name in TINY if "former" in name}
KINDS = {"mask2former": "Mask2Former", "maskformer": "MaskFormer"}  # model_type → what transformers names classes
_UPSAMPLED = 2**24  # values that are brought to the picture's size at once: 64 MiB


class Mask2FormerConfig(GeneratorConfig):
    """Settings of Mask2Former's masks."""

    model: str = Field(
        default="mask2former-swin-large-coco-panoptic",
        description="mask2former-swin-…, maskformer-swin-…, a repository on the Hugging Face hub or a local folder.",
    )
    weights: str = Field(
        default="published", description="'published', or 'random' to try the code path, with model = tiny-mask2former."
    )
    soft: bool = Field(
        default=False,
        description="Keep probabilities on the network's grid (never finer than the picture) instead of masks.",
    )
    threshold: float = Field(
        default=0.5, ge=0, lt=1, description="Probability from which a pixel belongs to a mask, for area and score too."
    )
    min_score: float = Field(default=0.0, ge=0, le=1, description="Masks of lower score are dropped.")
    min_area: int = Field(default=1, ge=0, description="Masks of fewer pixels of the picture are dropped.")


class Mask2Former(ProposalGenerator):
    """Takes the masks of all queries."""

    name: ClassVar[str] = "mask2former"
    title: ClassVar[str] = "Mask2Former, MaskFormer"
    source: ClassVar[str] = "Cheng et al., CVPR 2022 and NeurIPS 2021"
    Config: ClassVar[type[GeneratorConfig]] = Mask2FormerConfig
    needs_weights: ClassVar[bool] = True
    sources: ClassVar[dict[str, str]] = {
        "model": "ours: the largest published on COCO with things and stuff",
        "threshold": "code: 0.5",
        "min_score": "ours: a score orders, `max_masks` cuts",
        "min_area": "ours: only empty masks go",
        "soft": "ours",
    }
    config: Mask2FormerConfig

    def __init__(self, config: Mask2FormerConfig | None = None, device: str = "cpu", reporter: Reporter | None = None):
        super().__init__(config or Mask2FormerConfig(), device, reporter)
        from transformers import AutoModelForUniversalSegmentation

        from ovseg_cli.core.proposals.weights import image_processor, load_transformers, processor_class, resolve_name

        name, what = resolve_name(self.config.model, KNOWN, "Mask2Former model"), "Mask2Former or MaskFormer"
        loaded = load_transformers(
            AutoModelForUniversalSegmentation, name, self.config.weights, tuple(KINDS), what, self.reporter
        )
        self.model: Any = loaded[0].to(device)
        self.processor = image_processor(loaded[1], lambda: processor_class(KINDS[self.model.config.model_type])())

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
            At most one mask a query, best score first: bool (N, H, W), or soft uint8 (N, h, w) on the network's grid.
        """
        import torch

        from ovseg_cli.core.types import Proposals

        size = (int(image.shape[1]), int(image.shape[2]))
        logits, objectness = self.queries(image)
        target = (min(logits.shape[1], size[0]), min(logits.shape[2], size[1])) if self.config.soft else size
        chunks = logits.split(max(1, _UPSAMPLED // (target[0] * target[1])))
        parts = [self._masks(chunk, target) for chunk in chunks]
        masks, quality, share = (torch.cat([part[i] for part in parts]) for i in range(3))
        scores = objectness * quality
        keep = (scores >= self.config.min_score) & (share * size[0] * size[1] >= self.config.min_area)
        order = scores.masked_fill(~keep, -1).argsort(descending=True, stable=True)
        order = order[: min(int(keep.sum()), self.config.max_masks)]
        return Proposals(masks[order.cpu()], scores[order].cpu(), size)

    def queries(self, image: "Tensor") -> "tuple[Tensor, Tensor]":
        """Run the network.

        Args:
            image: (3, H, W) uint8 RGB.

        Returns:
            Mask logits of all queries on a grid that covers the picture, (Q, h, w), and the probability that a query
            names an object, (Q,).
        """
        import torch

        inputs = self.processor(images=image, input_data_format="channels_first", return_tensors="pt")
        with torch.no_grad():
            out = self.model(pixel_values=inputs["pixel_values"].to(self.device))
        logits = out.masks_queries_logits[0].float()
        filled = inputs["pixel_mask"][0]
        objectness = 1 - out.class_queries_logits[0].float().softmax(-1)[:, -1]
        return cut_padding(logits, filled), objectness

    def _masks(self, logits: "Tensor", size: tuple[int, int]) -> "tuple[Tensor, Tensor, Tensor]":
        """Return masks as they are kept (on the CPU), their quality, and the share of the picture that they cover."""
        from torch.nn import functional as F

        probabilities = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0].sigmoid()
        inside = probabilities > self.config.threshold
        area = inside.sum((1, 2))
        quality = (probabilities * inside).sum((1, 2)) / area.clamp(min=1)
        masks = (probabilities * 255).round().byte() if self.config.soft else inside
        return masks.cpu(), quality, area / (size[0] * size[1])


def cut_padding(logits: "Tensor", filled: "Tensor") -> "Tensor":
    """Return the part of mask logits that lies on the picture.

    Args:
        logits: (Q, h, w) on a grid over the network's padded input.
        filled: (H', W'), 1 where that input is picture; the picture lies at the top left.

    Returns:
        (Q, h', w'). Where the picture ends inside a cell, the logits are resampled, so that the grid ends with it.
    """
    from torch.nn import functional as F

    padded = (int(filled.shape[0]), int(filled.shape[1]))
    inside = (int(filled[:, 0].sum()), int(filled[0].sum()))
    if inside == padded:
        return logits
    grid = tuple(max(1, round(n * i / p)) for n, i, p in zip(logits.shape[1:], inside, padded, strict=True))
    full = F.interpolate(logits[None], padded, mode="bilinear", align_corners=False)[..., : inside[0], : inside[1]]
    return F.interpolate(full, grid, mode="bilinear", align_corners=False)[0]
