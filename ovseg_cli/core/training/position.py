"""Where a run stands, saved and found again: weights, their average, optimizer, scaler, random states, and for what."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg_cli import __version__
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    random_states,
    read_checkpoint,
    save_checkpoint,
    set_random_states,
    step_folder,
)
from ovseg_cli.core.training.ema import MovingAverage
from ovseg_cli.core.training.group import Group
from ovseg_cli.core.training.task import Progress, Task
from ovseg_cli.core.training.update import Updater


@contextmanager
def own_random_states() -> Iterator[None]:
    """Whatever the block draws, what follows draws as if it had not been."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)


class Position:
    """Saves and restores a run; all processes call both together, the main one alone writes.

    Args:
        folder: `RUN/checkpoints`, seen by all processes.
        task: What is trained.
        updater: Its optimizer and scaler.
        average: Moving average of the weights, if any.
        group: The processes.
        reporter: Told what differs from when the run began.

    Attributes:
        identity: Fingerprints that a run must keep, by what they are of.
        saved_step: The newest good checkpoint, -1 where there is none.
    """

    def __init__(
        self,
        folder: Path,
        task: Task,
        updater: Updater,
        average: MovingAverage | None,
        group: Group,
        reporter: Reporter,
    ):
        self.folder, self.task, self.updater, self.average = folder, task, updater, average
        self.group, self.reporter = group, reporter
        self.identity: dict[str, str] = {}
        self.saved_step = -1

    def save(self, progress: Progress) -> None:
        """Write a checkpoint.

        Raises:
            MachineError: The disk refuses, in all processes; the checkpoint before stays.
        """
        state = {
            **self.updater.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "random": self.group.gather(random_states()),
            "progress": vars(progress).copy(),
            "identity": self.identity,
            "circumstances": self._circumstances(),
        }
        checkpoint = Checkpoint(progress.step, self.task.kept(), state)
        self.group.on_main(lambda: save_checkpoint(self.folder, checkpoint))
        self.saved_step = progress.step

    def restore(self) -> Progress:
        """Bring weights, optimizer and random states back.

        Raises:
            UsageError: There is no checkpoint.
            DataError: None can be read, or the run began with other data or weights.
        """
        step = self.group.on_main(self._newest_step)
        checkpoint = read_checkpoint(step_folder(self.folder, step))
        state = checkpoint.state
        self._compare(state["identity"], state["circumstances"])
        _copy_into(self.task.kept(), checkpoint.weights, self.folder)
        self.updater.load_state_dict(state)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.group.rank < len(state["random"]):
            set_random_states(state["random"][self.group.rank])
        self.saved_step = checkpoint.step
        return Progress(**state["progress"])

    def _newest_step(self) -> int:
        return load_checkpoint(self.folder, self.reporter).step

    def _circumstances(self) -> dict[str, Any]:
        """What the very bits of a result depend on, beside the settings."""
        return {
            "version of ovseg": __version__,
            "version of torch": str(torch.__version__),
            "precision": str(self.updater.dtype).removeprefix("torch."),
            "device": self.updater.device.type,
            "processes": self.group.world_size,
            "threads": torch.get_num_threads(),
        }

    def _compare(self, identity: dict[str, str], circumstances: dict[str, Any]) -> None:
        for what in sorted({*identity, *self.identity}):
            if identity.get(what) != self.identity.get(what):
                raise DataError(
                    f"{self.folder.parent}: {what} is not what this run began with.",
                    f"Bring the former {what} back, or begin a new run without --resume.",
                )
        for what, now in self._circumstances().items():
            before = circumstances.get(what)
            if before != now and not (what == "threads" and self.updater.device.type != "cpu"):
                same = f" For the very same bits set OMP_NUM_THREADS={before}." if what == "threads" else ""
                self.reporter.warn(
                    f"{self.task.name}: {what}: the run began with {before} and continues with {now}.{same}"
                )


@torch.no_grad()
def _copy_into(own: dict[str, Tensor], saved: dict[str, Tensor], where: Path) -> None:
    """Copy saved tensors into those of a module; names and shapes must be the same."""
    for name in sorted(own.keys() ^ saved.keys()):
        raise DataError(f"{where}: tensor '{name}' is only {'in the model' if name in own else 'here'}.", _ANEW)
    for name, tensor in own.items():
        if tensor.shape != saved[name].shape:
            shapes = f"{tuple(saved[name].shape)} here and {tuple(tensor.shape)} in the model"
            raise DataError(f"{where}: tensor '{name}' is {shapes}.", _ANEW)
        tensor.copy_(saved[name])


_ANEW = "The run was made with other settings: begin a new one, without --resume."
