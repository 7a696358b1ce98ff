"""Cross-entropy on covered pixels, in plain form (the fast form takes its place)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def covered_bce_sum(maps: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
    """Sum it."""
    up = F.interpolate(maps.float(), ids.shape[-2:], mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    wanted = torch.stack([table[i.long()] for i, table in zip(ids, targets, strict=True)]).float()
    covered = wanted.any(-1)
    return F.binary_cross_entropy_with_logits(up[covered], wanted[covered], reduction="sum")


def covered_pixels(ids: Tensor, targets: Tensor) -> int:
    """Count them."""
    return int(sum(table.any(1)[i.long()].sum() for i, table in zip(ids, targets, strict=True)))
