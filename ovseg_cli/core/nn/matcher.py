"""Which query answers for which ground-truth mask? The pairing of least total cost, found image by image.

Source: Cheng et al., "Per-Pixel Classification is Not All You Need", NeurIPS 2021 (MaskFormer), with a focal mask cost;
FreeSeg, ZSSeg and ZegFormer use it with their own weights.
"""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Targets:
    """What one picture holds: one binary mask a class that is present.

    Attributes:
        classes: (n,) int64, rising.
        masks: (n, H, W) float, 0 or 1. Pixels without label are in none: they act as background.
    """

    classes: Tensor
    masks: Tensor

    @classmethod
    def of_labels(cls, labels: Tensor) -> "Targets":
        """Return the targets of a label map (H, W), -1 where nothing is known."""
        classes = torch.unique(labels)
        classes = classes[classes >= 0]
        return cls(classes, (labels[None] == classes[:, None, None]).float())


@dataclass(frozen=True)
class MatchCost:
    """Weights of the three costs; the defaults are FreeSeg's (ZSSeg and ZegFormer: dice 1)."""

    classification: float = 1.0
    mask: float = 20.0
    dice: float = 5.0


Match = tuple[Tensor, Tensor]
"""(query, target): int64 indices of equal length, queries rising."""


@torch.no_grad()
def match(logits: Tensor, mask_logits: Tensor, targets: list[Targets], cost: MatchCost | None = None) -> list[Match]:
    """Pair queries with targets, image by image.

    Args:
        logits: Class logits (B, Q, K + 1), the last column "no object".
        mask_logits: (B, Q, h, w).
        targets: One for each image; masks of any size.
        cost: Weights.

    Returns:
        For each image the paired queries and targets; min(Q, n) pairs.
    """
    weights = cost or MatchCost()
    return [match_image(*pair, weights) for pair in zip(logits, mask_logits, targets, strict=True)]


def match_image(logits: Tensor, mask_logits: Tensor, targets: Targets, cost: MatchCost) -> Match:
    """Pair queries (Q, K + 1), (Q, h, w) with the targets of one image, which are brought to (h, w) by nearest."""
    if not len(targets.classes):
        nothing = torch.zeros(0, dtype=torch.int64, device=logits.device)
        return nothing, nothing
    small = F.interpolate(targets.masks[:, None], mask_logits.shape[-2:], mode="nearest")[:, 0].flatten(1)
    flat = mask_logits.flatten(1).float()
    small = small.to(flat)
    total = (
        cost.classification * -logits.float().softmax(-1)[:, targets.classes]
        + cost.mask * focal_cost(flat, small)
        + cost.dice * dice_cost(flat, small)
    )
    query, target = linear_sum_assignment(total.cpu().numpy())
    return torch.as_tensor(query, device=logits.device), torch.as_tensor(target, device=logits.device)


def focal_cost(mask_logits: Tensor, masks: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return (Q, n), the mean focal loss of each query (Q, P) as each mask (n, P)."""
    probabilities = mask_logits.sigmoid()
    inside = alpha * (1 - probabilities) ** gamma * F.softplus(-mask_logits)
    around = (1 - alpha) * probabilities**gamma * F.softplus(mask_logits)
    return (inside @ masks.T + around @ (1 - masks).T) / mask_logits.shape[1]


def dice_cost(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Return (Q, n), the dice loss of each query (Q, P) as each mask (n, P), numerator and denominator plus 1."""
    probabilities = mask_logits.sigmoid()
    both = 2 * probabilities @ masks.T
    either = probabilities.sum(1)[:, None] + masks.sum(1)[None]
    return 1 - (both + 1) / (either + 1)
