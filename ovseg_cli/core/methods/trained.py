"""The contract of a method that is trained: parameter groups, losses that add up, and weights that a run keeps."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.methods.base import Method, Source
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.types import TextFeatures, TrainBatch


@dataclass(frozen=True)
class LabelView:
    """Which labels reach a training, and in whose positions they are written.

    Attributes:
        names: The training vocabulary: names of seen classes alone, of all, or no names.
        labelled: Classes whose labels may be read; where there are none, no label is ever opened.
        marks_unseen: Pixels of unseen classes are `UNSEEN_PIXEL` instead of -1: their place is read, their class not.
    """

    names: Literal["seen", "all", "none"] = "seen"
    labelled: Literal["seen", "all", "none"] = "seen"
    marks_unseen: bool = False


@dataclass(frozen=True)
class SecondView:
    """How the strong view differs from the weak one, which is the example itself (`batch["strong"]`).

    Attributes:
        colors: Colours change, and some pictures turn grey or are blurred.
        cut_out: A black box hides a part (`batch["cut_outs"]`); without it the box is empty.
    """

    colors: bool = True
    cut_out: bool = True


Total = Callable[[Tensor], Tensor]
"""Adds a tensor over all processes of a training; each process must call it as often as the others."""


FAMILY_SOURCES = {
    "optimizer": Source("code", "AdamW"),
    "betas": Source("code", "AdamW's defaults"),
    "power": Source("code", "0.9"),
    "final_learning_rate": Source("code", "poly falls to 0"),
    "warmup": Source("code", "no warm-up"),
    "train_long_side": Source("code", "MAX_SIZE_TRAIN 2560"),
    "flip": Source("code", "horizontal, one half"),
    "pad_value": Source("code", "128"),
}
"""What the codes of MAFT and of its three hosts have in common, down to their shared base configuration."""


class TrainedMethod(Method):
    """A method with weights of its own, or with a tuned CLIP.

    Attributes:
        training_names: Names of the classes it was trained on, synonyms included; None where nobody knows. Set by
            whoever loads or trains it: what counts as seen follows from it.
        wants_proposals: Training steps need `batch["masks"]`.
        training_sources: Where the defaults of `Training` come from, for `ovseg show`.
    """

    Training: ClassVar[type[TrainingConfig]] = TrainingConfig
    wants_proposals: ClassVar[bool] = False
    training_sources: ClassVar[dict[str, Any]] = {}
    training_names: tuple[str, ...] | None = None

    @classmethod
    def label_view(cls, training: TrainingConfig) -> LabelView:
        """Say which names and labels a training with these settings reads; by default those of seen classes alone."""
        return LabelView()

    @classmethod
    def implied(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return defaults of some settings that follow from the value of others (of the method and its training).

        Whatever a recipe, a file or the user says stands above them.
        """
        return {}

    @classmethod
    def first_step(cls, training: TrainingConfig) -> dict[str, Any] | None:
        """Return settings of a training of the same method that has to come first; None where none has.

        Its weights are what this training starts from.
        """
        return None

    @classmethod
    def caveats(cls, training: Mapping[str, Any]) -> list[str]:
        """Return what must be said wherever a score of a model with these training settings is printed."""
        return []

    @classmethod
    def second_view(cls, training: TrainingConfig) -> SecondView | None:
        """Say whether a training sees each example twice; by default once."""
        return None

    def before_step(self, parts: Sequence[TrainBatch], text: TextFeatures, total: Total) -> list[dict[str, Any]]:
        """Do what needs the whole global batch before any of its losses: clustering, a momentum encoder's turn.

        Called once a step, in every process, without gradients and in the arithmetic of the step.

        Args:
            parts: This process's parts of the step, as `losses` gets them, but in host memory.
            text: Features of the training vocabulary, on the method's device.
            total: Adds over all processes.

        Returns:
            For each part what joins it, in host memory: `normalisers` may count it, `losses` gets it.
        """
        return [{} for _ in parts]

    def own_labels(self, batch: TrainBatch, text: TextFeatures) -> Tensor | None:
        """Return labels that the method makes itself (self-training); None keeps those of the batch.

        Called once for each part of a step, before `normalisers`, without gradients, in the arithmetic of the step.

        Args:
            batch: As `losses` gets it, on the device of the method.
            text: Features of the training vocabulary.

        Returns:
            (B, H, W) int64, on any device.
        """
        return None

    def training_templates(self, templates: tuple[str, ...]) -> tuple[str, ...]:
        """Return the sentences in which a training reads its names; by default `templates`, those of scoring."""
        return templates

    def check_training(self, training: TrainingConfig) -> None:
        """Refuse settings of a training that do not fit the CLIP, before a run folder is made; by default nothing.

        Raises:
            UsageError: One does not fit.
        """

    @abstractmethod
    def parameter_groups(self, training: TrainingConfig) -> list[dict[str, Any]]:
        """Return the optimizer's groups: "params", and "lr" and "weight_decay" where they differ from the config's.

        Exactly the parameters that the paper trains; all others have `requires_grad` off.
        """

    def begin_training(self, training: TrainingConfig, reporter: Reporter) -> None:
        """Load what new training starts from, a backbone's ImageNet weights; once, before the first step of a run.

        Not called on resume, whose checkpoint holds all weights.
        """

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        """Count what the losses are divided by, from the labels and masks alone, without the network.

        The loop adds the counts of all processes and micro-batches of a step and gives them to `losses`, so that
        the parts of a batch add up to the loss of the whole. By default the number of pictures.
        """
        return {"images": float(len(batch["images"]))}

    @abstractmethod
    def losses(self, batch: TrainBatch, text: TextFeatures, totals: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the weighted loss terms of a part of a batch; over all parts they add up to the loss.

        Args:
            batch: Pictures, labels and masks (types.TrainBatch).
            text: Features of the training vocabulary: seen classes only.
            totals: `normalisers` summed over all parts.
        """

    def after_step(self) -> dict[str, float]:
        """Do what follows an update (momentum encoders, clamping); return numbers for the log."""
        return {}

    def train_mode(self) -> None:
        """Switch to training: only modules that hold trained parameters, so that frozen parts keep no dropout."""
        self.eval()
        for module in self.modules():
            if any(p.requires_grad for p in module.parameters(recurse=False)):
                module.train()

    def trained_state(self) -> dict[str, Tensor]:
        """Return all parameters and buffers but those of the CLIP, which stays as it was loaded."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("clip.")}

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds, the tensors themselves: also what only a training needs to go on."""
        return self.trained_state()

    def load_trained_state(self, state: Mapping[str, Tensor], where: str) -> None:
        """Load what `trained_state` returned.

        Raises:
            DataError: Names or shapes differ; the first difference is named.
        """
        own = self.trained_state()
        for kind, names in (("lacks", own.keys() - state.keys()), ("has an unknown", state.keys() - own.keys())):
            if names:
                raise DataError(f"{where}: {kind} weight '{min(names)}' of {self.name}.", "Train or convert it anew.")
        with torch.no_grad():
            for name, tensor in state.items():
                if own[name].shape != tensor.shape:
                    shapes = f"{tuple(tensor.shape)}, the settings ask for {tuple(own[name].shape)}"
                    raise DataError(f"{where}: weight '{name}' is {shapes}.", "Train or convert it anew.")
                own[name].copy_(tensor)


def freeze_except(module: nn.Module, trained: Sequence[nn.Parameter]) -> None:
    """Let only the given parameters of a module have gradients."""
    module.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
