"""What a mask-aware CLIP learns from: the overlap of its masks with the classes, and its own former self.

Losses are sums; the caller divides them by counts over the whole step, so that parts of a batch add up to its loss.

Source: Jiao et al., "Learning Mask-aware CLIP Representations for Zero-Shot Segmentation", NeurIPS 2023, and its code,
which fails on a batch without a labelled class. Here such a batch has no rows and a sum of zero.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class MeasuredMasks(Protocol):
    """N masks that are measured without being written out (core/proposals/regions.py, soft_masks.py)."""

    def __len__(self) -> int: ...

    def areas(self) -> Tensor:
        """Return the sum of each mask's probabilities, (N,)."""

    def overlaps(self, labels: Tensor, num_classes: int) -> Tensor:
        """Return the sum of each mask's probabilities over the pixels of each class, (N, K)."""


def present_classes(label: Tensor) -> Tensor:
    """Return the classes of a label map in rising order, (C,) int64; negative ids are no class."""
    return torch.bincount(label.clamp(min=-1).flatten() + 1)[1:].nonzero()[:, 0]


@torch.no_grad()
def soft_iou(masks: Tensor | MeasuredMasks, label: Tensor, classes: Tensor) -> Tensor:
    """Measure how far proposals cover classes, without a threshold.

    Args:
        masks: (N, h, w) probabilities; uint8 counts 255 as 1. Resized bilinearly to the label map where sizes differ.
            Or masks of the label's size that measure themselves.
        label: (H, W) int64 ids. Pixels of no class count as background: masks that cover them lose.
        classes: (C,) the ids to measure.

    Returns:
        (C, N) float32 (float64 for float64 masks): sum(t·m) / (sum(t) + sum(m) - sum(t·m) + 1e-7).
    """
    pixels = torch.bincount(label.clamp(min=-1).flatten() + 1)[1:][classes][:, None]
    if isinstance(masks, Tensor):
        overlap, area = _measured(masks, label, classes)
    elif len(classes):
        overlap, area = masks.overlaps(label, int(classes.max()) + 1)[:, classes].T, masks.areas()
    else:
        return torch.zeros(0, len(masks), device=label.device)
    return overlap / (pixels + area - overlap + 1e-7)


def _measured(masks: Tensor, label: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return overlaps (C, N) and areas (N,) of written-out masks by one matrix product."""
    scale = 255 if masks.dtype == torch.uint8 else 1
    masks = masks if masks.dtype in (torch.float32, torch.float64) else masks.float()
    if masks.shape[-2:] != label.shape and len(masks):
        masks = F.interpolate(masks[:, None], tuple(label.shape), mode="bilinear", align_corners=False)[:, 0]
    truth = (label.flatten() == classes[:, None]).to(masks.dtype)  # (C, H·W)
    rows = torch.cat([truth, truth.new_ones(1, label.numel())])
    with torch.autocast(masks.device.type, enabled=False):
        sums = rows @ masks.reshape(len(masks), label.numel()).T / scale
    return sums[:-1], sums[-1]


def normalised_rows(iou: Tensor) -> Tensor:
    """Stretch each row of (C, N) overlaps to 0 for the worst proposal and 1 for the best."""
    if not iou.numel():
        return iou
    low, high = iou.amin(1, keepdim=True), iou.amax(1, keepdim=True)
    return (iou - low) / (high - low + 1e-8)


def mask_aware_sum(probabilities: Tensor, masks: Tensor | MeasuredMasks, label: Tensor) -> Tensor:
    """Ask that a proposal's probability of a class be its overlap with the class.

    Args:
        probabilities: (N, K) softmax over the K training classes.
        masks: N of them, as in `soft_iou`.
        label: (H, W) int64, below 0 where no loss is.

    Returns:
        Sum of SmoothL1 (beta 1) over present classes × N proposals; divide by `mask_aware_count` of the whole step.
    """
    classes = present_classes(label)
    targets = normalised_rows(soft_iou(masks, label, classes)).to(probabilities)
    return F.smooth_l1_loss(probabilities[:, classes].T, targets, reduction="sum")


def mask_aware_count(count: int, label: Tensor) -> int:
    """Count the terms of `mask_aware_sum`: present classes × N proposals."""
    return len(present_classes(label)) * count


def distillation_sum(student: Tensor, teacher: Tensor) -> Tensor:
    """Ask that whole pictures be named as before.

    Args:
        student: (B, K) logits of the tuned CLIP without masks.
        teacher: (B, K) logits of the frozen CLIP.

    Returns:
        Sum of SmoothL1 (beta 1) between the two softmaxes, a mean over classes each; divide by the pictures of a step.
    """
    gaps = F.smooth_l1_loss(student.softmax(-1), teacher.detach().softmax(-1), reduction="none")
    return gaps.mean(-1).sum()
