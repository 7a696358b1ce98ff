"""What the training of all mask generators shares: which parameters learn at which rate, and batches that fit them."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

UNDECAYED = (nn.LayerNorm, nn.GroupNorm, nn.Embedding)
"""Modules whose parameters never decay: norms and query embeddings."""


def generator_groups(
    generator: nn.Module,
    others: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    backbone_rate: float,
) -> list[dict[str, Any]]:
    """Return the optimizer's groups of a generator.

    Args:
        generator: Its ResNet is called `backbone`.
        others: Parameters beside it: full rate, full decay.
        learning_rate: Rate of all but the backbone.
        weight_decay: Of all but norms and embeddings.
        backbone_rate: Factor of the rate of the backbone.

    Returns:
        At most four groups, none empty: backbone or not, decay or not.

    Source: MaskFormer's `build_optimizer` (WEIGHT_DECAY_NORM 0, WEIGHT_DECAY_EMBED 0, BACKBONE_MULTIPLIER).
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(learning_rate, weight_decay): list(others)}
    for name, module in generator.named_modules():
        rate = learning_rate * (backbone_rate if name.startswith("backbone") else 1.0)
        decay = 0.0 if isinstance(module, UNDECAYED) else weight_decay
        groups.setdefault((rate, decay), []).extend(module.parameters(recurse=False))
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
        if parameters
    ]


def pad_images(images: Tensor, multiple: int) -> Tensor:
    """Return (..., H', W') with sides that `multiple` divides; zeros below and to the right."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))


def pad_labels(labels: Tensor, multiple: int) -> Tensor:
    """Return (B, H', W') padded with -1: no loss, as outside of a picture."""
    height, width = labels.shape[-2:]
    return F.pad(labels, (0, -width % multiple, 0, -height % multiple), value=-1)
