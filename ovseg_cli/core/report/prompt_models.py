"""Which runs have learned class prompts, what has each prompt become, and which class names come nearest to it?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip.text import text_features
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.names import vocabulary_of
from ovseg_cli.core.evaluation.request import EvalRequest
from ovseg_cli.core.methods.build import ModelChoice, build_method, choose_model, split_settings
from ovseg_cli.core.nn.label_maps import label_map
from ovseg_cli.core.registry import METHODS
from ovseg_cli.core.report.figure_inputs import captions_of
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import Run
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.types import TextFeatures

if TYPE_CHECKING:
    from ovseg_cli.core.data.splits import DataChoice

SETTING = "prompt_templates"
"""Setting of every method with learned prompts: the sentences around them."""
MOST_NAMES = 3


@dataclass(frozen=True)
class PromptModel:
    """A model with learned class prompts.

    Attributes:
        caption: How it is called beside others.
        run: Its run.
        method: The method, on its device.
        training: How it was trained, where the run says; else the defaults.
        prompts: (k, D), unit length.
    """

    caption: str
    run: Run
    method: Any
    training: Any
    prompts: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    @torch.no_grad()
    def map_of(self, image: Tensor) -> NDArray[np.int64]:
        """Return the prompt that each pixel is nearest to, (H, W), of a picture, (3, H, W) uint8."""
        (prediction,) = self.method.predict([image], TextFeatures.of_classes(self.prompts))
        return label_map(prediction).cpu().numpy().astype(np.int64)


def prompt_choices(runs: Sequence[Run], folders: Folders) -> list[tuple[str, ModelChoice]]:
    """Return caption and choice of each run, before anything is loaded.

    Raises:
        UsageError: The method of a run has no learned prompts, or its training did not change them.
    """
    choices = [replace(choose_model(str(run.path.absolute()), folders.runs), run=run) for run in runs]
    for run, choice in zip(runs, choices, strict=True):
        _check_prompts(run, choice)
    return list(zip(captions_of(choices), choices, strict=True))


def _check_prompts(run: Run, choice: ModelChoice) -> None:
    if SETTING not in METHODS[choice.method].load().Config.model_fields:
        able = " or ".join(name for name, entry in METHODS.items() if SETTING in entry.load().Config.model_fields)
        raise UsageError(f"{run.path}: a run of {choice.method} has no learned prompts.", f"Name a run of {able}.")
    for key, value in (("clustering", False), ("class_names", "data")):
        if run.config.get("training", {}).get(key) == value:
            said = f"{key} = {str(value).lower()}"
            raise UsageError(f"{run.path}: was trained with {said}, so its prompts are random.", "Name another run.")


def load_prompts(caption: str, choice: ModelChoice, device: torch.device, reporter: Reporter) -> PromptModel:
    """Build the model of a run and read its prompts.

    Raises:
        DataError: Its weights are missing or broken.
    """
    assert choice.run is not None
    method: Any = build_method(choice, device, reporter)
    _, training = split_settings(type(method), choice.run.config.get("training", {}), choice.method)
    return PromptModel(caption, choice.run, method, training, _read(method, method.class_prompts))


def first_prompts(model: PromptModel) -> Tensor:
    """Return the prompts that the training of a model began with, (k, D), unit length: words drawn by their seed."""
    method, trained = model.method, model.method.class_prompts
    count, length, _ = trained.prompt_tokens.shape
    fresh = type(trained)(method.clip, count, length, method.config.prompt_templates).to(method.clip.device)
    return _read(method, fresh)


@torch.no_grad()
def _read(method: Any, prompts: Any) -> Tensor:
    return F.normalize(prompts(method.clip).float(), dim=-1)


@dataclass(frozen=True)
class NamedPrompts:
    """The class names beside the prompts of a model.

    Attributes:
        names: K class names; none where the data set has no classes.
        cosines: (k, K) of each prompt and class; of several synonyms the nearest counts.
        features: (K, D) of the classes, unit length; of several synonyms the mean.
    """

    names: tuple[str, ...]
    cosines: Tensor
    features: Tensor

    def nearest(self, prompt: int, most: int = MOST_NAMES) -> list[tuple[str, float]]:
        """Return the nearest names of a prompt and their cosines, the nearest first."""
        best = self.cosines[prompt].sort(descending=True, stable=True)
        found = zip(best.indices[:most].tolist(), best.values[:most].tolist(), strict=True)
        return [(self.names[i], cosine) for i, cosine in found]

    @property
    def classes(self) -> list[int]:
        """Id of the nearest class of each prompt."""
        return self.cosines.argmax(1).tolist() if self.names else []

    @property
    def labels(self) -> list[str]:
        """What each prompt is called in a legend: its number, and the nearest name where there is one."""
        if not self.names:
            return [f"prompt {i}" for i in range(len(self.cosines))]
        return [f"{i}: {self.names[place]}" for i, place in enumerate(self.classes)]


def require_names(data: str, names: Sequence[str]) -> None:
    """Refuse a data set without class names.

    Raises:
        UsageError: There are none.
    """
    if not names:
        raise UsageError(f"{data} has no class names to compare prompts with.", "Name a data set with --data.")


def named_prompts(model: PromptModel, choice: "DataChoice", folders: Folders, reporter: Reporter) -> NamedPrompts:
    """Compare the prompts of a model with the class names of a data set, in the sentences that surround the prompts."""
    if not choice.spec.classes:
        return NamedPrompts((), model.prompts.new_zeros(len(model), 0), model.prompts[:0])
    method = model.method
    vocabulary = vocabulary_of(choice, EvalRequest(), type(method), model.run)
    vocabulary = replace(vocabulary, templates=tuple(method.config.prompt_templates))
    text = text_features(method.clip, vocabulary, folders.cache, reporter)
    return NamedPrompts(vocabulary.class_names, class_cosines(model.prompts, text), _class_means(text))


def class_cosines(prompts: Tensor, text: TextFeatures) -> Tensor:
    """Return (k, K) cosines of (k, D) unit-length prompts and classes; a class has that of its nearest name."""
    cosines = prompts @ text.features.T
    best = cosines.new_full((len(prompts), text.num_classes), -torch.inf)
    return best.scatter_reduce(1, text.class_of_row.expand_as(cosines), cosines, "amax").cpu()


def _class_means(text: TextFeatures) -> Tensor:
    """Return (K, D) unit-length means of the names of each class."""
    sums = text.features.new_zeros(text.num_classes, text.features.shape[1])
    return F.normalize(sums.index_add(0, text.class_of_row, text.features), dim=-1)
