"""What a training of a method will do, resolved and checked before anything is made.

A request names a method and data; the plan holds the class split, the CLIP, all settings and the run to go on with.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core import registry
from ovseg_cli.core.data.dataset import PreparedData, last_prepared
from ovseg_cli.core.data.find import find_data
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.methods.build import (
    FIRST_STEP,
    ModelChoice,
    check_names,
    choose_model,
    split_settings,
    with_implied,
)
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import HOST, LIVE, Run
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.training.masks_for_training import cache_of
from ovseg_cli.core.training.resuming import Wanted, check_unchanged, run_to_resume
from ovseg_cli.core.training.starts import check_init, with_first_step
from ovseg_cli.core.training.train_classes import TrainClasses

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice
    from ovseg_cli.core.methods.base import MethodConfig
    from ovseg_cli.core.methods.training_config import TrainingConfig

TRAIN_SUBSET = "train"
HOSTS = ("freeseg", "zegformer", "zsseg")
STEPS = (HOST, FIRST_STEP)
"""Folders of trainings that may come first; also the tables of their settings."""
OPTIONS = (HOST, "proposals", "setting", "trust_target", "init")
"""Settings that have options of their own on the command line."""


@dataclass(frozen=True)
class MethodRequest:
    """Options of `ovseg train METHOD`, as typed.

    Attributes:
        method: Name in `registry.METHODS`.
        data: `NAME[:CLASS_SPLIT]`; None takes the data set prepared last, on resume the run's.
        unseen: A class split of the user's own.
        clip, pretrained: As in `ovseg eval`.
        host: For MAFT: which host makes the masks; None leaves the method's default.
        proposals: A generator, a cache or a run that makes the masks; for MAFT instead of the host.
        settings: What `--config` and `--set` said, the method's and its training's; "host.KEY" is for the host step,
            "inductive.KEY" for the step whose weights the training starts from.
        resume: Go on with a run.
        run: Which one; None: the newest unfinished one of this method that has the settings given.
        gpus: What `--gpus` said.
        folder: Where a new run lies; None: `METHOD-DATA-TIME` below the folder of all runs.
        setting, trust_target, init: Settings of a training that have options of their own.
    """

    method: str
    data: str | None = None
    unseen: str | None = None
    clip: str | None = None
    pretrained: str | None = None
    host: str | None = None
    proposals: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    resume: bool = False
    run: Path | None = None
    gpus: int | None = None
    folder: Path | None = None
    setting: str | None = None
    trust_target: str | None = None
    init: str | None = None


@dataclass(frozen=True)
class MethodPlan:
    """A request whose names all exist.

    Attributes:
        request: What was asked.
        data: Data set and class split.
        model: Method, CLIP and settings.
        config, training: The settings, checked.
        steps: Settings of trainings that come first, by their folder in the run.
        run: The run to go on with, or None.
        cache: The cache of masks that `--proposals` names, or None.
    """

    request: MethodRequest
    data: "DataChoice"
    model: ModelChoice
    config: "MethodConfig"
    training: "TrainingConfig"
    steps: dict[str, dict[str, Any]]
    run: Run | None = None
    cache: ProposalStore | None = None

    @property
    def data_typed(self) -> tuple[str, str | None]:
        """What `--data` and `--unseen` were: a class split of the user's own is no name that could be looked up."""
        unseen = self.run.data[1] if self.run else self.request.unseen
        return (self.data.spec.name, unseen) if unseen else (self.data.label, None)

    @property
    def proposals(self) -> str | None:
        """Where masks come from, a setting of the method or of its training; None where there is none."""
        return _either(self, "proposals")

    @property
    def proposal_settings(self) -> dict[str, Any]:
        """Settings of the generator that makes the masks."""
        return dict(_either(self, "proposal_settings") or {})

    @property
    def needs_host(self) -> bool:
        """Whether masks come from a host run of this run's own."""
        return hasattr(self.config, HOST) and self.proposals in (HOST, LIVE)

    @property
    def makes_clusters(self) -> bool:
        """Whether masks are clusters that are made anew in each step, without a host."""
        return self.proposals == LIVE and not hasattr(self.config, HOST)

    @property
    def comes_first(self) -> list[str]:
        """Folders, inside the run, of the trainings that come before its own."""
        return [*([HOST] if self.needs_host else []), *([FIRST_STEP] if FIRST_STEP in self.steps else [])]

    @property
    def init(self) -> str:
        """Run folder, named by the user, that the training starts from; empty where there is none."""
        return str(getattr(self.training, "init", ""))

    @property
    def classes(self) -> TrainClasses:
        """The training vocabulary, and whose labels are read."""
        view = registry.METHODS[self.model.method].load().label_view(self.training)
        return TrainClasses.of(self.data.spec, self.data.split, view)


def resolve_training(request: MethodRequest, folders: Folders, reporter: Reporter) -> MethodPlan:
    """Check every name of a request and look up what it leaves open, down to its host step and its masks.

    Raises:
        UsageError: An unknown method, data set, setting or run; an option that the method does not have.
        DataError: The data set is not prepared, has changed since the run began, or a cache of masks is missing.
    """
    entry = registry.lookup(registry.METHODS, "method", request.method)
    if entry.trained == "nothing":
        raise UsageError(
            f"{request.method} is training-free: there is nothing to train.", f"Score it: ovseg eval {request.method}"
        )
    if request.run is not None and not request.resume:
        raise UsageError(f"--run {request.run} names a run to go on with.", "Add --resume.")
    settings, steps = _typed_settings(request)
    check_names(entry.load(), settings, request.method)
    run = _run_of(request, settings, steps, folders) if request.resume else None
    data = _data_of(request, run, folders, reporter)
    if run is None:
        model = choose_model(
            request.method, folders.runs, data.spec, request.clip, request.pretrained, settings, to_train=True
        )
        model = with_implied(entry.load(), model)
    else:
        model = choose_model(run.as_model, folders.runs, settings=run.config.get("training", {}))
        steps = {step: dict(run.config[step]) for step in STEPS if step in run.config}
    config, training = split_settings(entry.load(), model.settings, request.method, model.optional)
    assert training is not None, "a trained method has settings of its training"
    if run is None:
        steps = with_first_step(entry.load(), training, settings, steps)
    plan = MethodPlan(request, data, model, config, training, steps, run)
    _require_labels(plan)
    _require_unseen(plan)
    if plan.init and run is None:
        check_init(plan.init, plan.model, plan.data_typed, names_of_classes(plan), folders.runs)
    steps = {**plan.steps, **{step: _settled(plan, step, folders, reporter) for step in plan.comes_first}}
    return replace(plan, steps=steps, cache=_named_cache(plan, folders, reporter))


def _either(plan: MethodPlan, key: str) -> Any:
    """Return a setting of the method or of its training; None where neither has it."""
    return getattr(plan.config, key, getattr(plan.training, key, None))


def _require_labels(plan: MethodPlan) -> None:
    """Refuse settings and data that do not agree in whether there are labels and class names."""
    spec, method, training = plan.data.spec, plan.model.method, plan.training
    if plan.classes.reads_labels:
        if spec.task != "semantic":
            raise UsageError(f"{spec.name} holds masks without classes: {method} cannot be trained on it.")
        return
    view = registry.METHODS[method].load().label_view(training)
    if view.names != "none" and not spec.classes:
        what = f"{spec.name} has no class names, which {method} would learn from with these settings."
        raise UsageError(what, "Leave out: --set class_names=data")
    if training.crop_max_share < 1:
        what = f"crop_max_share: {method} reads no labels, by which a crop could be judged."
        raise UsageError(what, "Leave it out.")
    if training.eval_every and not spec.classes:
        raise UsageError(f"eval_every: {spec.name} has no classes to score.", "Use eval_every=0.")


def _require_unseen(plan: MethodPlan) -> None:
    """Self-training labels pixels of classes that have no labels: there have to be some."""
    view = registry.METHODS[plan.model.method].load().label_view(plan.training)
    if (view.names, view.labelled) == ("all", "seen") and not plan.classes.has_unlabelled:
        what = (
            f"{plan.data.label} has no unseen class: there is nothing that {plan.model.method} could label by itself."
        )
        raise UsageError(what, 'Choose a class split: --data NAME:CLASS_SPLIT, or --unseen "a, b".')


def names_of_classes(plan: MethodPlan) -> tuple[str, ...]:
    """Names of the classes whose labels a training reads: what counts as seen follows from them."""
    from ovseg_cli.core.methods.texts import names_of

    vocabulary = plan.data.spec.vocabulary(plan.data.split)
    return names_of(vocabulary.select(plan.classes.labelled))


def inner_request(plan: MethodPlan, step: str) -> MethodRequest:
    """The training that comes first, in a folder inside the run: the same data, CLIP and seed."""
    data, unseen = plan.data_typed
    return MethodRequest(
        method=str(getattr(plan.config, HOST)) if step == HOST else plan.model.method,
        data=data,
        unseen=unseen,
        clip=plan.model.clip,
        pretrained=plan.model.pretrained,
        settings={"seed": plan.training.seed, **plan.steps.get(step, {})},
        gpus=plan.request.gpus,
    )


def _settled(plan: MethodPlan, step: str, folders: Folders, reporter: Reporter) -> dict[str, Any]:
    """Find what is wrong with a training that comes first before a run folder is made.

    Returns:
        Its settings: of a host those that were typed, of a first step all but a seed that was not.
    """
    typed = plan.steps.get(step, {})
    try:
        inner = resolve_training(inner_request(plan, step), folders, reporter)
    except UsageError as error:
        raise UsageError(f"{step} step: {error.message}", error.mend) from error
    if step == HOST:
        return typed
    every = inner.config.model_dump(mode="json") | inner.training.model_dump(mode="json")
    return {key: value for key, value in every.items() if key in typed or key != "seed"}


def _named_cache(plan: MethodPlan, folders: Folders, reporter: Reporter) -> ProposalStore | None:
    """Find what is wrong with the masks before a run folder is made."""
    if plan.needs_host or plan.proposals is None:
        return None
    if plan.makes_clusters:
        from ovseg_cli.core.training.live_clusters import cluster_settings

        cluster_settings(plan.proposal_settings)
        return None
    if typed := plan.steps.get(HOST):
        what = f"host.{min(typed)}: with proposals = {plan.proposals} there is no host step."
        raise UsageError(what, "Leave it out, or --proposals.")
    label, unseen = plan.data_typed
    settings = plan.proposal_settings
    return cache_of(plan.proposals, settings, label, unseen, plan.data, TRAIN_SUBSET, folders, reporter)


def _typed_settings(request: MethodRequest) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Part the settings of the method from those of steps that come first, and add what has an option of its own."""
    own = dict(request.settings)
    steps = {step: own.pop(step) for step in STEPS if isinstance(own.get(step), dict)}
    method_class = registry.METHODS[request.method].load()
    fields = [*method_class.Config.model_fields, *method_class.Training.model_fields]
    for option in OPTIONS:
        if (value := getattr(request, option)) is None:
            continue
        if option not in fields:
            name = option.replace("_", "-")
            raise UsageError(f"--{name}: {request.method} has no such option.", f"See: ovseg show {request.method}")
        own[option] = value
    if request.host is not None and own.get("proposals", HOST) not in (HOST, LIVE):
        what = f"--host {request.host}: masks come from {own['proposals']}, no host is needed."
        raise UsageError(what, "Leave out --host, or --proposals.")
    if own.get(HOST) is not None and "proposals" not in own:
        own["proposals"] = HOST
    if (of_host := steps.get(HOST)) and HOST not in fields:
        raise UsageError(f"host.{min(of_host)}: {request.method} has no host.", f"See: ovseg show {request.method}")
    return own, steps


def _run_of(
    request: MethodRequest, settings: dict[str, Any], steps: dict[str, dict[str, Any]], folders: Folders
) -> Run:
    """Find the run that `--resume` means."""
    return run_to_resume(_wanted(request, settings, steps, folders), folders.runs, request.run)


def wanted_run(request: MethodRequest, folders: Folders) -> Wanted:
    """Whatever was typed beside `--resume`: it must be true of the run that is gone on with.

    Raises:
        UsageError: An unknown setting or data set; an option that the method does not have.
    """
    settings, steps = _typed_settings(request)
    check_names(registry.METHODS[request.method].load(), settings, request.method)
    return _wanted(request, settings, steps, folders)


def _wanted(
    request: MethodRequest, settings: dict[str, Any], steps: dict[str, dict[str, Any]], folders: Folders
) -> Wanted:
    tables = {("clip", "name"): request.clip, ("clip", "pretrained"): request.pretrained}
    if request.data is not None:
        choice = find_data(request.data, request.unseen, folders)
        tables |= {("run", "data"): choice.label}
    tables |= {("vocabulary", "unseen"): request.unseen}
    given = {place: value for place, value in tables.items() if value is not None}
    return Wanted(request.method, settings, steps, given)


def _data_of(request: MethodRequest, run: Run | None, folders: Folders, reporter: Reporter) -> "DataChoice":
    if run is not None:
        label, unseen = run.data
        choice = find_data(label, unseen, folders)
    elif request.data is not None:
        choice = find_data(request.data, request.unseen, folders)
    else:
        choice = find_data(_last_prepared(request, folders, reporter), request.unseen, folders)
    prepared = PreparedData.open(choice.spec, folders)
    if TRAIN_SUBSET not in prepared.subsets:
        raise DataError(f"{prepared.root}: there is no subset '{TRAIN_SUBSET}' to train on.", prepared.mend)
    if run is not None:
        check_unchanged(run, prepared, TRAIN_SUBSET)
    return choice


def _last_prepared(request: MethodRequest, folders: Folders, reporter: Reporter) -> str:
    last = last_prepared(folders)
    if last is None:
        own = registry.METHODS[request.method].data or "toy"
        raise DataError(
            f"no data set is prepared in {folders.data}/, and --data names none; the paper of {request.method} "
            f"trains on {own}.",
            f"Start with: ovseg prepare {own}   or, without a download: ovseg prepare toy",
        )
    reporter.say(f"--data not given: taking the data set prepared last, {last}")
    return last
