"""The straightforward form of a `SigmoidPrediction`: all scores of all windows at full size.

Written after mmseg's `slide_inference` (padded windows are added up, a second map counts them, the mean is resized) and
the inference heads of ZegCLIP and TagCLIP; it shares no code with the package. M x H x W numbers, several times.
"""

import torch
import torch.nn.functional as F


def window_scores(logits, size, penalty=None, trust=None, gate=None):
    """Scores of one window, (M, *size), from its logits (M, h, w) and trust logits (h, w)."""
    scores = F.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)[0].sigmoid()
    if penalty is not None:
        scores = scores - penalty[:, None, None]
    if trust is not None:
        weight = F.interpolate(trust[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0].sigmoid()
        scores[gate == 1] *= weight
        scores[gate == -1] *= 1 - weight
    return scores


def straight_scores(prediction, size=None):
    """All scores, (M, H, W)."""
    height, width = prediction.canvas
    total = torch.zeros(prediction.logits.shape[1], height, width)
    count = torch.zeros(1, height, width)
    for i, (top, left, tall, wide) in enumerate(prediction.boxes.tolist()):
        trust = None if prediction.trust is None else prediction.trust[i]
        scores = window_scores(prediction.logits[i], (tall, wide), prediction.penalty, trust, prediction.gate)
        total += F.pad(scores, (left, width - left - wide, top, height - top - tall))
        count[:, top : top + tall, left : left + wide] += 1
    mean = total / count
    return F.interpolate(mean[None], size or prediction.size, mode="bilinear", align_corners=False)[0]


def straight_labels(prediction):
    """The class of every pixel, (H, W), where row m speaks for class m."""
    return straight_scores(prediction).argmax(0)
