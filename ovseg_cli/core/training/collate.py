"""How do examples become a batch that travels, and how does what has arrived become what methods take?"""

from typing import Any

import numpy as np
import torch

from ovseg_cli.core.training.mask_crops import MaskCrops
from ovseg_cli.core.types import TrainBatch

NO_CLASS = -1
"""Label of pixels without a loss: not labelled, not seen, or outside the picture."""


def collate(examples: list[dict[str, Any]]) -> TrainBatch:
    """Put examples of one size together.

    Args:
        examples: "image" (H, W, 3) uint8, "label" (H, W) int16, "area" (height, width), "name", and, where methods want
            them, "masks" from `crop_masks`, "strong", another view like "image", and "cut_out", the box hidden in it.

    Returns:
        "images" (B, 3, H, W) uint8, "labels" (B, H, W) int16, "areas" (B, 2), "classes", the classes that occur
        in each label, "names", and perhaps "masks", "strong" (B, 3, H, W) uint8 and "cut_outs" (B, 4) int64.
    """
    batch: TrainBatch = {
        "images": _stacked([e["image"] for e in examples]),
        "labels": torch.from_numpy(np.stack([e["label"] for e in examples])),
        "areas": torch.tensor([e["area"] for e in examples]),
        "classes": [occurring(e["label"]) for e in examples],
        "names": [e["name"] for e in examples],
    }
    if "masks" in examples[0]:
        batch["masks"] = [e["masks"] for e in examples]
    if "strong" in examples[0]:
        batch["strong"] = _stacked([e["strong"] for e in examples])
        batch["cut_outs"] = torch.tensor([e["cut_out"] for e in examples])
    return batch


def _stacked(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def occurring(label: np.ndarray) -> torch.Tensor:
    """Return the classes that occur in a label (H, W) of integers, in order, int64; negative values are none."""
    return torch.from_numpy(np.flatnonzero(np.bincount(np.maximum(label, NO_CLASS).ravel() + 1)[1:]))


def ready(batch: TrainBatch) -> TrainBatch:
    """Bring a batch of `TrainData`, on any device, to what methods take.

    Returns:
        Labels int64; "masks" a `MaskCrops`: a sequence of (N_i, H, W) uint8 tensors that are written out when asked
        for, and whose `crops` answer what can be known without (grid-sized masks, overlaps with a label).
    """
    masks = {"masks": MaskCrops.of(batch["masks"])} if "masks" in batch else {}
    return {**batch, "labels": batch["labels"].long(), **masks}
