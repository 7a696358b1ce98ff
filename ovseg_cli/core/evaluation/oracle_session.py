"""What `ovseg eval --task oracle` does: four label maps of each picture, and what holds the method back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ovseg_cli import __version__
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.evaluation import mask_session, picture_loop
from ovseg_cli.core.evaluation import request as requests
from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.journal import Journal
from ovseg_cli.core.evaluation.mask_cache import cached_masks
from ovseg_cli.core.evaluation.mask_naming import MaskNamer, candidates_of
from ovseg_cli.core.evaluation.mask_sources import MaskSource, TruthMasks
from ovseg_cli.core.evaluation.oracle import RUNGS, climb, maps_of_masks, maps_of_method
from ovseg_cli.core.evaluation.oracle_results import FOLDER, OracleResult
from ovseg_cli.core.evaluation.results import Facts
from ovseg_cli.core.evaluation.session import Job, describe, for_each_data, readout_of
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.types import Sample, Vocabulary


class OwnMasks(TruthMasks):
    """Stands for the masks that a method makes itself."""

    name = "own"

    @property
    def digest(self) -> str:
        """Always the same: the method's settings and weights tell the rest."""
        return digest_of(["own-masks-1"])


@dataclass(frozen=True)
class ScoredOracle:
    """One ladder and the file that holds it."""

    result: OracleResult
    path: Path


def resolve(
    request: requests.EvalRequest, proposals: str | None, folders: Folders, reporter: Reporter
) -> mask_session.MaskPlan:
    """Check every name of a request; raises what `mask_session.resolve` raises."""
    given = proposals is not None
    plan = mask_session.resolve(request, proposals, folders, reporter, given)
    sources = plan.sources if given else tuple(OwnMasks(0) for _ in plan.sources)
    return mask_session.MaskPlan(plan.models, sources, "oracle")


def score(plan: mask_session.MaskPlan, folders: Folders, reporter: Reporter) -> list[ScoredOracle]:
    """Climb the ladder on each data set.

    Returns:
        One result a data set, saved as `results/oracle/DATA-SUBSET-PROTOCOL-MASKS.json` in the run.

    Raises:
        UsageError: A setting or template does not fit.
        DataError: A picture, label or mask is broken or missing.
        MachineError: Weights, device or disk.
    """
    sources = iter(plan.sources)
    return for_each_data(
        plan.models, folders, reporter, lambda job: _score_one(job, next(sources)), join=True, before=plan.prepare
    )


def _score_one(job: Job, source: MaskSource) -> ScoredOracle:
    prepared = PreparedData.open(job.choice.spec, job.folders)
    data = prepared.subset(job.subset)
    vocabulary, text, facts = describe(job, prepared)
    is_own = isinstance(source, OwnMasks)
    facts = mask_session.with_masks(facts, source, job.request.candidates, keep_source=is_own)
    path = job.run.path / "results" / FOLDER / f"{job.stem}-{source.stem}.json"
    journal = path.with_suffix(".unfinished.jsonl")
    text = text.to(job.runtime.device)
    namer = MaskNamer(job.method, text, candidates_of(job.request.candidates, vocabulary))
    truth = TruthMasks(data.ignore_label)
    of_method = maps_of_method(job.method, text, readout_of(job.request, vocabulary, job.method))

    def act(sample: Sample) -> dict[str, Counts]:
        own = of_method if is_own else maps_of_masks(source.masks(sample), namer)
        return climb(sample, truth.masks(sample), namer, own, data.ignore_label)

    remembered = Journal(journal, mask_session.key_of(facts), vocabulary.num_classes + 1, job.group.rank)
    what = f"oracle of {job.choice.label}"
    with cached_masks(job.method if is_own else None, data, job.folders, job.reporter):
        found = picture_loop.go_through(data, job.request.limit, remembered, act, what, job.reporter, job.group)
    result = _result(facts, vocabulary, source.facts(), *found)
    job.group.on_main(lambda: picture_loop.keep(result.save, path, journal))
    return ScoredOracle(result, path)


def _result(
    facts: Facts,
    vocabulary: Vocabulary,
    masks: dict[str, Any],
    found: dict[str, dict[str, Counts]],
    timing: dict[str, float],
) -> OracleResult:
    names: Sequence[str] = list(found)
    size = vocabulary.num_classes + 1
    return OracleResult(
        **{field: getattr(facts, field) for field in facts.__dataclass_fields__},
        class_names=vocabulary.class_names,
        unseen=tuple(vocabulary.unseen),
        masks=masks,
        counts={rung: CountTable.of(names, [found[name][rung] for name in names], size) for rung in RUNGS},
        timing=timing,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
    )
