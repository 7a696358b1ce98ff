"""How a trained method, its data and the names that it may know become a task of the training loop."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.methods.trained import TrainedMethod
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.training.collate import ready
from ovseg_cli.core.training.live_masks import MadeInStep
from ovseg_cli.core.training.method_data import TrainData
from ovseg_cli.core.training.own_labels import makes_labels, write_own_labels
from ovseg_cli.core.training.precision import choose_precision, forward_context, step_context
from ovseg_cli.core.training.schedule import Schedule
from ovseg_cli.core.types import TextFeatures, TrainBatch


class MethodTask:
    """A method that is trained; a `Task` of the loop.

    Args:
        method: Its trained parameters have gradients on, all others off.
        data: Pictures, labels and proposals.
        text: Features of the training vocabulary, `data.classes.names` in their order.
        evaluate: Scores the method as it is; None scores nothing.
        live: Makes the masks of each example; None where `data` brings them, or none are wanted.

    Raises:
        ShapeError: `text` has not one class for each name.
    """

    def __init__(
        self,
        method: TrainedMethod,
        data: TrainData,
        text: TextFeatures,
        evaluate: Callable[[], dict[str, float]] | None = None,
        live: MadeInStep | None = None,
    ):
        if text.num_classes != len(data.classes.names):
            raise ShapeError(
                f"text features speak for {text.num_classes} classes, the training labels for {len(data.classes.names)}"
            )
        self.name = method.name
        self.module = method
        self.data = data
        self.text = text
        self._evaluate, self._live = evaluate, live

    @property
    def training(self) -> TrainingConfig:
        """The settings."""
        return self.data.training

    def optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer from the method's groups; what a group leaves open is the config's."""
        training = self.training
        groups = [group for group in self.module.parameter_groups(training) if group["params"]]
        if training.optimizer == "sgd":
            return torch.optim.SGD(
                groups, lr=training.learning_rate, momentum=training.momentum, weight_decay=training.weight_decay
            )
        return torch.optim.AdamW(
            groups, lr=training.learning_rate, betas=training.betas, weight_decay=training.weight_decay
        )

    def steps(self, parts: int = 1) -> TrainData:
        """Return the data: item `step * parts + part` is that part of the step's global batch."""
        return self.data.in_parts(parts)

    def train_mode(self) -> None:
        """Switch to training as the method wants it: frozen parts stay as they are when scoring."""
        self.module.train_mode()

    def kept(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds: what the method trains and what goes with it, not its CLIP as loaded."""
        return self.module.checkpoint_state()

    @torch.no_grad()
    def before_step(self, batches: Sequence[TrainBatch], total: Callable[[Tensor], Tensor]) -> None:
        """Let masks that are made live, labels that the method makes itself and what else it prepares join the batches.

        All of it comes before anything is counted.
        """
        device, precision = self.module.clip.device, self.training.precision
        text = self._text_on(device)
        for batch in batches:
            if self._live is not None:
                batch["masks"] = self._live.of(batch)
            if makes_labels(self.module):
                write_own_labels(self.module, batch, text, precision)
        with step_context(device), forward_context(device, choose_precision(precision, device)):
            prepared = self.module.before_step([ready(batch) for batch in batches], text, total)
        for batch, joins in zip(batches, prepared, strict=True):
            batch |= joins

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        """Count what the losses are divided by; the loop adds the counts of all parts of a step."""
        return self.module.normalisers(ready(batch))

    def losses(self, batch: TrainBatch, totals: dict[str, float]) -> dict[str, Tensor]:
        """Return the weighted loss terms of a part; over all parts they add up to the loss of the step."""
        return self.module.losses(ready(batch), self._text_on(batch["images"].device), totals)

    def _text_on(self, device: torch.device) -> TextFeatures:
        if self.text.features.device != device:
            self.text = self.text.to(device)
        return self.text

    def after_step(self) -> dict[str, float]:
        """Do what the method does after an update."""
        return self.module.after_step()

    def evaluate(self) -> dict[str, float]:
        """Score the method as it is; nothing where no scoring was asked for."""
        return self._evaluate() if self._evaluate is not None else {}


def schedule_of(training: TrainingConfig) -> Schedule:
    """Return the learning rate's course that the settings ask for."""
    return Schedule(
        training.iterations,
        training.schedule,
        training.warmup,
        training.warmup_start,
        training.final_learning_rate,
        training.power,
    )


def loop_settings_of(training: TrainingConfig) -> dict[str, Any]:
    """Return the settings as keyword arguments of `LoopSettings`."""
    return {
        "schedule": schedule_of(training),
        "clip_grad_norm": training.clip_grad_norm or None,
        "precision": training.precision,
        "workers": training.workers,
        "log_every": training.log_every,
        "save_every": training.save_every,
        "accumulate": training.accumulate,
        "ema": training.ema,
        "compile": training.compile,
        "eval_every": training.eval_every,
    }
