"""The one training loop: counted in steps, logged, interruptible, and continued bit for bit.

What is trained is a `Task`; how fast and how long is `LoopSettings`. After a kill at any step `fit(..., resume=True)`
gives the weights of a run that was never killed (on the CPU, with the same number of threads): weights, optimizer and
random states are saved together, the learning rate and the batch of a step are pure functions of the step.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ovseg_cli.core.errors import OvsegError, UsageError
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.training.checkpoint import (
    Checkpoint,
    has_checkpoint,
    load_checkpoint,
    random_states,
    save_checkpoint,
    set_random_states,
)
from ovseg_cli.core.training.interrupts import StopRequest, stop_between_steps
from ovseg_cli.core.training.metrics_log import MetricsLog
from ovseg_cli.core.training.precision import choose_precision, forward_context, step_context
from ovseg_cli.core.training.schedule import Schedule
from ovseg_cli.core.training.stream import batches, to_device


class TrainingError(OvsegError):
    """Training cannot go on; the last good checkpoint is kept."""


class Task(Protocol):
    """What is trained.

    Attributes:
        name: Shown beside the progress bar.
        module: Its parameters and buffers are what a checkpoint holds.
    """

    name: str
    module: nn.Module

    def optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer; each group's `lr` is its rate before the schedule's factor."""

    def steps(self) -> Dataset:
        """Return the data: item `i` is the batch of step `i`, a pure function of `i`."""

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Return the loss terms, scalars that are already weighted; their sum is minimised."""

    def after_step(self) -> dict[str, float]:
        """Do what follows an update (clamping, averaging); return numbers for the log."""


@dataclass(frozen=True)
class LoopSettings:
    """How a task is trained.

    Attributes:
        schedule: Learning-rate factors; `schedule.total` is the number of steps.
        clip_grad_norm: The norm of all gradients together is cut to this; None cuts nothing.
        precision: "auto", "float32" or "bfloat16" (precision.py).
        workers: Processes that make batches in the background.
        log_every: Steps between two lines of `metrics.jsonl`.
        save_every: Steps between two checkpoints; the last step is always saved.
    """

    schedule: Schedule
    clip_grad_norm: float | None = None
    precision: str = "auto"
    workers: int = 0
    log_every: int = 20
    save_every: int = 100


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Updates done.
        seconds: Wall-clock time of training so far, over all resumes.
        cpu_seconds: Processor time of this process so far, workers not counted.
        sums: Sums of the loss terms since the last line of the log, and "count".
    """

    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


def fit(
    task: Task,
    settings: LoopSettings,
    run_folder: Path,
    reporter: Reporter,
    device: torch.device | str = "cpu",
    resume: bool = False,
) -> Progress:
    """Train until the schedule ends.

    SIGINT and SIGTERM let the step finish, save, and raise KeyboardInterrupt or Terminated.

    Args:
        task: What is trained.
        settings: How.
        run_folder: Gets `metrics.jsonl` and `checkpoints/`.
        reporter: Shown the progress.
        device: Where `task.module` lies.
        resume: Continue from the newest whole checkpoint.

    Raises:
        TrainingError: A loss term or the gradient is not finite.
        UsageError: `resume` without a checkpoint, or checkpoints without `resume`.
        MachineError: The disk refuses.
    """
    return _Loop(task, settings, Path(run_folder), reporter, torch.device(device)).run(resume)


class _Loop:
    def __init__(self, task: Task, settings: LoopSettings, run_folder: Path, reporter: Reporter, device: torch.device):
        self.task, self.settings, self.reporter, self.device = task, settings, reporter, device
        self.total = settings.schedule.total
        self.checkpoints = run_folder / "checkpoints"
        self.log_file = run_folder / "metrics.jsonl"
        self.optimizer = task.optimizer()
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.dtype = choose_precision(settings.precision, device)
        self.progress = Progress()
        self.saved_step = -1

    def run(self, resume: bool) -> Progress:
        if resume:
            self._restore()
        elif has_checkpoint(self.checkpoints):
            raise UsageError(
                f"{self.checkpoints}: an earlier run left checkpoints here.", "Use --resume, or another run folder."
            )
        log = MetricsLog(self.log_file, self.progress.step)
        self.task.module.train()
        with stop_between_steps() as stop:
            for batch in self._track():
                self._timed_step(batch)
                self._note(log)
                self._save_when_due(stop)
            if stop:
                stop.leave()
        self.task.module.eval()
        return self.progress

    def _track(self) -> Iterator[Any]:
        start = self.progress.step
        states = random_states()
        stream = batches(self.task.steps(), start, self.total, self.settings.workers)
        what = self.task.name if start == 0 else f"{self.task.name} from step {start}"
        set_random_states(states)
        return iter(self.reporter.track(stream, what, self.total - start))

    def _timed_step(self, batch: Any) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        terms = self._step(to_device(batch, self.device))
        self.progress.step += 1
        self.progress.seconds += time.perf_counter() - wall
        self.progress.cpu_seconds += time.process_time() - cpu
        for name, value in {**terms, "count": 1.0}.items():
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value

    def _step(self, batch: Any) -> dict[str, float]:
        factor = self.settings.schedule.factor(self.progress.step)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        with step_context(self.device):
            with forward_context(self.device, self.dtype):
                terms = self.task.losses(batch)
            values = {name: float(term.detach()) for name, term in terms.items()}
            self._check(values)
            torch.stack([term.float() for term in terms.values()]).sum().backward()
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_grad_norm or math.inf))
        self._check({"gradient": norm})
        self.optimizer.step()
        return {**values, "gradient_norm": norm, **self.task.after_step()}

    def _check(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                kept = f"step {self.saved_step}" if self.saved_step >= 0 else "none yet"
                raise TrainingError(
                    f"{self.task.name}: '{name}' is {value} in step {self.progress.step + 1}; "
                    f"the last good checkpoint is kept ({kept}).",
                    "Lower the learning rate, for instance --set learning_rate=0.0005.",
                )

    def _note(self, log: MetricsLog) -> None:
        step, sums = self.progress.step, self.progress.sums
        if step % self.settings.log_every and step != self.total:
            return
        count = sums.pop("count")
        means = {name: value / count for name, value in sums.items()}
        rates = sorted({group["lr"] for group in self.optimizer.param_groups})
        seconds = round(self.progress.seconds, 3)
        log.write({"step": step, **means, "learning_rate": rates[-1], "seconds": seconds})
        self.progress.sums = {}

    def _save_when_due(self, stop: StopRequest) -> None:
        step = self.progress.step
        if step % self.settings.save_every == 0 or step == self.total or stop:
            self._save()
        if stop:
            self.reporter.say(f"{self.task.name}: saved at step {step} of {self.total}; --resume continues from there")
            stop.leave()

    def _save(self) -> None:
        state = {
            "optimizer": self.optimizer.state_dict(),
            "random": random_states(),
            "progress": vars(self.progress).copy(),
            "precision": str(self.dtype),
            "threads": torch.get_num_threads(),
        }
        weights = self.task.module.state_dict()
        save_checkpoint(self.checkpoints, Checkpoint(self.progress.step, weights, state))
        self.saved_step = self.progress.step

    def _restore(self) -> None:
        checkpoint = load_checkpoint(self.checkpoints, self.reporter)
        self.task.module.load_state_dict(checkpoint.weights)
        self.optimizer.load_state_dict(checkpoint.state["optimizer"])
        self.progress = Progress(**checkpoint.state["progress"])
        self.saved_step = checkpoint.step
        saved, self.dtype = checkpoint.state["precision"], self.dtype
        if saved != str(self.dtype):
            self.reporter.warn(f"{self.task.name}: the run began in {saved} and continues in {self.dtype}.")
        threads = checkpoint.state["threads"]
        if self.device.type == "cpu" and threads != torch.get_num_threads():
            self.reporter.warn(
                f"{self.task.name}: the run began with {threads} threads and continues with {torch.get_num_threads()}; "
                f"for the very same bits set OMP_NUM_THREADS={threads}."
            )
        set_random_states(checkpoint.state["random"])
