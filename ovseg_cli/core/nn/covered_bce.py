"""Binary cross-entropy of coarse logit maps with overlapping masks, on the pixels that lie in any mask.

Source: PixelCLIP, code: maps are resized bilinearly (corners not aligned) to the grid of the masks; logits u and
targets t of the pixels that lie in a mask of any class are compared,

    Σ over these pixels and all classes of softplus(u) - t u,

and divided by their number (the caller does it: it may be that of several processes). Other pixels count nowhere.

The straightforward form holds u, t, the selected pixels of both and their losses at full size, B·k·M·M' numbers each,
until the backward pass. Here a few maps at a time are up-sampled, the loss and its slopes by the small maps are
computed at once, and all that is full-size is forgotten.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.nn.resize import bilinear_axis

_untranslated: Any = torch._disable_dynamo
"""Keeps torch.compile away from a loop over maps; `torch.compiler.disable` without the seconds of its import."""
VALUES_AT_ONCE = (1 << 18, 1 << 24)
"""Full-size values that exist at once: what fits a processor's cache; what keeps a GPU busy."""


@_untranslated
def covered_bce_sum(maps: Tensor, ids: Tensor, targets: Tensor, covered: Tensor | None = None) -> Tensor:
    """Sum the loss over pixels and classes, in float32 whatever autocast says.

    Args:
        maps: (B, k, h', w') logits.
        ids: (B, M, M') integers, the region of each pixel, 0 to R - 1 (proposals/regions.py).
        targets: (B, R, k) uint8, 1 where a region lies in a mask of the class. A region with zeros alone lies in no
            mask: its pixels do not count.
        covered: (B, M, M') bool, the pixels that count, where the maps are not of all classes (`is_covered` of all).

    Returns:
        Scalar with gradient; 0 without any covered pixel.
    """
    covered = is_covered(ids, targets) if covered is None else covered
    return _CoveredBce.apply(maps.float(), ids, targets, covered)


def covered_pixels(ids: Tensor, targets: Tensor) -> int:
    """Count the pixels that lie in a mask; arguments as in `covered_bce_sum`."""
    return int(is_covered(ids, targets).sum())


def is_covered(ids: Tensor, targets: Tensor) -> Tensor:
    """Tell which pixels lie in a mask, (B, M, M') bool; arguments as in `covered_bce_sum`."""
    return (targets > 0).any(2).gather(1, ids.flatten(1).long()).view(ids.shape)


class _CoveredBce(torch.autograd.Function):
    """The sum, and its gradient by the small maps, computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, ids: Tensor, targets: Tensor, covered: Tensor) -> Tensor:
        rows, columns = (_weights(maps, ids, axis) for axis in (0, 1))
        grads = torch.zeros_like(maps) if ctx.needs_input_grad[0] else None
        total = maps.new_zeros(())
        step = max(1, VALUES_AT_ONCE[maps.device.type == "cuda"] // max(1, ids[0].numel()))
        with torch.autocast(maps.device.type, enabled=False):
            for b in range(len(maps)):
                counts, regions = covered[b].float(), ids[b].flatten().long()
                for start in range(0, maps.shape[1], step):
                    part = slice(start, start + step)
                    logits = rows @ maps[b, part] @ columns.T
                    goal = targets[b, :, part].T.float().index_select(1, regions).view_as(logits)
                    total = total + ((F.softplus(logits) - goal * logits) * counts).sum()
                    if grads is not None:
                        slopes = (logits.sigmoid_() - goal) * counts
                        grads[b, part] = rows.T @ slopes @ columns
        ctx.save_for_backward(*([] if grads is None else [grads]))
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None]:
        (grads,) = ctx.saved_tensors
        return grads * outer[0], None, None, None


def _weights(maps: Tensor, ids: Tensor, axis: int) -> Tensor:
    """Return the (M, h') or (M', w') matrix that up-samples one axis."""
    target = int(ids.shape[1 + axis])
    return bilinear_axis(int(maps.shape[2 + axis]), target).weights(torch.arange(target)).to(maps)
