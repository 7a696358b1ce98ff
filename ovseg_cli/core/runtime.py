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
class Runtime:
    """The devices, seed and place among processes that a command runs with."""

    devices: tuple[str, ...] = ("cpu",)
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    notes: tuple[str, ...] = field(default=())

    @property
    def device(self) -> "torch.device":
        """The device of this process."""
        import torch

        return torch.device(self.devices[self.rank % len(self.devices)])


def open_runtime(gpus: int | None = None, seed: int = 0) -> Runtime:
    """Check the count of GPUs against the machine and seed every random generator.

    Args:
        gpus: How many GPUs; 0 is the CPU; None takes all there are, else the CPU.
        seed: Seed of Python, numpy and torch.

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
    count = available if gpus is None else gpus
    notes = ("no GPU found: running on the CPU",) if gpus is None and available == 0 else ()
    seed_everything(seed)
    return Runtime(tuple(f"cuda:{i}" for i in range(count)) or ("cpu",), seed, notes=notes)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
