"""The one training loop: counted in steps, logged, interruptible, and continued bit for bit.

What is trained is a `Task`; how fast and how long is `LoopSettings` (both task.py); which processes take part is a
`Group` (group.py). After a kill at any step `fit(..., resume=True)` gives the weights of a run that was never killed
(on the CPU, with the same numbers of threads and processes): weights, their moving average, optimizer, scaler and the
random states of all processes are saved together; the learning rate and the batch of a step are pure functions of it.

Process r of W with A accumulated micro-batches takes the parts r·A to r·A + A - 1 of each step's W·A. Every process
runs this loop; the main one alone writes files, at moments that all agree on.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.training.checkpoint import has_checkpoint
from ovseg_cli.core.training.curves import draw_curves
from ovseg_cli.core.training.ema import MovingAverage
from ovseg_cli.core.training.group import ONE, Group
from ovseg_cli.core.training.interrupts import StopRequest, stop_between_steps
from ovseg_cli.core.training.metrics_log import MetricsLog
from ovseg_cli.core.training.position import Position, own_random_states
from ovseg_cli.core.training.stream import batches
from ovseg_cli.core.training.task import LoopSettings, Progress, Task, TrainingError
from ovseg_cli.core.training.update import Updater

LOG, CURVES = "metrics.jsonl", "curves.png"


def fit(
    task: Task,
    settings: LoopSettings,
    run_folder: Path,
    reporter: Reporter,
    device: torch.device | str = "cpu",
    resume: bool = False,
    group: Group = ONE,
    identity: Mapping[str, str] | None = None,
) -> Progress:
    """Train until the schedule ends; the moving average, where there is one, is then in `task.module`.

    SIGINT and SIGTERM let the step finish, save, and raise KeyboardInterrupt or Terminated, in all processes.

    Args:
        task: What is trained.
        settings: How.
        run_folder: Gets `metrics.jsonl`, `curves.png` and `checkpoints/`; the same folder for all processes.
        reporter: Shown the progress; only the main process's is used.
        device: Where `task.module` lies.
        resume: Continue from the newest whole checkpoint.
        group: The processes that train together; each calls this.
        identity: Fingerprints of what a run must not change under way, by what they are of ("data", "CLIP").

    Raises:
        TrainingError: A loss term or the gradient is not finite.
        UsageError: `resume` without a checkpoint, or checkpoints without `resume`.
        DataError: A fingerprint is not the one that the run began with.
        MachineError: The disk refuses, the device lacks the precision, a process was lost.
    """
    loop = _Loop(task, settings, Path(run_folder), group.quiet(reporter), torch.device(device), group)
    return loop.run(resume, dict(identity or {}))


class _Loop:
    def __init__(
        self, task: Task, settings: LoopSettings, folder: Path, reporter: Reporter, device: torch.device, group: Group
    ):
        self.task, self.settings, self.folder, self.reporter = task, settings, folder, reporter
        self.device, self.group = device, group
        self.total = settings.schedule.total
        parts = group.world_size * settings.accumulate
        self.own, self.parts = range(group.rank * settings.accumulate, (group.rank + 1) * settings.accumulate), parts
        self.data = task.steps(parts)
        self.progress = Progress()
        with own_random_states():
            self.updater = Updater(task, settings, device, group)
        self.average = MovingAverage(task.module, settings.ema) if settings.ema else None
        self.position = Position(folder / "checkpoints", task, self.updater, self.average, group, self.reporter)

    def run(self, resume: bool, identity: dict[str, str]) -> Progress:
        self.position.identity = identity
        if resume:
            self.progress = self.position.restore()
        else:
            self._begin()
        self.task.train_mode()
        with stop_between_steps(self.group.launcher) as stop:  # whoever sees a log can stop what writes it
            log = self.group.on_main(lambda: MetricsLog(self.folder / LOG, self.progress.step, self.progress.evaluated))
            self._evaluate_when_due(log, stop)  # a kill may have come before the evaluation that follows a checkpoint
            with self._batches() as stream:
                for own in stream:
                    self._step(own, stop)
                    self._note(log)
                    self._save_when_due(stop)
                    self._evaluate_when_due(log, stop)
            self._ask_all(stop)
        self.group.on_main(lambda: draw_curves(self.folder / LOG, self.folder / CURVES, self.task.name))
        if self.average is not None:
            self.average.put()
        self.task.module.eval()
        return self.progress

    def _begin(self) -> None:
        if self.group.on_main(lambda: has_checkpoint(self.position.folder)):
            what = f"{self.position.folder}: an earlier run left checkpoints here."
            raise UsageError(what, "Use --resume, or another run folder.")
        if self.group.rank:  # each process draws its own random numbers
            from ovseg_cli.core.runtime import seed_everything

            seed_everything((torch.initial_seed() + 7919 * self.group.rank) % 2**31)

    @contextmanager
    def _batches(self) -> Iterator[Iterator[list[Any]]]:
        """Give the batches that are still to come, with progress; ends the workers with the block."""
        start = self.progress.step
        with own_random_states():
            pin = self.device.type == "cuda"
            stream = batches(self.data, start, self.total, self.settings.workers, self.parts, self.own, pin)
        what = self.task.name if start == 0 else f"{self.task.name} from step {start}"
        with closing(stream):
            yield iter(self.reporter.track(self._timed(stream), what, self.total - start))

    def _timed(self, stream: Iterator[list[Any]]) -> Iterator[list[Any]]:
        """Pass batches on, counting the seconds for which they were waited."""
        while True:
            wall, cpu = time.perf_counter(), time.process_time()
            own = next(stream, None)
            if own is None:
                return
            waited = time.perf_counter() - wall
            self.progress.waited += waited
            self.progress.seconds += waited
            self.progress.cpu_seconds += time.process_time() - cpu
            yield own

    def _step(self, own: list[Any], stop: StopRequest) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        factor = self.settings.schedule.factor(self.progress.step)
        values = self.updater.gradients(own, factor, stop.flags())
        terms = self._checked(values)
        if self.updater.step() and self.average is not None:
            self.average.update()
        further = self.task.after_step()
        assert not further.keys() & terms.keys(), "a number for the log is not named like a loss term"
        terms |= further
        stop.agree(values)
        self.progress.step += 1
        self.progress.seconds += time.perf_counter() - wall
        self.progress.cpu_seconds += time.process_time() - cpu
        self.progress.images += values["(images)"]
        self.progress.take(terms)
        self.reporter.note(_in_words({name: values[name] for name in self.updater.names}))

    def _checked(self, values: dict[str, float]) -> dict[str, float]:
        """Return the terms of the log; one that is not finite ends the training before it changes a weight."""
        terms = {name: values[name] for name in self.updater.names}
        norm = values["(gradient_norm)"]
        overflowed = not math.isfinite(norm) and self.updater.may_overflow
        for name, value in {**terms, **({} if overflowed else {"gradient": norm})}.items():
            if not math.isfinite(value):
                step = self.position.saved_step
                kept = f"step {step}" if step >= 0 else "none yet"
                lower = f"{max(self.updater.base_rates) / 4:.3g}"
                raise TrainingError(
                    f"{self.task.name}: '{name}' is {value} in step {self.progress.step + 1}; "
                    f"the last good checkpoint is kept ({kept}).",
                    f"Lower the learning rate, for instance --set learning_rate={lower}.",
                )
        return {**terms, "overflowed": 1.0} if overflowed else {**terms, "gradient_norm": norm}

    def _note(self, log: MetricsLog) -> None:
        progress = self.progress
        if progress.step % self.settings.log_every and progress.step != self.total:
            return
        rates = self.updater.rates
        seconds = max(progress.seconds - progress.since, 1e-9)
        means = progress.means()
        terms = {name: means.pop(name) for name in self.updater.names}
        line: dict[str, Any] = {"step": progress.step, "loss": sum(terms.values()), "terms": terms, **means}
        line["learning_rate"] = max(rates)
        if len(set(rates)) > 1:
            line["learning_rates"] = rates
        line |= {"images_per_second": round(progress.images / seconds, 3), "seconds": round(progress.seconds, 3)}
        line["waited_share"] = round(progress.waited / seconds, 3)
        if self.device.type == "cuda":
            line["peak_memory_mib"] = round(torch.cuda.max_memory_allocated(self.device) / 2**20)
        self.group.on_main(lambda: log.write(line))
        progress.begin_line()

    def _save_when_due(self, stop: StopRequest) -> None:
        step = self.progress.step
        if step % self.settings.save_every == 0 or step == self.total or self._evaluates_at(step) or stop:
            self.position.save(self.progress)
        self._leave_if_agreed(stop)

    def _leave_if_agreed(self, stop: StopRequest) -> None:
        if stop:
            step = self.progress.step
            self.reporter.say(f"{self.task.name}: saved at step {step} of {self.total}; --resume continues from there")
            stop.leave()

    def _ask_all(self, stop: StopRequest) -> None:
        """Leave if any process was asked to since the last step; what there is has been saved."""
        stop.agree(self.group.sum({f"({name})": value for name, value in stop.flags().items()}))
        self._leave_if_agreed(stop)

    def _evaluates_at(self, step: int) -> bool:
        return self.settings.eval_every > 0 and step > 0 and step % self.settings.eval_every == 0

    def _evaluate_when_due(self, log: MetricsLog, stop: StopRequest) -> None:
        """Evaluate, leaving no trace in what follows; a signal ends it at once, since the step was saved before."""
        step = self.progress.step
        if not self._evaluates_at(step) or self.progress.evaluated == step:
            return
        self._ask_all(stop)
        self.task.module.eval()
        with stop.at_once(), own_random_states(), torch.no_grad():
            if self.average is None:
                scores = self.task.evaluate()
            else:
                with self.average.in_place():
                    scores = self.task.evaluate()
        self.task.train_mode()
        self.progress.evaluated = step
        if scores:
            self.group.on_main(lambda: log.write({"step": step, "evaluation": scores}))
            self.group.on_main(lambda: draw_curves(self.folder / LOG, self.folder / CURVES, self.task.name))


def _in_words(terms: dict[str, float]) -> str:
    """Name the loss and its largest terms, as many as fit beside a progress bar."""
    largest = sorted(terms, key=lambda name: -abs(terms[name]))[:3]
    shown = [f"{name} {terms[name]:.3g}" for name in terms if name in largest]
    rest = [f"{len(terms) - 3} more"] if len(terms) > 3 else []
    total = f"loss {sum(terms.values()):.3g}: " if len(terms) > 1 else ""
    return total + ", ".join(shown + rest)
