"""Batches in the order of steps, made in the background; which batch a step gets depends on the step alone."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ovseg_cli.core.training.interrupts import ignore_signals


def batches(steps: Dataset, start: int, stop: int, workers: int) -> Iterator[Any]:
    """Yield the batches of steps `start` to `stop - 1`.

    Args:
        steps: Its item `i` is the whole batch of step `i`, a pure function of `i`.
        start: First step.
        stop: Step after the last one.
        workers: Processes that work ahead; 0 makes batches in this one.
    """
    loader = DataLoader(
        steps,
        sampler=range(start, stop),
        batch_size=None,
        num_workers=min(workers, stop - start),
        prefetch_factor=4 if workers and stop > start else None,
        worker_init_fn=ignore_signals,
        generator=torch.Generator(),  # the loader must not draw from the generator that training draws from
    )
    yield from loader


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors in a batch (tuples, lists, dicts) to a device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
