"""What the importers of all layouts share: what they are asked, what they return, and how a network is filled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.conversion.choices import Choice
from ovseg_cli.core.conversion.clip_tower import check_constant
from ovseg_cli.core.conversion.ledger import Ledger, check_fit
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.masked import IMAGENET_MEAN, IMAGENET_STD
from ovseg_cli.core.methods.trained import TrainedMethod

ADAPTER, CLIP = "clip_adapter.", "clip_adapter.clip_model."


@dataclass(frozen=True)
class Asked:
    """What the user said beside the checkpoint.

    Attributes:
        settings: Of the method, its networks (`generator`) and its host (`host`); of `--config` and `--set`.
        clip: Table `clip`.
        has_templates: Sentences were named.
        recipe: The paper's settings for the data set that was named, by method.
        data: Name of that data set.
        other_clip: The CLIP for layouts that may hold none; loads it when it is called.
        text_clip: The same with its weights, for layouts that may hold the image tower alone.
        original_clip: The CLIP that was named, with its weights, for layouts that compare theirs with it; loads it when
            it is called. None where none was named.
        counts: How many classes that data set has, seen ones and all; None where none was named.
    """

    settings: dict[str, Any]
    clip: dict[str, Any]
    has_templates: bool = False
    recipe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: str = ""
    other_clip: Any = None
    text_clip: Any = None
    original_clip: Any = None
    counts: tuple[int, int] | None = None


@dataclass(frozen=True)
class Imported:
    """A method with the weights of a checkpoint.

    Attributes:
        method: The method.
        clip: Its CLIP.
        has_clip: The CLIP comes from the checkpoint; else from `--clip`.
        choices: Every value that no shape tells, with its source.
        host: The method that makes its masks, or None.
        training_classes: How many classes it was trained on, where the file tells.
        joint: Settings of the host that hold only where it makes this method's masks.
        facts: How it was trained, in the words of the method's training settings, where that is known.
        has_text: The text tower comes from the checkpoint too.
        compares_clip: A CLIP that was named is compared with the checkpoint's own.
        checks: What was found in the checkpoint, sentences.
    """

    method: TrainedMethod
    clip: ClipModel
    has_clip: bool
    choices: list[Choice]
    host: TrainedMethod | None = None
    training_classes: int | None = None
    joint: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    has_text: bool = True
    compares_clip: bool = False
    checks: tuple[str, ...] = ()


def fill_generator(generator: nn.Module, found: Mapping[str, Tensor], where: str) -> None:
    """Load a mask generator, whose names are the official ones.

    Raises:
        UsageError: Names or shapes differ.
    """
    check_fit(generator.state_dict(), found, where, "the mask generator")
    generator.load_state_dict(dict(found))


def fill_row(parameter: nn.Parameter, ledger: Ledger, name: str, note: str) -> None:
    """Load one learned row.

    Raises:
        UsageError: It is missing or of another shape.
    """
    check_fit({name: parameter}, ledger.load(name, note), ledger.where, "the model")
    with torch.no_grad():
        parameter.copy_(ledger.state[name])


def count_training_classes(ledger: Ledger) -> int | None:
    """Return the number of classes that the loss weighed, K of K + 1, where the file tells."""
    weights = ledger.state.get("criterion.empty_weight")
    ledger.ignore("criterion.", "weights of the training loss")
    return None if weights is None else len(weights) - 1


def check_constants(ledger: Ledger) -> None:
    """Verify the constants that some versions of the codes saved with the model, and leave them out."""
    from ovseg_cli.core.clip.model import OPENAI_MEAN, OPENAI_STD

    for name, values in (
        ("pixel_mean", IMAGENET_MEAN),
        ("pixel_std", IMAGENET_STD),
        ("clip_pixel_mean", [255 * v for v in OPENAI_MEAN]),
        ("clip_pixel_std", [255 * v for v in OPENAI_STD]),
    ):
        if name in ledger.state:
            check_constant(ledger, name, list(values))


def refuse_learned_prompt(ledger: Ledger, prefix: str, has_templates: bool) -> None:
    """Write off a learned prompt where the user names sentences to read instead.

    Raises:
        UsageError: There is one, and no sentences were named.
    """
    learner = f"{prefix}prompt_learner."
    if not ledger.has(learner):
        return
    if not has_templates:
        raise UsageError(
            f"{ledger.where}: was trained with a learned prompt ('{learner}*'), which is not read here.",
            "Name the sentences to read instead, knowing that scores will differ: --set templates=vild",
        )
    ledger.ignore(learner, "learned prompt; the sentences that you named are read instead")
