"""What `ovseg eval --task masks` does: a model is given masks, and the names that it gives them are scored."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ovseg_cli import __version__
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation import request as requests
from ovseg_cli.core.evaluation.mask_cache import without_source
from ovseg_cli.core.evaluation.mask_naming import MaskNamer, candidates_of, name_picture
from ovseg_cli.core.evaluation.mask_records import MaskRecord
from ovseg_cli.core.evaluation.mask_results import FOLDER, MaskResult
from ovseg_cli.core.evaluation.mask_sources import MaskSource, find_source
from ovseg_cli.core.evaluation.picture_loop import MaskJournal, go_through, keep
from ovseg_cli.core.evaluation.results import Facts
from ovseg_cli.core.evaluation.session import Job, describe, for_each_data
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.types import Sample, Vocabulary

if TYPE_CHECKING:
    from ovseg_cli.core.data.dataset import SegmentationData


@dataclass(frozen=True)
class MaskPlan:
    """A request whose names all exist: the plan of the models, and the masks of each data set."""

    models: requests.EvalPlan
    sources: tuple[MaskSource, ...]
    task: str = FOLDER

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


@dataclass(frozen=True)
class ScoredMasks:
    """One result and the file that holds it."""

    result: MaskResult
    path: Path


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


def score(plan: MaskPlan, folders: Folders, reporter: Reporter) -> list[ScoredMasks]:
    """Let the model of each data set name masks.

    Returns:
        One result a data set, saved as `results/masks/DATA-SUBSET-PROTOCOL-MASKS.json` in the run.

    Raises:
        UsageError: A setting or template does not fit.
        DataError: A picture, label or mask is broken or missing.
        MachineError: Weights, device or disk.
    """
    sources = iter(plan.sources)
    return for_each_data(
        plan.models, folders, reporter, lambda job: _score_one(job, next(sources)), join=True, before=plan.prepare
    )


def _score_one(job: Job, source: MaskSource) -> ScoredMasks:
    from ovseg_cli.core.data.dataset import PreparedData

    prepared = PreparedData.open(job.choice.spec, job.folders)
    data = prepared.subset(job.subset)
    vocabulary, text, facts = describe(job, prepared)
    facts = with_masks(facts, source, job.request.candidates)
    path = job.run.path / "results" / FOLDER / f"{job.stem}-{source.stem}.json"
    journal = path.with_suffix(".unfinished.jsonl")
    namer = MaskNamer(job.method, text.to(job.runtime.device), candidates_of(job.request.candidates, vocabulary))

    def act(sample: Sample) -> MaskRecord:
        return name_picture(namer, sample, source.masks(sample), data.ignore_label)

    remembered = MaskJournal(journal, key_of(facts), job.group.rank)
    what = f"naming masks of {job.choice.label}"
    records, timing = go_through(data, job.request.limit, remembered, act, what, job.reporter, job.group)
    result = _result(facts, vocabulary, source, records, timing)
    job.group.on_main(lambda: keep(result.save, path, journal))
    return ScoredMasks(result, path)


def with_masks(facts: Facts, source: MaskSource, candidates: str, keep_source: bool = False) -> Facts:
    """Put masks and candidates into the protocol; where masks are given, the method's own source plays no part."""
    settings = facts.protocol["method"]
    if not keep_source:
        settings = {k: v for k, v in settings.items() if k not in ("proposals", "proposal_settings")}
    protocol = {**facts.protocol, "method": settings, "candidates": candidates, "masks": source.name}
    prints = {**facts.fingerprints, "masks": source.digest}
    prints["protocol"] = digest_of([json.dumps(protocol, sort_keys=True)])
    return replace(facts, protocol=protocol, fingerprints=prints)


def key_of(facts: Facts) -> str:
    """Return a digest of all that changes names."""
    own = (facts.method, facts.data, facts.subset, facts.fingerprints, facts.environment.get("device"))
    return digest_of([__version__, json.dumps(own, sort_keys=True)])


def _result(
    facts: Facts, vocabulary: Vocabulary, source: MaskSource, records: dict[str, MaskRecord], timing: dict[str, float]
) -> MaskResult:
    result = MaskResult(
        **{field: getattr(facts, field) for field in facts.__dataclass_fields__},
        class_names=vocabulary.class_names,
        unseen=tuple(vocabulary.unseen),
        masks=source.facts(),
        records=records,
        timing=timing,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
    )
    if not result.left_out:
        return result
    total = len(result.named) + result.left_out
    note = f"{result.left_out:,} of {total:,} masks were left out: empty, or less than half of their pixels labelled."
    return replace(result, notes=(*result.notes, note))
