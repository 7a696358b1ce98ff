"""Focal and dice loss of one mask a class, without any class-by-pixel tensor that stays.

Source: ZegCLIP's non-mutually-exclusive loss, code (the paper's equation of the same name). With logits x of C classes
at every pixel, p = sigmoid(x), and y = 1 where a pixel has the class, else 0. A pixel without a class is a negative of
all classes: it is not left out.

    focal = Σ over (picture, class) of the mean over pixels of a_t (1 - p_t)² BCE(x, y);   a_t = y ? 0.25 : 0.75
    dice  = Σ over (picture, present class) of 1 - (2 Σ p y + 1) / (Σ p + Σ y + 1)

Both are divided by the number of (picture, present class) pairs of the whole batch, at least 1 (the caller does it).

The straightforward form up-samples the logits and holds targets, probabilities and their products at full size for
the backward pass, some ten tensors of B·C·H·W. Here a few classes at a time are up-sampled, their losses and the
gradients by their small logits are computed at once, and all that is full-size is forgotten.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.nn.resize import bilinear_axis

ALPHA = 0.25
_untranslated: Any = torch._disable_dynamo
"""Keeps torch.compile away from loops over classes, which would be translated for every batch anew and fail. As
`torch.compiler.disable`, but what that needs is imported at the first call: it takes seconds."""
VALUES_AT_ONCE = (1 << 18, 1 << 24)
"""Class-by-pixel values of a picture that exist at once: what fits a processor's cache; what keeps a GPU busy."""


@_untranslated
def mask_class_sums(small: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum focal and dice loss over pictures and classes.

    Args:
        small: (B, C, h, w) logits, up-sampled bilinearly (corners not aligned) to the labels' size.
        labels: (B, H, W) int64, the class of a pixel, 0 to C - 1; below 0: none.

    Returns:
        Two scalars with gradients: focal (of each row the mean over pixels), dice.
    """
    focal, dice = _MaskClassSums.apply(small.float(), labels)
    return focal, dice


def binary_focal_sum(small: Tensor, target: Tensor) -> Tensor:
    """Sum the focal loss of one binary map a picture.

    Args:
        small: (B, h, w) logits.
        target: (B, H, W) bool.

    Returns:
        Scalar with gradient: the sum over pictures of the mean over pixels.
    """
    labels = target.long() - 1  # the one class, or none
    return mask_class_sums(small[:, None], labels)[0]


def present_pairs(labels: Tensor) -> int:
    """Count the pairs of a picture and a class that is in it; labels (B, H, W), below 0: none."""
    return sum(int((torch.unique(label) >= 0).sum()) for label in labels)


class _MaskClassSums(torch.autograd.Function):
    """The sums, and their gradients by the small logits, computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, small: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = (_weights(small, labels, axis) for axis in (0, 1))
        wants = ctx.needs_input_grad[0]
        grads = (torch.zeros_like(small), torch.zeros_like(small)) if wants else None
        focal, dice = small.new_zeros(2)
        step = max(1, VALUES_AT_ONCE[small.device.type == "cuda"] // labels[0].numel())
        with torch.autocast(small.device.type, enabled=False):
            for b, label in enumerate(labels):
                present = [k for k in torch.unique(label).tolist() if 0 <= k < small.shape[1]]
                for start in range(0, small.shape[1], step):
                    part = range(start, min(start + step, small.shape[1]))
                    sums = _Classes(rows @ small[b, part.start : part.stop] @ columns.T, label, part, present)
                    focal, dice = focal + sums.focal(), dice + sums.dice()
                    if grads is not None:
                        grads[0][b, part.start : part.stop] = rows.T @ sums.focal_slope() @ columns
                        for k, slope in sums.dice_slopes().items():
                            grads[1][b, k] = rows.T @ slope @ columns
        ctx.save_for_backward(*(grads or ()))
        return focal, dice

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        focal, dice = ctx.saved_tensors
        return focal * outer[0] + dice * outer[1], None


def _weights(small: Tensor, labels: Tensor, axis: int) -> Tensor:
    """Return the (H, h) or (W, w) matrix that up-samples one axis."""
    target = int(labels.shape[1 + axis])
    return bilinear_axis(int(small.shape[2 + axis]), target).weights(torch.arange(target)).to(small)


@dataclass(frozen=True)
class _Present:
    """A class of the picture among the rows.

    Attributes:
        row: Its row.
        own: Its pixels, flat positions.
        p, cost: There the probability, and -log of it.
        above, below: Numerator and denominator of its dice.
    """

    row: int
    own: Tensor
    p: Tensor
    cost: Tensor
    above: Tensor
    below: Tensor


class _Classes:
    """Some classes of one picture at full size: their losses, and the slopes of these by the logits.

    Every pixel is first taken for a negative; the few positives are put right.

    Args:
        logits: (K, H, W).
        label: (H, W).
        part: The classes that the K rows stand for.
        present: Classes of the picture.
    """

    def __init__(self, logits: Tensor, label: Tensor, part: range, present: list[int]):
        self.logits, self.p, self.cost = logits, torch.sigmoid(logits), F.softplus(logits)
        self.pixels, self.first = label.numel(), part.start
        self.present = [self._present(k - part.start, label == k) for k in present if k in part]

    def _present(self, row: int, mask: Tensor) -> _Present:
        own = mask.flatten().nonzero()[:, 0]
        p, cost = self.p[row].flatten()[own], F.softplus(-self.logits[row].flatten()[own])
        return _Present(row, own, p, cost, 2 * p.sum() + 1, self.p[row].sum() + len(own) + 1)

    def focal(self) -> Tensor:
        """Return the focal loss, summed over classes."""
        values = self.p.square().mul_(self.cost).mul_(1 - ALPHA)
        for one in self.present:
            values[one.row].view(-1)[one.own] = ALPHA * (1 - one.p) ** 2 * one.cost
        return values.sum() / self.pixels

    def focal_slope(self) -> Tensor:
        """Return (K, H, W): of a negative a p² (2 (1 - p) cost + p), of a positive -a (1 - p)² (2 p cost + 1 - p)."""
        values = (1 - self.p).mul_(self.cost).mul_(2).add_(self.p).mul_(self.p).mul_(self.p).mul_(1 - ALPHA)
        for one in self.present:
            slope = -ALPHA * (1 - one.p) ** 2 * (2 * one.p * one.cost + 1 - one.p)
            values[one.row].view(-1)[one.own] = slope
        return values.div_(self.pixels)

    def dice(self) -> Tensor:
        """Return the dice loss, summed over present classes."""
        return sum((1 - one.above / one.below for one in self.present), self.p.new_zeros(()))

    def dice_slopes(self) -> dict[int, Tensor]:
        """Return (H, W) by present class: (above / below² - 2 y / below) p (1 - p)."""
        slopes = {}
        for one in self.present:
            p = self.p[one.row]
            outer = (one.above / one.below**2).expand_as(p).clone()
            outer.view(-1)[one.own] -= 2 / one.below
            slopes[self.first + one.row] = outer * p * (1 - p)
        return slopes
