"""What `ovseg eval --task masks` does: a model is given masks, and the names that it gives them are scored."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation import request as requests
from ovseg_cli.core.evaluation.mask_cache import without_source
from ovseg_cli.core.evaluation.mask_job import MaskJob, Scored
from ovseg_cli.core.evaluation.mask_naming import name_picture
from ovseg_cli.core.evaluation.mask_records import MaskRecord
from ovseg_cli.core.evaluation.mask_results import MaskResult
from ovseg_cli.core.evaluation.mask_sources import MaskSource, find_source
from ovseg_cli.core.evaluation.picture_loop import MaskJournal
from ovseg_cli.core.evaluation.session import Job, for_each_data
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.types import Sample

if TYPE_CHECKING:
    from ovseg_cli.core.data.dataset import SegmentationData

T = TypeVar("T")


@dataclass(frozen=True)
class MaskPlan:
    """A request whose names all exist: the plan of the models, and the masks of each data set."""

    models: requests.EvalPlan
    sources: tuple[MaskSource, ...]
    task: str = MaskResult.folder

    def document(self, folders: Folders) -> dict[str, Any]:
        """The plan for `--dry-run`."""
        plan = self.models.document(folders)
        steps = [{**step, "masks": source.name} for step, source in zip(plan["steps"], self.sources, strict=True)]
        for step in steps:
            step["result"] = step["result"].replace("results/", f"results/{self.task}/")
        return {**plan, "task": self.task, "steps": steps}

    def prepare(self, device: torch.device, reporter: Reporter) -> None:
        """Build what makes the masks."""
        for source in self.sources:
            source.prepare(device, reporter)

    def run(self, act: Callable[[Job, MaskSource], T], folders: Folders, reporter: Reporter) -> list[T]:
        """Do something with the model and the masks of each data set."""
        sources = iter(self.sources)
        return for_each_data(
            self.models, folders, reporter, lambda job: act(job, next(sources)), join=True, before=self.prepare
        )


def resolve(
    request: requests.EvalRequest, proposals: str | None, folders: Folders, reporter: Reporter, given: bool = True
) -> MaskPlan:
    """Check every name of a request, and find its masks.

    Args:
        request: Model, data, names.
        proposals: What `--proposals` said.
        folders: Where data, runs and caches lie.
        reporter: Told what is taken where nothing was said.
        given: The masks are given: a model that has a source of its own never asks it.

    Raises:
        UsageError: An unknown name.
        DataError: Data that is not prepared, has no labels, or has changed since the masks were made.
    """
    plan = requests.resolve(request, folders, reporter)
    sources = []
    for choice, subset in zip(plan.data, plan.subsets, strict=True):
        pictures = open_labelled(choice, subset, folders)
        sources.append(find_source(proposals, choice, request.unseen, pictures, folders, reporter))
    if given:
        plan = replace(plan, models=tuple(without_source(model) if model.run else model for model in plan.models))
    return MaskPlan(plan, tuple(sources))


def open_labelled(choice: Any, subset: str, folders: Folders) -> "SegmentationData":
    """Open a subset that has label maps; raises DataError where it has none."""
    from ovseg_cli.core.data.dataset import PreparedData

    pictures = PreparedData.open(choice.spec, folders).subset(subset)
    if not pictures.has_labels:
        raise DataError(f"{choice.spec.name}, subset '{subset}', has no label maps.", "Choose another --subset.")
    return pictures


def score(plan: MaskPlan, folders: Folders, reporter: Reporter) -> list[Scored[MaskResult]]:
    """Let the model of each data set name masks.

    Returns:
        One result a data set, saved as `results/masks/DATA-SUBSET-PROTOCOL-MASKS.json` in the run.

    Raises:
        UsageError: A setting or template does not fit.
        DataError: A picture, label or mask is broken or missing.
        MachineError: Weights, device or disk.
    """
    return plan.run(_score_one, folders, reporter)


def _score_one(job: Job, source: MaskSource) -> Scored[MaskResult]:
    own = MaskJob.open(job, source, MaskResult.folder)

    def act(sample: Sample) -> MaskRecord:
        return name_picture(own.namer, sample, source.masks(sample), own.data.ignore_label)

    remembered = MaskJournal(own.journal, own.key, job.group.rank)
    records, timing = own.go_through(remembered, act, "naming masks")
    result = MaskResult.of(own.facts, own.vocabulary, source.facts(), timing, records=records)
    if result.left_out:
        total = len(result.named) + result.left_out
        left = f"{result.left_out:,} of {total:,} masks were left out"
        note = f"{left}: empty, or less than half of their pixels labelled."
        result = replace(result, notes=(*result.notes, note))
    return own.keep(result)
