"""Batches in the order of steps, made in the background; which batch a step gets depends on the step alone."""

from collections.abc import Generator, Iterator, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ovseg_cli.core.errors import MachineError, OvsegError
from ovseg_cli.core.training.interrupts import ignore_signals


class _Items(Dataset):
    """Gives an error of ours back as a value: a worker would pass on its text only, wrapped in a traceback."""

    def __init__(self, steps: Dataset):
        self.steps = steps

    def __getitem__(self, index: int) -> Any:
        try:
            return self.steps[index]
        except OvsegError as error:
            return error


def batches(
    steps: Dataset,
    start: int,
    stop: int,
    workers: int,
    parts: int = 1,
    own: range = range(1),
    pin: bool = False,
) -> Generator[list[Any], None, None]:
    """Yield, for steps `start` to `stop - 1`, the parts of the step's batch that are this process's own.

    Close it to end the workers, where not all batches are taken.

    Args:
        steps: Its item `i * parts + p` is part `p` of the batch of step `i`, a pure function of the index.
        start: First step.
        stop: Step after the last one.
        workers: Processes that work ahead; 0 makes batches in this one.
        parts: Into how many a step is cut.
        own: Which of them are yielded.
        pin: Put tensors where a GPU fetches them faster.

    Raises:
        MachineError: A worker was killed.
    """
    indices = [step * parts + part for step in range(start, stop) for part in own]
    loader = DataLoader(
        _Items(steps),
        sampler=indices,
        batch_size=None,
        num_workers=min(workers, len(indices)),
        prefetch_factor=4 if workers and indices else None,
        worker_init_fn=ignore_signals,
        pin_memory=pin,
        generator=torch.Generator(),  # the loader must not draw from the generator that training draws from
    )
    iterator = iter(loader)
    try:
        yield from _grouped(iterator, len(own))
    finally:  # whoever stops early closes this: workers ignore SIGTERM, so an interpreter that ends would wait for them
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()


def _grouped(items: Iterator[Any], number: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    for item in _watched(items):
        if isinstance(item, OvsegError):
            raise item
        group.append(item)
        if len(group) == number:
            yield group
            group = []


def _watched(items: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from items
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise MachineError(
            f"a process that makes batches was killed ({error}); the machine may lack memory.",
            "Go on with --resume, and with fewer of them: --set workers=0.",
        ) from error


def num_images(batch: Any) -> int:
    """Return how many pictures a batch has: entries of "images" or, without names, of its first member."""
    if isinstance(batch, dict):
        return num_images(batch["images"] if "images" in batch else next(iter(batch.values())))
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], torch.Tensor) and batch[0].ndim > 3:
        return len(batch[0])
    return len(batch) if isinstance(batch, Sized) else 1


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors in a batch (tuples, lists, dicts) to a device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
