"""Labels that a method makes itself while it is trained (self-training) take the place of those of a batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.methods.trained import TrainedMethod
from ovseg_cli.core.training.collate import NO_CLASS, occurring, ready
from ovseg_cli.core.training.precision import choose_precision, forward_context, step_context
from ovseg_cli.core.training.stream import to_device
from ovseg_cli.core.types import TextFeatures, TrainBatch


def makes_labels(method: TrainedMethod) -> bool:
    """Whether a method may answer `own_labels` at all: asking costs the way of a batch to the device."""
    return type(method).own_labels is not TrainedMethod.own_labels


@torch.no_grad()
def write_own_labels(method: TrainedMethod, batch: TrainBatch, text: TextFeatures, precision: str) -> None:
    """Ask a method for labels of a batch and write them, and the classes that occur, into it.

    The arithmetic is that of the training forward; whatever mode the method switches to is undone. Pixels outside a
    picture never get a label.

    Args:
        method: On its device.
        batch: As `TrainData` makes it, in host memory; changed in place where the method makes labels.
        text: Features of the training vocabulary, on the method's device.
        precision: As in `TrainingConfig`.

    Raises:
        ShapeError: The labels have not the batch's shape.
    """
    device = method.clip.device
    dtype = choose_precision(precision, device)
    with step_context(device), forward_context(device, dtype), _modes_kept(method):
        found = method.own_labels(ready(to_device(batch, device)), text)
    if found is None:
        return
    if found.shape != batch["labels"].shape:
        raise ShapeError(f"own labels {tuple(found.shape)} and labels {tuple(batch['labels'].shape)} differ")
    batch["labels"] = _inside(found.to("cpu", batch["labels"].dtype, copy=True), batch["areas"])
    batch["classes"] = [occurring(label.numpy()) for label in batch["labels"]]


def _inside(labels: Tensor, areas: Tensor) -> Tensor:
    """Take the labels away that lie outside the pictures."""
    for label, (height, width) in zip(labels, areas.tolist(), strict=True):
        label[height:] = NO_CLASS
        label[:, width:] = NO_CLASS
    return labels


@contextmanager
def _modes_kept(module: nn.Module) -> Iterator[None]:
    """Put every part of a module back into the mode, training or evaluation, that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
