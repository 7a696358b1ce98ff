"""Masks that a host makes anew for every training example, as MAFT was published, instead of a cache.

The host sees the example itself: cropped, mirrored, its colours changed. Its weights and running means stay as they
are, but its dropout is on, as in the official code, whose generator runs in training mode. It is the slow way: the
generator runs in each step, and `benchmarks/` says what that costs.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.methods.masked import Canvas
from ovseg_cli.core.proposals.soft_masks import bilinear
from ovseg_cli.core.types import TextFeatures, TrainBatch

STRIDE = 4
"""Masks are handed over at one value for so many pixels, squared: the grid on which hosts compute."""


class MadeInStep(Protocol):
    """Makes the masks of a batch in the training step itself."""

    @property
    def digest(self) -> str:
        """Fingerprint of all that the masks depend on but the pictures."""

    def of(self, batch: TrainBatch) -> list[dict[str, Tensor]]:
        """Return the masks of each example, in the form that `MaskCrops.of` takes."""


class LiveMasks:
    """Asks a host for the masks of training batches.

    Args:
        host: A `MaskMethod` with its weights.
        text: Features of the names that its masks may depend on: of seen classes only.
    """

    def __init__(self, host: Any, text: TextFeatures):
        self.host, self.text = host, text.to(host.clip.device)
        self.host.eval()
        for module in self.host.modules():
            if isinstance(module, nn.Dropout | nn.MultiheadAttention):
                module.train()

    @property
    def digest(self) -> str:
        """Fingerprint of the host."""
        return str(self.host.digest)

    @torch.no_grad()
    def of(self, batch: TrainBatch) -> list[dict[str, Tensor]]:
        """Return the masks of each example, in the form that `MaskCrops.of` takes; empty outside the example.

        Args:
            batch: "images" (B, 3, H, W) uint8 on any device, and "areas" (B, 2).
        """
        images = batch["images"].to(self.host.clip.device)
        height, width = int(images.shape[-2]), int(images.shape[-1])
        unit = self.host.config.size_divisibility
        size = -(-height // unit) * unit, -(-width // unit) * unit
        canvases = [Canvas(image.float(), size, image) for image in images]
        found = self.host.propose(canvases, self.text)
        areas = batch["areas"].tolist()
        return [
            _crop(candidates.masks[:, :height, :width], (height, width), area)
            for candidates, area in zip(found, areas, strict=True)
        ]


def _crop(masks: Tensor, canvas: tuple[int, int], area: list[int]) -> dict[str, Tensor]:
    """Keep (N, H, W) probabilities at the stride, and how they become the canvas again, zero outside the example."""
    grid = [-(-side // STRIDE) for side in canvas]
    levels = F.interpolate(masks[:, None].float(), grid, mode="area")[:, 0] if len(masks) else masks.new_zeros(0, *grid)
    rows, columns = (bilinear(source, side, masks.device) for source, side in zip(grid, canvas, strict=True))
    rows[area[0] :], columns[area[1] :] = 0, 0
    return {"levels": (levels * 255).round().clamp(0, 255).to(torch.uint8), "rows": rows, "columns": columns}
