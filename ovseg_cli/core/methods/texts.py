"""Which texts does a method read? Names in the right templates, further texts by role, and which classes were seen."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.prompts import PHOTO, template_set
from ovseg_cli.core.clip.text import text_features
from ovseg_cli.core.methods.base import Method
from ovseg_cli.core.methods.trained import TrainedMethod
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.types import TextFeatures, Vocabulary


def default_templates(
    method: type[Method], spec_templates: Sequence[str] | None = None, data: str = ""
) -> tuple[str, ...]:
    """Return the sentences where the user named none: the data set's, else the method's, else CLIP's.

    Args:
        method: The method; some read others on a certain data set.
        spec_templates: Those of the data set.
        data: Name of the data set that a model is trained on; it then reads the same everywhere.
    """
    if spec_templates:
        return tuple(spec_templates)
    if data in method.templates_on:
        return method.templates_on[data]
    return PHOTO if method.templates is None else template_set(method.templates)


def default_names(method: type[Method], known: Sequence[str]) -> str | None:
    """Return the name variant that a method's paper reads, where a data set has it; None is the data set's own."""
    return next((name for name in method.name_variants if name in known), None)


def method_text(
    method: Method, vocabulary: Vocabulary, cache: Path | None = None, reporter: Reporter | None = None
) -> TextFeatures:
    """Encode a vocabulary for a method: its rows, the rows of its further roles, and which of them it has seen.

    A method's further templates belong to its own: where the vocabulary has others (a data set's, the user's), every
    role reads those.
    """
    text = text_features(method.clip, vocabulary, cache, reporter)
    extra = {}
    if vocabulary.templates == default_templates(type(method)):
        for role, name in method.extra_templates.items():
            other = replace(vocabulary, templates=template_set(name))
            extra[role] = text_features(method.clip, other, cache, reporter).features
    names = getattr(method, "training_names", None)
    seen = None if names is None else seen_rows(vocabulary, names)[text.class_of_row.cpu()].to(text.features.device)
    return replace(text, seen=seen, extra=extra, at_home=is_at_home(vocabulary, names))


def no_text(clip: ClipModel) -> TextFeatures:
    """Return the text features of no names at all: no rows, nothing is encoded."""
    rows = torch.zeros(0, dtype=torch.int64, device=clip.device)
    return TextFeatures(torch.zeros(0, clip.embed_dim, device=clip.device), rows, 0)


def training_vocabulary(vocabulary: Vocabulary) -> Vocabulary:
    """Return the seen classes only: names of unseen ones never reach a loss."""
    return vocabulary.select(vocabulary.seen_ids)


def names_of(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return every name of a vocabulary, synonyms too, without doubles: what a run keeps of its training classes."""
    synonyms = (word for words in vocabulary.synonyms for word in words)
    return tuple(dict.fromkeys([*vocabulary.class_names, *synonyms]))


def is_at_home(vocabulary: Vocabulary, training_names: Iterable[str] | None) -> bool:
    """Whether these are the names of the data set that a model was trained on: its seen ones, or all of them.

    A model that has seen no names is at home nowhere.
    """
    if not training_names:
        return False
    return set(training_names) in (set(names_of(training_vocabulary(vocabulary))), set(names_of(vocabulary)))


def seen_rows(vocabulary: Vocabulary, training_names: Iterable[str]) -> Tensor:
    """Return (K,) bool: which classes were seen in training.

    Where the training names are those of the vocabulary's own seen classes, its class split says so; on another data
    set a class is seen where its name or a synonym is among the training names, spelling aside.
    """
    training_names = set(training_names)
    if training_names == set(names_of(training_vocabulary(vocabulary))):
        return ~torch.tensor(vocabulary.unseen)
    known = {normal_name(name) for name in training_names}
    classes = zip(vocabulary.class_names, vocabulary.synonyms, strict=True)
    return torch.tensor([any(normal_name(n) in known for n in (name, *words)) for name, words in classes])


def training_doubt(method: Method, vocabulary: Vocabulary) -> str | None:
    """Say why scores of unseen classes may be none: a method was trained on such classes, or nobody knows on which.

    Returns:
        A sentence, or None where there is no doubt.
    """
    if not any(vocabulary.unseen) or not isinstance(method, TrainedMethod):
        return None
    if method.training_names is None:
        return (
            "Nobody knows which classes this model was trained on, so that its unseen classes may be seen ones; "
            "`ovseg convert --data` says it."
        )
    known = seen_rows(vocabulary, method.training_names).tolist()
    flags = zip(vocabulary.class_names, known, vocabulary.unseen, strict=True)
    names = [name for name, seen, unseen in flags if seen and unseen]
    if not names:
        return None
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    every = sum(vocabulary.unseen)
    return f"Not zero-shot: {len(names)} of the {every} classes that this split calls unseen were trained on: {shown}."


def normal_name(name: str) -> str:
    """Bring a class name to one spelling: lower case, single spaces for hyphens and underscores."""
    return " ".join(name.lower().replace("-", " ").replace("_", " ").split())
