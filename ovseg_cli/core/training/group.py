"""How do the processes of one training or evaluation agree? A `Group`; for a single process it does nothing.

Control values (counts, flags, small objects) travel as CPU tensors over gloo, so that no GPU waits for them; gradients
are DistributedDataParallel's business. Every method but `quiet` is a call that all processes make, in the same order.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.reporter import Reporter, Silent

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """One process's place among those that work together.

    Attributes:
        rank: Number of this process, from 0.
        world_size: How many there are; 1 means that nothing below communicates.
        launcher: Process that started this one and is to outlive it; None without a launcher.
    """

    rank: int = 0
    world_size: int = 1
    launcher: int | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process shows progress and writes the files of a run."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.world_size > 1:
            distributed.all_reduce(torch.zeros(1))  # on the CPU: `barrier` itself would use the GPU

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add numbers over all processes, in double precision; the names must be the same everywhere."""
        if self.world_size == 1 or not values:
            return dict(values)
        names = sorted(values)
        total = torch.tensor([values[name] for name in names], dtype=torch.float64)
        distributed.all_reduce(total)
        return dict(zip(names, total.tolist(), strict=True))

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Add a tensor over all processes; it returns on its own device. Shapes must be the same everywhere."""
        if self.world_size == 1:
            return values
        added = values.to("cpu", copy=True)
        distributed.all_reduce(added)
        return added.to(values.device)

    def broadcast(self, value: T) -> T:
        """Return the main process's value everywhere; what the others give is not looked at."""
        if self.world_size == 1:
            return value
        box: list[Any] = [value if self.is_main else None]
        distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank, everywhere."""
        if self.world_size == 1:
            return [value]
        return _all_blobs(value, self.world_size)

    def on_main(self, act: Callable[[], T]) -> T:
        """Let the main process do something alone (write a file); all get what it returns, or raise what it raised.

        Raises:
            OvsegError: What `act` raised, in every process: so that nobody waits for one that has left.
        """
        if self.world_size == 1:
            return act()
        outcome: tuple[bool, Any] = (True, None)
        if self.is_main:
            try:
                outcome = (True, act())
            except OvsegError as error:
                outcome = (False, error)
        is_done, found = self.broadcast(outcome)
        if not is_done:
            raise found
        return found

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process run the block before the others: it fills the cache that they then read."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    @contextmanager
    def main_holds(self, make: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """Let the main process hold something (a lock) while all run the block; all raise what it raises."""
        with ExitStack() as stack:
            self.on_main(lambda: _nothing(stack.enter_context(make())))
            yield

    def quiet(self, reporter: Reporter) -> Reporter:
        """Return the reporter in the main process, silence in the others."""
        return reporter if self.is_main else Silent()


ONE = Group()


def _nothing(value: object) -> None:
    """Drop a value that no other process could use."""


def _all_blobs(value: Any, world_size: int) -> list[Any]:
    """All-gather any objects as CPU bytes (torch's own `all_gather_object` would take the GPU where there is one)."""
    import pickle

    own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size)]
    distributed.all_gather(sizes, torch.tensor([len(own)]))
    longest = max(int(size) for size in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[: len(own)] = own
    parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(world_size)]
    distributed.all_gather(parts, padded)
    return [pickle.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]
