"""Segment Anything as a mask generator: a grid of points asks for masks, the doubtful and the double ones go.

Kirillov et al., "Segment Anything", ICCV 2023; Ravi et al., "SAM 2", 2024; Carion et al., "SAM 3", 2025 (its tracker,
the part that takes points). Networks are the transformers library's; the steps around them follow the automatic mask
generator of Segment Anything's code: three masks a point, predicted IoU, stability, non-maximum suppression over boxes
within a crop, then across crops (smaller crops first), then small holes and islands.

Ours: masks stay on the network's coarse grid until suppression is done, so that a picture with thousands of
candidates needs little memory; the masks are the same. Points are scaled along each axis, since SAM 2 and SAM 3
squash pictures to a square.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ovseg_cli.core.proposals.base import GeneratorConfig, ProposalGenerator
from ovseg_cli.core.reporter import Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.proposals.point_grid import Crop
    from ovseg_cli.core.proposals.sam_network import Encoded
    from ovseg_cli.core.types import Proposals


class SamConfig(GeneratorConfig):
    """Settings of Segment Anything's masks."""

    max_masks: int = Field(default=1000, ge=1, description="At most so many masks a picture; the best scores are kept.")
    model: str = Field(
        default="sam-vit-huge",
        description="sam-vit-…, sam2.1-hiera-…, sam3, a repository on the Hugging Face hub or a local folder.",
    )
    weights: str = Field(
        default="published", description="'published', or 'random' to try the code path, with model = tiny-sam."
    )
    points_per_side: int = Field(default=32, ge=1, description="Points of the grid along each side.")
    points_per_batch: int = Field(default=64, ge=1, description="Points that are asked at once; changes only memory.")
    predicted_iou: float = Field(default=0.88, description="Masks of which the network expects less IoU are dropped.")
    stability: float = Field(
        default=0.95, ge=0, le=1, description="Masks that change more when the threshold moves are dropped."
    )
    stability_offset: float = Field(default=1.0, gt=0, description="How far the threshold moves, in logits.")
    mask_threshold: float = Field(default=0.0, description="Logit from which a pixel belongs to a mask.")
    box_iou: float = Field(
        default=0.7, gt=0, le=1, description="Of boxes in a crop that overlap by more, the best stays; 1 keeps all."
    )
    min_area: int = Field(default=0, ge=0, description="Holes and islands of fewer pixels are removed; 0 leaves them.")
    crop_layers: int = Field(
        default=0, ge=0, le=4, description="Layers of crops that are asked too: 1 adds 2 × 2 crops, 2 also 4 × 4."
    )
    crop_overlap: float = Field(
        default=512 / 1500, ge=0, lt=1, description="Share of the short side that crops of the first layer share."
    )
    crop_points_divisor: int = Field(
        default=1, ge=1, description="Points per side are divided by this once for each layer of crops."
    )
    crop_box_iou: float = Field(default=0.7, gt=0, le=1, description="As box_iou, between crops.")


@dataclass(frozen=True)
class Candidates:
    """Masks of one crop that passed the thresholds, still on the network's grid.

    Attributes:
        logits: (N, h, w).
        boxes: (N, 4) float32 left, top, right, bottom in the picture.
        scores: (N,) IoU that the network expects.
    """

    logits: "Tensor"
    boxes: "Tensor"
    scores: "Tensor"

    def pick(self, index: "Tensor") -> "Candidates":
        """Return some of them."""
        return Candidates(self.logits[index], self.boxes[index], self.scores[index])


class Sam(ProposalGenerator):
    """Asks Segment Anything at a grid of points."""

    name: ClassVar[str] = "sam"
    title: ClassVar[str] = "Segment Anything (SAM, SAM 2, SAM 3)"
    source: ClassVar[str] = "Kirillov et al., ICCV 2023; Ravi et al., 2024; Carion et al., 2025"
    Config: ClassVar[type[GeneratorConfig]] = SamConfig
    needs_weights: ClassVar[bool] = True
    sources: ClassVar[dict[str, str]] = {
        "model": "code: SAM's largest",
        "points_per_side": "code: 32",
        "points_per_batch": "code: 64",
        "predicted_iou": "code: 0.88 (SAM 2's own generator takes 0.8)",
        "stability": "code: 0.95",
        "stability_offset": "code: 1.0",
        "mask_threshold": "code: 0",
        "box_iou": "code: 0.7",
        "min_area": "code: 0 (100 is common)",
        "crop_layers": "code: 0",
        "crop_overlap": "code: 512 / 1500",
        "crop_points_divisor": "code: 1",
        "crop_box_iou": "code: 0.7",
        "max_masks": "ours: practically all",
    }
    config: SamConfig

    def __init__(self, config: SamConfig | None = None, device: str = "cpu", reporter: Reporter | None = None):
        super().__init__(config or SamConfig(), device, reporter)
        from ovseg_cli.core.proposals.sam_network import SamNetwork

        self.network = SamNetwork(self.config.model, self.config.weights, device, self.reporter)

    @cached_property
    def weights(self) -> str:
        """Fingerprint of the network's weights."""
        from ovseg_cli.core.proposals.weights import weights_digest

        return weights_digest(self.network.module)

    def generate(self, image: "Tensor", label: "Tensor | None" = None) -> "Proposals":
        """Make the masks of one picture.

        Args:
            image: (3, H, W) uint8 RGB.
            label: Not used.

        Returns:
            Bool masks, which may overlap, best expected IoU first; none where no mask passes the thresholds.
        """
        import torch

        from ovseg_cli.core.proposals.mask_filters import drop_duplicates
        from ovseg_cli.core.types import Proposals

        size = (int(image.shape[1]), int(image.shape[2]))
        parts = [self._crop(image, layer, crop) for layer, crop in self._crops(size)]
        masks = torch.cat([masks for masks, _, _, _ in parts])
        boxes, scores, first = (torch.cat([part[i] for part in parts]) for i in (1, 2, 3))
        if len(parts) > 1:
            keep = drop_duplicates(boxes, first, self.config.crop_box_iou)
            masks, boxes, scores = masks[keep], boxes[keep], scores[keep]
        if self.config.min_area:
            masks, scores = self._tidy(masks, boxes, scores)
        order = scores.argsort(descending=True, stable=True)[: self.config.max_masks]
        return Proposals(masks[order], scores[order], size)

    def _crops(self, size: tuple[int, int]) -> "list[tuple[int, Crop]]":
        from ovseg_cli.core.proposals.point_grid import crop_layers

        return crop_layers(size, self.config.crop_layers, self.config.crop_overlap)

    def _crop(self, image: "Tensor", layer: int, crop: "Crop") -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """Return a crop's masks in the picture, boxes, scores, and their rank among crops; all on the CPU."""
        import torch

        from ovseg_cli.core.proposals.mask_filters import drop_duplicates
        from ovseg_cli.core.proposals.point_grid import point_grid

        config, (left, top, right, bottom) = self.config, crop
        encoded = self.network.encode(image[:, top:bottom, left:right])
        points = point_grid(max(1, config.points_per_side // config.crop_points_divisor**layer))
        size = (int(image.shape[1]), int(image.shape[2]))
        found = [self._ask(encoded, batch, crop, size) for batch in points.split(config.points_per_batch)]
        logits, boxes, scores = (torch.cat([getattr(f, key) for f in found]) for key in ("logits", "boxes", "scores"))
        kept = Candidates(logits, boxes, scores).pick(drop_duplicates(boxes, scores, config.box_iou))
        masks = torch.zeros((len(kept.scores), *size), dtype=torch.bool)
        masks[:, top:bottom, left:right] = self._cut(kept.logits, encoded)
        rank = torch.full((len(kept.scores),), 1 / ((right - left) * (bottom - top)), dtype=torch.float64)
        return masks, kept.boxes.cpu(), kept.scores.cpu().float(), rank

    def _ask(self, encoded: "Encoded", points: "Tensor", crop: "Crop", size: tuple[int, int]) -> Candidates:
        """Return the masks at some points that pass the thresholds."""
        import torch

        from ovseg_cli.core.proposals.mask_filters import touches_crop_edge
        from ovseg_cli.core.proposals.sam_network import chunk_size

        logits, scores = self.network.decode(encoded, points)
        sure = scores > self.config.predicted_iou
        logits, scores = logits[sure], scores[sure]
        judged = [self._judge(chunk, encoded) for chunk in logits.split(chunk_size(encoded))]
        stable = torch.cat([keep for keep, _ in judged])
        boxes = torch.cat([boxes for _, boxes in judged]) + torch.tensor(crop[:2] * 2, device=logits.device)
        stable &= ~touches_crop_edge(boxes, crop, size)
        return Candidates(logits, boxes, scores).pick(stable)

    def _judge(self, logits: "Tensor", encoded: "Encoded") -> "tuple[Tensor, Tensor]":
        """Return at full size which of a few masks are stable and not empty, and their boxes in the crop."""
        from ovseg_cli.core.proposals.mask_filters import areas, mask_boxes, stability_scores
        from ovseg_cli.core.proposals.sam_network import full_size

        config = self.config
        maps = full_size(logits, encoded)
        masks = maps > config.mask_threshold
        stable = stability_scores(maps, config.mask_threshold, config.stability_offset) >= config.stability
        return stable & (areas(masks) > 0), mask_boxes(masks)

    def _cut(self, logits: "Tensor", encoded: "Encoded") -> "Tensor":
        """Return the bool masks of a crop at full size, on the CPU."""
        import torch

        from ovseg_cli.core.proposals.sam_network import chunk_size, full_size

        chunks = logits.split(chunk_size(encoded))
        return torch.cat([(full_size(c, encoded) > self.config.mask_threshold).cpu() for c in chunks])

    def _tidy(self, masks: "Tensor", boxes: "Tensor", scores: "Tensor") -> "tuple[Tensor, Tensor]":
        """Remove small holes and islands, then duplicates among what that changed: unchanged masks win."""
        import torch

        from ovseg_cli.core.proposals.mask_filters import drop_duplicates, mask_boxes, remove_small_regions

        results = [remove_small_regions(mask.numpy(), self.config.min_area) for mask in masks]
        if not results:
            return masks, scores
        masks = torch.stack([torch.from_numpy(mask) for mask, _ in results])
        changed = torch.tensor([changed for _, changed in results])
        boxes = torch.where(changed[:, None], mask_boxes(masks), boxes)
        keep = drop_duplicates(boxes, (~changed).float(), max(self.config.box_iou, self.config.crop_box_iou))
        return masks[keep], scores[keep]
