"""What an evaluation will do, resolved and checked before any weight is loaded. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core.errors import DataError, UsageError, unknown_name
from ovseg_cli.core.methods.build import ModelChoice, choose_model
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice

SCORE_SUBSET = "val"
BYTES_A_PICTURE = 900  # of a result file, measured with 171 classes


@dataclass(frozen=True)
class EvalRequest:
    """Options of `ovseg eval`, as typed; the fields are explained in its help."""

    model: str = "latest"
    data: tuple[str, ...] = ()
    unseen: str | None = None
    subset: str | None = None
    candidates: str = "all"
    split: str = "all"
    seen_penalty: float | None = None
    background_threshold: float | None = None
    templates: str | None = None
    names: str | None = None
    clip: str | None = None
    pretrained: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    force: bool = False
    gpus: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class EvalPlan:
    """A request whose names all exist.

    Attributes:
        request: What was asked.
        models: The method, CLIP and settings of each data set (presets may differ).
        data: The data sets with their class splits.
        subsets: The subset of each data set.
        images: The number of images of each.
    """

    request: EvalRequest
    models: tuple[ModelChoice, ...]
    data: "tuple[DataChoice, ...]"
    subsets: tuple[str, ...]
    images: tuple[int, ...]

    def document(self, folders: Folders) -> dict[str, Any]:
        """The plan for `--dry-run`: paths, counts, steps, memory and disk (both estimated)."""
        rows = [
            {
                "data": choice.label,
                "folder": str(folders.data / choice.spec.name),
                "subset": subset,
                "images": images,
                "classes": len(choice.spec.classes),
                "method": model.method,
                "clip": model.clip if model.pretrained is None else f"{model.clip} / {model.pretrained}",
                "settings": model.settings,
                "result": f"results/{result_name(choice, subset, self.request, '')}.json",
                "disk_mib": round(images * BYTES_A_PICTURE / 2**20, 2),
            }
            for choice, model, subset, images in zip(self.data, self.models, self.subsets, self.images, strict=True)
        ]
        model = self.models[0]
        run = str(model.run.path) if model.run else f"{folders.runs}/{model.method}-{self.data[0].label}-TIME"
        memory = estimate_memory(model)
        return {
            "schema": 1,
            "model": self.request.model,
            "run": run.replace(":", "-"),
            "candidates": self.request.candidates,
            "memory_mib": memory,
            "steps": rows,
        }


def estimate_memory(model: ModelChoice) -> int | None:
    """Megabytes of the CLIP's weights in float32, from its file or its architecture; None where neither tells."""
    from ovseg_cli.core.clip.model import parameter_count

    count = parameter_count(model.clip)
    return None if count is None else round(count * 4 / 2**20)


def resolve(request: EvalRequest, folders: Folders, reporter: Reporter) -> EvalPlan:
    """Check every name of a request and look up what it leaves open.

    Raises:
        UsageError: An unknown method, data set, class split or subset; `--split unseen` without a class split.
        DataError: A data set is not prepared.
    """
    from ovseg_cli.core.data.dataset import PreparedData

    choices = _data_choices(request, folders, reporter)
    models, subsets, images = [], [], []
    for choice in choices:
        _check_split(request, choice)
        _check_words(request, choice)
        models.append(
            choose_model(request.model, folders.runs, choice.spec, request.clip, request.pretrained, request.settings)
        )
        prepared = PreparedData.open(choice.spec, folders)
        subset = request.subset or SCORE_SUBSET
        if subset not in prepared.subsets:
            raise unknown_name(f"subset of {choice.spec.name}", subset, prepared.subsets)
        total = prepared.subsets[subset]
        subsets.append(subset)
        images.append(min(total, request.limit) if request.limit else total)
    return EvalPlan(request, tuple(models), tuple(choices), tuple(subsets), tuple(images))


def _data_choices(request: EvalRequest, folders: Folders, reporter: Reporter) -> "list[DataChoice]":
    from ovseg_cli.core.data.dataset import last_prepared
    from ovseg_cli.core.data.find import find_data

    if request.data:
        return [find_data(label, request.unseen, folders) for label in request.data]
    run = choose_model(request.model, folders.runs, None, request.clip, request.pretrained).run
    if run is not None:
        label, unseen = run.data
        return [find_data(label, request.unseen or unseen, folders)]
    last = last_prepared(folders)
    if last is None:
        raise DataError(
            f"no data set is prepared in {folders.data}/, and --data names none.", "Start with: ovseg prepare toy"
        )
    reporter.say(f"--data not given: taking the data set prepared last, {last}")
    return [find_data(last, request.unseen, folders)]


def _check_split(request: EvalRequest, choice: "DataChoice") -> None:
    """Seen and unseen need a class split; sa-1b has no classes at all."""
    if choice.spec.task != "semantic":
        raise UsageError(f"{choice.spec.name} holds masks without classes: there is nothing to score.")
    needs = [name for name in ("split", "candidates") if getattr(request, name) != "all"]
    if request.seen_penalty:
        needs.append("seen-penalty")
    if needs and choice.split is None:
        raise UsageError(
            f"--{needs[0]}: {choice.spec.name} has no class split, all of its classes count as seen.",
            'Make one of your own with --unseen "a, b".',
        )
    if request.background_threshold is not None and choice.spec.background is None:
        raise UsageError(
            f"--background-threshold: {choice.spec.name} has no background class that a pixel could become.",
            "Leave it out, or choose a data set with background (voc-21, pascal-context-60, coco-object).",
        )


def _check_words(request: EvalRequest, choice: "DataChoice") -> None:
    """Templates and name variants that do not exist are found before anything is made."""
    from ovseg_cli.core.clip.prompts import resolve_templates

    choice.spec.variant(request.names)
    if request.templates:
        resolve_templates([request.templates])


def result_name(choice: "DataChoice", subset: str, request: EvalRequest, changed: str) -> str:
    """Stem of a result file, `DATA-SUBSET-PROTOCOL`.

    Args:
        choice: Data set and class split.
        subset: Subset of images.
        request: What makes the protocol.
        changed: Short digest of settings that differ from the run's own, or "".
    """
    protocol = request.candidates
    if request.seen_penalty is not None:
        protocol += f"-gamma{request.seen_penalty:g}"
    if request.background_threshold is not None:
        protocol += f"-thr{request.background_threshold:g}"
    if request.limit:
        protocol += f"-first{request.limit}"
    data = Path(choice.label.replace(":", "-").replace("/", "-")).name
    return "-".join(part for part in (data, subset, protocol, changed) if part)
