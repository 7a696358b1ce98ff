"""Which class does each mask belong to, if all classes are to be used? Sinkhorn-Knopp over the masks of all processes.

Source: PixelCLIP, code: `Q = softmax(logits)` over classes (not `exp`, which ends elsewhere after three rounds), then
each round divides every class by its total over all masks, and every mask by its own sum. The code also divides the
start by its sum over all processes, and every round by the numbers of classes and masks: constants that the next
division takes out again, left out here.

With many rounds every mask has the share 1 and every class the share masks / classes; three rounds go part of the way.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ovseg_cli.core.errors import OvsegError

Total = Callable[[Tensor], Tensor]
"""Adds a tensor over all processes. Each process must call it as often as the others."""


def alone(values: Tensor) -> Tensor:
    """Be the `total` of a single process."""
    return values


@torch.no_grad()
def sinkhorn(logits: Tensor, rounds: int = 3, total: Total = alone) -> Tensor:
    """Assign masks softly to classes.

    Args:
        logits: (m, k), cosines of m masks of this process and k classes, times the sharpness. m may be 0.
        rounds: At least 1.
        total: Called once a round with the shares of the classes, (k,) float32 on the device of `logits`.

    Returns:
        Q, (m, k) float32, rows add up to 1. The class of a mask is `Q.argmax(1)`. A class of which no mask has a share,
        because all have underflowed, keeps none.

    Raises:
        OvsegError: A logit of any process is not finite; raised in all of them, so that none waits for another.
    """
    with torch.autocast(logits.device.type, enabled=False):
        shares = _start(logits.float())
        for done in range(rounds):
            of_classes = total(shares.sum(0))
            if done == 0:
                _refuse_nan(of_classes)
            shares = _balanced(shares, of_classes)
    return shares


def _start(logits: Tensor) -> Tensor:
    """Return the softmax over classes; a row that is not finite becomes NaN, and with it the totals everywhere."""
    return logits.masked_fill(~logits.isfinite(), torch.nan).softmax(dim=1)


def _balanced(shares: Tensor, of_classes: Tensor) -> Tensor:
    """Divide classes by their totals, then masks by their sums.

    A class without a total has no shares either, and keeps none. A mask's sum is never 0: its shares added up to 1, so
    that one of its classes at least has a total.
    """
    shares = shares / torch.where(of_classes > 0, of_classes, 1.0)
    return shares / shares.sum(1, keepdim=True)


def _refuse_nan(of_classes: Tensor) -> None:
    if not bool(of_classes.isfinite().all()):
        raise OvsegError(
            "clustering: the similarity of a mask and a class prompt is not finite.",
            "Lower the learning rate, or train in float32 with --set precision=float32.",
        )
