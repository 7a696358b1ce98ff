"""`ovseg report RUN --explain --score-missing`: the model is asked once a picture for all that no result tells yet."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.evaluation.evaluate import evaluate
from ovseg_cli.core.evaluation.journal import remove_journal
from ovseg_cli.core.evaluation.mask_cache import cached_masks
from ovseg_cli.core.evaluation.names import readout_of
from ovseg_cli.core.evaluation.request import EvalRequest, resolve
from ovseg_cli.core.evaluation.results import Facts, Result
from ovseg_cli.core.evaluation.session import Job, describe, for_each_data
from ovseg_cli.core.report.explain import variants_of
from ovseg_cli.core.report.explain_origin import request_of, turned
from ovseg_cli.core.report.explain_variants import find
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import RESULTS, Run
from ovseg_cli.core.runtime import Folders


def score_missing(
    result: Result,
    others: Sequence[Result],
    run: Run | None,
    folders: Folders,
    reporter: Reporter,
    gpus: int | None = None,
) -> list[Result]:
    """Score the variants of a result that are not among the others, and keep each as `ovseg eval` would.

    Args:
        result: The result.
        others: What was scored before.
        run: Its run, with the model.
        folders: Where data, runs and caches lie.
        reporter: Receives progress and messages.
        gpus: What `--gpus` said.

    Returns:
        The new results; none where nothing was missing.

    Raises:
        UsageError: The run is not there any more.
        DataError: Data or weights are missing, broken, or no longer those of the result.
    """
    missing = [variant for variant in variants_of(result, others) if find(result, others, variant) is None]
    if not missing:
        return []
    if run is None:
        raise UsageError(
            f"--score-missing: the run of this result, {result.run or 'without a name'}, is not here.",
            "Name the run folder that the result lies in, or leave --score-missing out.",
        )
    base = replace(request_of(result, run), gpus=gpus, seed=result.seed, force=True)
    requests = [turned(base, result, variant) for variant in missing]
    found: list[Result] = []
    for key in dict.fromkeys(_settings(request) for request in requests):
        own = [request for request in requests if _settings(request) == key]
        plan = resolve(own[0], folders, reporter)
        found += for_each_data(plan, folders, reporter, lambda job, own=own: _scored(job, own, result))[0]  # type: ignore[misc]
    return found


def _settings(request: EvalRequest) -> str:
    """Requests with the same settings share a model, and so a pass over the pictures."""
    return json.dumps(request.settings, sort_keys=True, default=str)


def _scored(job: Job, requests: Sequence[EvalRequest], result: Result) -> list[Result]:
    prepared = PreparedData.open(job.choice.spec, job.folders)
    data = prepared.subset(job.subset)
    vocabulary, text, facts = describe(job, prepared)
    _check(facts, result, job.run)
    stems = {replace(job, request=request).stem: request for request in requests}
    folder = job.run.path / RESULTS
    journal = folder / f"{next(iter(stems))}.explain.unfinished.jsonl"
    with cached_masks(job.method, data, job.folders, job.reporter):
        found = evaluate(
            job.method,
            data,
            vocabulary,
            text,
            {stem: readout_of(request, vocabulary, job.method) for stem, request in stems.items()},
            facts,
            job.reporter,
            batch_size=job.method.config.windows_per_batch,
            limit=job.request.limit,
            force=True,  # the model was compared with chance when its result was made
            journal=journal,
            group=job.group,
        )
    job.group.on_main(lambda: _keep(found, folder, journal))
    for stem in found:
        job.reporter.say(f"wrote {folder / stem}.json")
    return list(found.values())


def _keep(found: Mapping[str, Result], folder: Path, journal: Path) -> None:
    for stem, one in found.items():
        one.save(folder / f"{stem}.json")
    remove_journal(journal)


def _check(facts: Facts, result: Result, run: Run) -> None:
    """Refuse a model or data that are no longer those of the result."""
    names = {"data": "pictures or labels", "weights": "weights", "vocabulary": "class names or templates"}
    for key, words in names.items():
        if facts.fingerprints.get(key) != result.fingerprints.get(key):
            raise DataError(
                f"{run.path}: the {words} are not those that this result was scored with, so it cannot be explained "
                "with new scores beside it.",
                f"Score it again: ovseg eval {shlex.quote(run.as_model)}",
            )
