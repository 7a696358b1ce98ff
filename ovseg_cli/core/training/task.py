"""What does the loop train, and how long and how fast? The contract of a task, the settings, and where a run stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.training.schedule import Schedule


class TrainingError(OvsegError):
    """Training cannot go on; the last good checkpoint is kept."""


class Task(Protocol):
    """What is trained.

    A step's global batch is cut into parts: one for each process and each of its accumulated micro-batches. Loss terms
    of parts add up to those of the global batch, and so do their gradients, so that the parts change nothing but speed.

    Attributes:
        name: Shown beside the progress bar.
    """

    name: str

    @property
    def module(self) -> nn.Module:
        """What has every parameter of the optimizer, on the device."""

    def train_mode(self) -> None:
        """Switch `module` to training; what is frozen may stay as it is when scoring."""

    def kept(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds, by name: the tensors of `module` themselves, all that training changes."""

    def optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer; each group's `lr` is its rate before the schedule's factor."""

    def steps(self, parts: int) -> Dataset:
        """Return the data: item `i * parts + p` is part `p` of step `i`'s batch, a pure function of the index.

        Raises:
            UsageError: The batch cannot be cut into so many parts.
        """

    def before_step(self, batches: Sequence[Any], total: Callable[[Tensor], Tensor]) -> None:
        """Do what comes before the losses of a step, in every process; may write into the batches.

        Args:
            batches: This process's parts of the step, in host memory.
            total: Adds a tensor over all processes; each must call it as often as the others.
        """

    def normalisers(self, batch: Any) -> dict[str, float]:
        """Return what the terms of this part are divided by, known from the labels alone; the same names each time.

        The batch is still in host memory.
        """

    def losses(self, batch: Any, totals: dict[str, float]) -> dict[str, Tensor]:
        """Return the loss terms of one part: weighted scalars, the same names each time; their sum is minimised.

        Args:
            batch: One part, on the device of `module`.
            totals: Normalisers, summed over all parts of the step: each term is divided by these.
        """

    def after_step(self) -> dict[str, float]:
        """Do what follows an update (clamping, say); return numbers for the log."""

    def evaluate(self) -> dict[str, float]:
        """Score `module` as it is; called in every process, in evaluation mode, without gradients."""


@dataclass(frozen=True)
class LoopSettings:
    """How a task is trained.

    Attributes:
        schedule: Learning-rate factors; `schedule.total` is the number of steps.
        clip_grad_norm: The norm of all gradients together is cut to this; None or 0 cuts nothing.
        precision: "auto", "float32", "bfloat16" or "float16" (precision.py).
        workers: Processes that make batches in the background, for each training process.
        log_every: Steps between two lines of `metrics.jsonl`.
        save_every: Steps between two checkpoints; the last step is always saved.
        accumulate: Micro-batches of a step in each process.
        ema: Decay of the moving average of the trained weights, which is then evaluated and returned; 0 keeps none.
        compile: Let torch.compile translate the losses.
        eval_every: Steps between two evaluations; 0 evaluates never.
    """

    schedule: Schedule
    clip_grad_norm: float | None = None
    precision: str = "auto"
    workers: int = 0
    log_every: int = 20
    save_every: int = 100
    accumulate: int = 1
    ema: float = 0.0
    compile: bool = False
    eval_every: int = 0


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Updates done.
        seconds: Wall-clock time of training so far, over all resumes; saving and evaluating are not counted.
        cpu_seconds: Processor time of the main process so far, workers not counted.
        evaluated: Step of the last evaluation.
        sums: Since the last line of the log: of each term its sum and how many values it has.
        images: Pictures since the last line, over all processes.
        since: Value of `seconds` at the last line.
        waited: Seconds since the last line in which the main process had no batch.
    """

    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    evaluated: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)
    images: float = 0.0
    since: float = 0.0
    waited: float = 0.0

    def take(self, values: dict[str, float]) -> None:
        """Add the terms of a step."""
        for name, value in values.items():
            total, count = self.sums.get(name, [0.0, 0.0])
            self.sums[name] = [total + value, count + 1.0]

    def means(self) -> dict[str, float]:
        """Return the mean terms since the last line."""
        return {name: total / count for name, (total, count) in self.sums.items()}

    def begin_line(self) -> None:
        """Forget what the last line told."""
        self.sums, self.images, self.waited, self.since = {}, 0.0, 0.0, self.seconds
