"""`--gpus` and `--seed` become a Runtime, once. Nothing else reads devices or environment variables."""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli.core.errors import MachineError, UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Folders:
    """Where prepared data sets, runs and cached features lie."""

    data: Path
    runs: Path

    @property
    def cache(self) -> Path:
        """Folder of text features: `OVSEG_CACHE`, else `ovseg` under the user's cache folder."""
        home = os.environ.get("XDG_CACHE_HOME")
        base = Path(home) if home else Path.home() / ".cache"
        return Path(os.environ.get("OVSEG_CACHE") or base / "ovseg")


def folders(data_root: Path | None = None, runs: Path | None = None) -> Folders:
    """Resolve the two folders: option, else `OVSEG_DATA` / `OVSEG_RUNS`, else `datasets/` and `runs/` here."""
    return Folders(
        data=Path(data_root or os.environ.get("OVSEG_DATA") or "datasets").expanduser(),
        runs=Path(runs or os.environ.get("OVSEG_RUNS") or "runs").expanduser(),
    )


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that a launcher started.

    Attributes:
        rank: Its number, from 0, over all machines.
        world_size: How many there are; 1 without a launcher.
        local_rank: Its number on this machine.
        local_world_size: How many there are on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


def find_place() -> Place:
    """Read what torch's launcher tells its processes; alone without one.

    Raises:
        UsageError: The variables contradict each other or are no numbers.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    texts = {name: os.environ.get(name) for name in names}
    if texts["RANK"] is None or texts["LOCAL_RANK"] is None or texts["WORLD_SIZE"] is None:
        return Place()
    try:
        rank, world, local, on_machine = (int(texts[name] or texts["WORLD_SIZE"] or 1) for name in names)
    except ValueError:
        world = 0
    if not (world and 0 <= local < on_machine <= world and local <= rank < world):
        told = ", ".join(f"{name}={text}" for name, text in texts.items())
        raise UsageError(f"the environment says {told}, which is no launcher's.", "Unset these variables.")
    return Place(rank, world, local, on_machine)


def is_main() -> bool:
    """Whether this process prints results: the only one, or the first of several."""
    try:
        return find_place().rank == 0
    except UsageError:  # told by the command that needs to know
        return True


@dataclass(frozen=True)
class Runtime:
    """The devices, seed and place among processes that a command runs with."""

    devices: tuple[str, ...] = ("cpu",)
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def device(self) -> "torch.device":
        """The device of this process."""
        import torch

        return torch.device(self.devices[self.local_rank % len(self.devices)])


def count_gpus(gpus: int | None) -> int:
    """Check a count of GPUs against this machine.

    Args:
        gpus: How many; 0 is the CPU; None takes all there are.

    Raises:
        UsageError: The count is negative.
        MachineError: The machine has fewer.
    """
    import torch

    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus is not None and gpus < 0:
        raise UsageError(f"--gpus {gpus}: the count of GPUs cannot be negative.", "Use --gpus 0 for the CPU.")
    if gpus is not None and gpus > available:
        have = "no GPU" if available == 0 else f"{available} GPU{'s' if available > 1 else ''}"
        offer = "Use --gpus 0 for the CPU." if available == 0 else f"Use --gpus {available}, or --gpus 0 for the CPU."
        raise MachineError(f"--gpus {gpus}: this machine has {have}.", offer)
    return available if gpus is None else gpus


def launched_place() -> tuple[int, int, int]:
    """Rank, rank on this machine and number of processes that torch's launcher started; 0, 0, 1 without it."""
    rank, local, count = (os.environ.get(name, "") for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    if not (rank.isdecimal() and count.isdecimal()):
        return 0, 0, 1
    return int(rank), int(local) if local.isdecimal() else int(rank), int(count)


def open_runtime(gpus: int | None = None, seed: int = 0) -> Runtime:
    """Check the count of GPUs against the machine and its processes, and seed every random generator.

    Args:
        gpus: How many GPUs; 0 is the CPU; None takes all there are, else the CPU.
        seed: Seed of Python, numpy and torch.

    Raises:
        UsageError: The count is negative, or is not that of the processes that a launcher started.
        MachineError: The machine has fewer.
    """
    place, count = find_place(), count_gpus(gpus)
    if place.world_size > 1 and count and count < place.local_world_size:
        started = f"{place.local_world_size} processes were started on this machine, which are to share"
        raise UsageError(f"{started} {count} GPU{'s' if count > 1 else ''}.", "Start one process for each GPU.")
    notes = ("no GPU found: running on the CPU",) if gpus is None and count == 0 else ()
    seed_everything(seed)
    devices = tuple(f"cuda:{i}" for i in range(count)) or ("cpu",)
    if place.world_size > 1:
        devices = devices[: place.local_world_size]
    return Runtime(devices, seed, place.rank, place.world_size, place.local_rank, notes)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
