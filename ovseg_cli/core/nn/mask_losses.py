"""What a mask generator is trained with: classification, focal mask and dice loss of matched queries, at each layer.

Every term is a sum divided by a number that the labels alone tell (`normalisers`), so that the terms of several
processes and micro-batches add up to the loss of the whole batch.

Source: MaskFormer's criterion as FreeSeg, ZSSeg and ZegFormer run it, on whole masks; the point-sampled loss that
FreeSeg's configuration names (Mask2Former's) is never built.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.nn.matcher import Match, MatchCost, Targets, match

TEMPERATURE_SCALE = 100.0
"""Multiplies the cosine of a class embedding and a text row."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; the defaults are FreeSeg's (ZSSeg and ZegFormer: dice 1).

    Attributes:
        classification, mask, dice: Of the three terms.
        no_object: Weight of "no object" in the classification's weighted mean.
        cost: Weights of the matching.
    """

    classification: float = 1.0
    mask: float = 20.0
    dice: float = 5.0
    no_object: float = 0.1
    cost: MatchCost = field(default_factory=MatchCost)


def class_logits(embeddings: Tensor, text: Tensor, scale: float = TEMPERATURE_SCALE) -> Tensor:
    """Return scaled cosines (..., K + 1) of embeddings (..., D) and text rows (K + 1, D), which are of unit length.

    In float32 (or wider) even under autocast: a hundredth of the cosine is a whole logit.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        return scale * F.normalize(embeddings, dim=-1) @ text.to(embeddings).T


def normalisers(labels: Tensor, queries: int, no_object: float = 0.1) -> dict[str, float]:
    """Say what the terms of a batch are divided by.

    Args:
        labels: (B, H, W), -1 where nothing is known.
        queries: Q.
        no_object: Weight of "no object".

    Returns:
        "masks": number of ground-truth masks; "class_weight": summed class weights of all queries. Both add up over
        processes and micro-batches.
    """
    counts = [int((torch.unique(one) >= 0).sum()) for one in labels]
    matched = sum(min(n, queries) for n in counts)
    rest = len(counts) * queries - matched
    return {"masks": float(sum(counts)), "class_weight": matched + no_object * rest}


def mask_losses(
    predictions: list[tuple[Tensor, Tensor]],
    targets: list[Targets],
    text: Tensor,
    totals: dict[str, float],
    weights: LossWeights | None = None,
    scale: float = TEMPERATURE_SCALE,
) -> dict[str, Tensor]:
    """Return the weighted terms of each prediction.

    Args:
        predictions: Embeddings (B, Q, D) and mask logits (B, Q, h, w): the final ones, then the earlier layers'.
        targets: One for each image.
        text: (K + 1, D), unit length, the non-object row last.
        totals: `normalisers`, summed over all parts of the batch.
        weights: Of the terms.
        scale: Of the cosine.

    Returns:
        "ce", "mask", "dice" of the final prediction, "ce_0", "mask_0", ... of the earlier ones.
    """
    weights = weights or LossWeights()
    losses: dict[str, Tensor] = {}
    for i, (embeddings, mask_logits) in enumerate(predictions):
        ending = f"_{i - 1}" if i else ""
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = class_logits(embeddings, text, scale)
            matches = match(logits, mask_logits, targets, weights.cost)
            terms = layer_losses(logits, mask_logits, targets, matches, totals, weights)
        losses |= {name + ending: value for name, value in terms.items()}
    return losses


def layer_losses(
    logits: Tensor,
    mask_logits: Tensor,
    targets: list[Targets],
    matches: list[Match],
    totals: dict[str, float],
    weights: LossWeights,
) -> dict[str, Tensor]:
    """Return the weighted terms "ce", "mask" and "dice" of one prediction whose queries are matched."""
    masks = max(totals["masks"], 1.0)
    predicted, wanted = matched_masks(mask_logits, targets, matches)
    return {
        "ce": weights.classification * class_loss(logits, targets, matches, weights.no_object) / totals["class_weight"],
        "mask": weights.mask * focal_loss(predicted, wanted).sum() / masks,
        "dice": weights.dice * dice_loss(predicted, wanted).sum() / masks,
    }


def class_loss(logits: Tensor, targets: list[Targets], matches: list[Match], no_object: float) -> Tensor:
    """Return the weighted sum of cross-entropies of (B, Q, K + 1); unmatched queries should say "no object"."""
    wanted = torch.full(logits.shape[:2], logits.shape[-1] - 1, device=logits.device)
    for i, (query, target) in enumerate(matches):
        wanted[i, query] = targets[i].classes.to(wanted)[target]
    class_weights = torch.ones(logits.shape[-1], device=logits.device)
    class_weights[-1] = no_object
    return F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), class_weights, reduction="sum")


def matched_masks(mask_logits: Tensor, targets: list[Targets], matches: list[Match]) -> tuple[Tensor, Tensor]:
    """Return logits and masks (n, H · W) of all pairs; the logits are brought to the masks' size, bilinearly."""
    predicted = torch.cat([one[query] for one, (query, _) in zip(mask_logits, matches, strict=True)])
    wanted = torch.cat([one.masks[target] for one, (_, target) in zip(targets, matches, strict=True)])
    size = targets[0].masks.shape[-2:]
    large = F.interpolate(predicted[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]
    return large.flatten(1), wanted.flatten(1).to(large)


def focal_loss(mask_logits: Tensor, masks: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return (n,), the mean sigmoid focal loss of each mask (n, P).

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, Eq. 5.
    """
    probabilities = mask_logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(mask_logits, masks, reduction="none")
    wrong = probabilities * (1 - masks) + (1 - probabilities) * masks
    balance = alpha * masks + (1 - alpha) * (1 - masks)
    return (balance * wrong**gamma * entropy).mean(1)


def dice_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Return (n,), one minus the dice coefficient of each mask (n, P), numerator and denominator plus 1.

    Source: Milletari et al., "V-Net", 3DV 2016; without the squares, plus 1, as MaskFormer's code.
    """
    probabilities = mask_logits.sigmoid()
    both = 2 * (probabilities * masks).sum(1)
    either = probabilities.sum(1) + masks.sum(1)
    return 1 - (both + 1) / (either + 1)
