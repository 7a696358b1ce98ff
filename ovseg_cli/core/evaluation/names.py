"""Which names compete in an evaluation, in which sentences, and how do scores become class ids?"""

from typing import TYPE_CHECKING

from ovseg_cli.core.clip.prompts import resolve_templates
from ovseg_cli.core.evaluation.request import EvalRequest
from ovseg_cli.core.methods.texts import default_names, default_templates
from ovseg_cli.core.runs import Run
from ovseg_cli.core.types import Readout, Vocabulary

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice
    from ovseg_cli.core.methods.base import Method


def vocabulary_of(
    choice: "DataChoice", request: EvalRequest, method: "type[Method]", run: Run | None = None
) -> Vocabulary:
    """Names, synonyms and templates: `--names` and `--templates`, else those of run, spec or method.

    Templates of the data set stand above the method's; names of the method's paper above the data set's.
    """
    kept = run.config.get("vocabulary", {}).get("templates") if run else None
    templates = resolve_templates([request.templates]) if request.templates else kept
    templates = templates or default_templates(method, choice.spec.preset.templates)
    return choice.spec.vocabulary(choice.split, templates, names_of(choice, request, method))


def names_of(choice: "DataChoice", request: EvalRequest, method: "type[Method]") -> str | None:
    """Id of the data set's variant of names: `--names`, else that of the method's paper; None: its own names."""
    return request.names or default_names(method, [variant.id for variant in choice.spec.name_variants])


def of_the_paper(choice: "DataChoice", request: EvalRequest, method: "Method", vocabulary: Vocabulary) -> str | None:
    """Say what the method's paper chose where the user said nothing: class names, threshold of the background."""
    parts = []
    if not request.names and (names := names_of(choice, request, type(method))):
        parts.append(f"class names '{names}' (--names)")
    threshold = method.background_threshold
    if request.background_threshold is None and vocabulary.background is not None and threshold is not None:
        parts.append(f"background below a probability of {threshold:g} (--background-threshold)")
    return f"as the paper of {method.title} does: {' and '.join(parts)}" if parts else None


def readout_of(request: EvalRequest, vocabulary: Vocabulary, method: "Method") -> Readout:
    """How scores become class ids under the options of a request, else under the method's own calibration."""
    sets = {"all": None, "seen": tuple(vocabulary.seen_ids), "unseen": tuple(vocabulary.unseen_ids)}
    penalty = method.seen_penalty if request.seen_penalty is None else request.seen_penalty
    penalty = penalty if any(vocabulary.unseen) else 0.0
    threshold = request.background_threshold
    if threshold is None and vocabulary.background is not None:
        threshold = method.background_threshold
    return Readout(
        candidates=sets[request.candidates],
        seen_penalty=penalty,
        seen_ids=tuple(vocabulary.seen_ids) if penalty else (),
        softmax_scale=None if threshold is None else method.probability_scale,
        threshold=threshold,
        background=None if threshold is None else vocabulary.background,
    )
