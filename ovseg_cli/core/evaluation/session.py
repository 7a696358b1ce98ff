"""What `ovseg eval` does once every name is resolved: build, encode, score, keep the result files."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ovseg_cli import __version__
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.evaluation.evaluate import describe_readout, evaluate
from ovseg_cli.core.evaluation.facts import facts_of, settings_of
from ovseg_cli.core.evaluation.journal import remove_journal
from ovseg_cli.core.evaluation.mask_cache import cached_masks
from ovseg_cli.core.evaluation.names import of_the_paper, readout_of, vocabulary_of
from ovseg_cli.core.evaluation.request import EvalPlan, EvalRequest, result_name
from ovseg_cli.core.evaluation.results import Facts, Result
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.build import ModelChoice, build_method
from ovseg_cli.core.methods.texts import method_text, training_doubt
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import Run, create_run, list_runs, typed_command
from ovseg_cli.core.runtime import Folders, Runtime, open_runtime
from ovseg_cli.core.training.group import Group
from ovseg_cli.core.training.processes import open_group
from ovseg_cli.core.types import TextFeatures, Vocabulary

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice
    from ovseg_cli.core.methods.base import Method

T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """One result and the file that holds it."""

    result: Result
    path: Path


@dataclass(frozen=True)
class Job:
    """One data set of a plan and the model that was built for it.

    Attributes:
        choice: Data set and class split.
        model: Method, CLIP and settings.
        subset: Subset of images.
        method: The method, on its device.
        run: Folder that the result goes to.
        request: What was asked.
        folders: Where data, runs and caches lie.
        runtime: Device and seed.
        reporter: Silent in all processes but the main one.
        group: The processes that work together.
    """

    choice: "DataChoice"
    model: ModelChoice
    subset: str
    method: "Method"
    run: Run
    request: EvalRequest
    folders: Folders
    runtime: Runtime
    reporter: Reporter
    group: Group

    @property
    def stem(self) -> str:
        """Stem of the result file."""
        return result_name(self.choice, self.subset, self.request, _changed(self.model, self.request))


def score(plan: EvalPlan, folders: Folders, reporter: Reporter) -> list[Scored]:
    """Score a model on every data set of a plan.

    A model that is no run yet gets a run folder; an interrupted evaluation of the same kind is continued in its own.

    Returns:
        One result a data set, saved as `results/DATA-SUBSET-PROTOCOL.json`.

    Raises:
        UsageError: A setting or template does not fit.
        DataError: Data broken since it was prepared, or scores below chance.
        MachineError: Weights, device or disk.
    """
    return for_each_data(plan, folders, reporter, lambda job: Scored(*_score_one(job)))


Preparation = Callable[[torch.device, Reporter], None]


def for_each_data(
    plan: EvalPlan,
    folders: Folders,
    reporter: Reporter,
    act: Callable[[Job], T],
    join: bool = False,
    before: Preparation | None = None,
) -> list[T]:
    """Build the model of each data set of a plan and do something with it, in every process that was started for it.

    Args:
        plan: The plan.
        folders: Where data, runs and caches lie.
        reporter: Receives progress and messages.
        act: What is done.
        join: A model that is no run yet may use the finished run of the very same model and data.
        before: What is done before a run is made, since it may fail.

    Returns:
        What `act` returned, by data set.
    """
    request = plan.request
    runtime = open_runtime(request.gpus, request.seed)
    with open_group(runtime.device) as group:
        return _for_each_data(plan, folders, group.quiet(reporter), runtime, group, act, join, before)


def _for_each_data(
    plan: EvalPlan,
    folders: Folders,
    reporter: Reporter,
    runtime: Runtime,
    group: Group,
    act: Callable[[Job], T],
    join: bool,
    before: Preparation | None,
) -> list[T]:
    for note in runtime.notes:
        reporter.say(note)
    if len(runtime.devices) > group.world_size:
        reporter.say(f"{len(runtime.devices)} GPUs asked for: evaluation runs on {group.world_size}")
    methods = _Methods(runtime, reporter)
    with group.main_first():
        first = methods.get(plan.models[0])
        if before:
            before(runtime.device, reporter)
    run = plan.models[0].run or group.on_main(lambda: _run_of(plan, first, folders, join))
    found = []
    for choice, model, subset in zip(plan.data, plan.models, plan.subsets, strict=True):
        with group.main_first():
            method = methods.get(model)
        job = Job(choice, model, subset, method, run, plan.request, folders, runtime, reporter, group)
        found.append(act(job))
    if plan.models[0].run is None:
        group.on_main(lambda: None if run.is_finished else run.finish())  # one asks the disk, or the answers differ
    return found


def find_scored(plan: EvalPlan, folders: Folders, reporter: Reporter) -> Scored | None:
    """Return a stored result of the very same evaluation of a plan's first data set, or None.

    The same: data, weights, vocabulary, settings, readout, number of pictures and version of ovseg.
    """
    request, choice, model = plan.request, plan.data[0], plan.models[0]
    method = build_method(model, open_runtime(request.gpus, request.seed).device, reporter)
    vocabulary = vocabulary_of(choice, request, type(method), model.run)
    wanted = {
        "data": PreparedData.open(choice.spec, folders).fingerprint,
        "weights": method.digest,
        "vocabulary": vocabulary.digest(),
    }
    readout = describe_readout(readout_of(request, vocabulary, method), vocabulary)
    protocol = {**readout, "method": settings_of(method), "limit": request.limit}
    for run in list_runs(folders.runs):
        path = run.path / "results" / f"{result_name(choice, plan.subsets[0], request, _changed(model, request))}.json"
        if run.method != model.method or not run.is_finished or not path.is_file():
            continue
        result = Result.load(path)
        same = all(result.fingerprints.get(key) == value for key, value in wanted.items())
        if same and all(result.protocol.get(k) == v for k, v in protocol.items()) and result.version == __version__:
            return Scored(result, path)
    return None


class _Methods:
    """Builds each method once: data sets with the same preset share it."""

    def __init__(self, runtime: Runtime, reporter: Reporter):
        self.runtime, self.reporter = runtime, reporter
        self.built: dict[str, Method] = {}

    def get(self, choice: ModelChoice) -> "Method":
        key = json.dumps([choice.method, choice.clip, choice.pretrained, choice.settings], sort_keys=True, default=str)
        if key not in self.built:
            self.built[key] = build_method(choice, self.runtime.device, self.reporter)
        return self.built[key]


def _score_one(job: Job) -> tuple[Result, Path]:
    prepared = PreparedData.open(job.choice.spec, job.folders)
    data = prepared.subset(job.subset)
    vocabulary, text, facts = describe(job, prepared)
    method, request, reporter, group = job.method, job.request, job.reporter, job.group
    path = job.run.path / "results" / f"{job.stem}.json"
    journal = path.with_suffix(".unfinished.jsonl")
    with cached_masks(method, data, job.folders, reporter):
        result = evaluate(
            method,
            data,
            vocabulary,
            text,
            {"main": readout_of(request, vocabulary, method)},
            facts,
            reporter,
            batch_size=method.config.windows_per_batch,
            limit=request.limit,
            force=request.force,
            journal=journal,
            group=group,
        )["main"]
    group.on_main(lambda: _keep(result, path, journal))
    return result, path


def describe(job: Job, prepared: PreparedData) -> tuple[Vocabulary, TextFeatures, Facts]:
    """Encode the names of a job, say what its user should know, and put down how its result will come about."""
    choice, method, reporter = job.choice, job.method, job.reporter
    vocabulary = vocabulary_of(choice, job.request, type(method), job.model.run)
    with job.group.main_first():
        text = method_text(method, vocabulary, job.folders.cache, reporter)
    if doubt := training_doubt(method, vocabulary):
        reporter.warn(f"{choice.label}: {doubt}")
    if said := of_the_paper(choice, job.request, method, vocabulary):
        reporter.say(f"{choice.label}: {said}")
    facts = facts_of(choice, job.subset, prepared, method, vocabulary, job.run, job.request, job.runtime)
    if remark := method.remark(text):
        reporter.say(f"{choice.label}: {remark}")
        facts = replace(facts, notes=(*facts.notes, remark))
    return vocabulary, text, facts


def _keep(result: Result, path: Path, journal: Path) -> None:
    result.save(path)
    remove_journal(journal)


def _run_of(plan: EvalPlan, method: "Method", folders: Folders, join: bool = False) -> Run:
    """The unfinished run of the very same evaluation, or, to join, a finished one of the same model, else a new one."""
    model, choice = plan.models[0], plan.data[0]
    tables: dict[str, Any] = {
        "clip": {"name": model.clip, "pretrained": model.pretrained, "digest": method.clip.digest},
        "method": method.config.model_dump(mode="json"),
    }
    if plan.request.unseen is not None:
        tables["vocabulary"] = {"unseen": plan.request.unseen}
    wanted = json.loads(json.dumps({"clip": {k: v for k, v in tables["clip"].items() if v is not None}}))
    for run in list_runs(folders.runs):
        same = run.kind == "segmentation" and run.method == model.method
        if same and run.config.get("clip") == wanted["clip"] and run.config.get("method") == tables["method"]:
            if not run.is_finished and run.config["run"]["command"] == typed_command():
                return run
            own = run.config["run"]["data"], run.config.get("vocabulary", {}).get("unseen")
            if join and run.is_finished and own == (choice.label, plan.request.unseen):
                return run
    return create_run(folders.runs, "segmentation", model.method, choice.label, tables, plan.request.seed)


def _changed(model: ModelChoice, request: EvalRequest) -> str:
    """Short digest of options that make this another protocol than the run's own; empty where there are none."""
    own: Mapping[str, Any] = {
        "templates": request.templates,
        "names": request.names,
        "settings": request.settings if model.run is not None else {},
        "clip": (request.clip, request.pretrained) if model.run is not None else (None, None),
    }
    if not any(value not in (None, {}, (None, None)) for value in own.values()):
        return ""
    return digest_of([json.dumps(own, sort_keys=True, default=str)])[:8]
