"""What a training of a method will do, resolved and checked before anything is made.

A request names a method and data; the plan holds the class split, the CLIP, all settings and the run to go on with.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core import registry
from ovseg_cli.core.data.dataset import PreparedData, last_prepared
from ovseg_cli.core.data.find import find_data
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.methods.build import ModelChoice, choose_model, split_settings
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import HOST, Run, list_runs, open_run
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice
    from ovseg_cli.core.methods.base import MethodConfig
    from ovseg_cli.core.methods.training_config import TrainingConfig

TRAIN_SUBSET = "train"
HOSTS = ("freeseg", "zegformer", "zsseg")


@dataclass(frozen=True)
class MethodRequest:
    """Options of `ovseg train METHOD`, as typed.

    Attributes:
        method: Name in `registry.METHODS`.
        data: `NAME[:CLASS_SPLIT]`; None takes the data set prepared last, on resume the run's.
        unseen: A class split of the user's own.
        clip, pretrained: As in `ovseg eval`.
        host: For MAFT: which host makes the masks; None leaves the method's default.
        proposals: For MAFT: a generator, a cache or a run that makes the masks instead.
        settings: What `--config` and `--set` said, the method's and its training's; "host.KEY" is for the host step.
        resume: Go on with a run.
        run: Which one; None: the newest unfinished one of this method that has the settings given.
        gpus: What `--gpus` said.
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


@dataclass(frozen=True)
class MethodPlan:
    """A request whose names all exist.

    Attributes:
        request: What was asked.
        data: Data set and class split.
        model: Method, CLIP and settings.
        config, training: The settings, checked.
        host_settings: Settings of a host step.
        run: The run to go on with, or None.
    """

    request: MethodRequest
    data: "DataChoice"
    model: ModelChoice
    config: "MethodConfig"
    training: "TrainingConfig"
    host_settings: dict[str, Any]
    run: Run | None = None

    @property
    def needs_host(self) -> bool:
        """Whether masks come from a host run of this run's own."""
        return getattr(self.config, "proposals", None) == HOST


def resolve_training(request: MethodRequest, folders: Folders, reporter: Reporter) -> MethodPlan:
    """Check every name of a request and look up what it leaves open.

    Raises:
        UsageError: An unknown method, data set, setting or run; an option that the method does not have.
        DataError: The data set is not prepared.
    """
    entry = registry.lookup(registry.METHODS, "method", request.method)
    if entry.trained == "nothing":
        raise UsageError(
            f"{request.method} is training-free: there is nothing to train.", f"Score it: ovseg eval {request.method}"
        )
    settings, host_settings = _typed_settings(request)
    run = _run_to_resume(request, settings, folders) if request.resume else None
    if request.run is not None and not request.resume:
        raise UsageError(f"--run {request.run} names a run to go on with.", "Add --resume.")
    data = _data_of(request, run, folders, reporter)
    if run is None:
        model = choose_model(
            request.method, folders.runs, data.spec, request.clip, request.pretrained, settings, to_train=True
        )
    else:
        model = choose_model(str(run.path), folders.runs, settings=run.config.get("training", {}))
        host_settings = dict(run.config.get(HOST, {}))
    config, training = split_settings(entry.load(), model.settings, request.method, model.optional)
    assert training is not None, "a trained method has settings of its training"
    return MethodPlan(request, data, model, config, training, host_settings, run)


def _typed_settings(request: MethodRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the settings of the method from those of its host step, and add what has an option of its own."""
    own = dict(request.settings)
    of_host = own.pop(HOST) if isinstance(own.get(HOST), dict) else {}
    fields = registry.METHODS[request.method].load().Config.model_fields
    for option in (HOST, "proposals"):
        if (value := getattr(request, option)) is None:
            continue
        if option not in fields:
            raise UsageError(f"--{option}: {request.method} has no such option.", f"See: ovseg show {request.method}")
        own[option] = value
    if own.get(HOST) is not None and "proposals" not in own:
        own["proposals"] = HOST
    if of_host and HOST not in fields:
        raise UsageError(f"host.{min(of_host)}: {request.method} has no host.", f"See: ovseg show {request.method}")
    return own, of_host


def _data_of(request: MethodRequest, run: Run | None, folders: Folders, reporter: Reporter) -> "DataChoice":
    if run is not None:
        label, unseen = run.data
        choice = find_data(label, unseen, folders)
    elif request.data is not None:
        choice = find_data(request.data, request.unseen, folders)
    else:
        choice = find_data(_last_prepared(request, folders, reporter), request.unseen, folders)
    if choice.spec.task != "semantic":
        raise UsageError(f"{choice.spec.name} holds masks without classes: {request.method} cannot be trained on it.")
    prepared = PreparedData.open(choice.spec, folders)
    if TRAIN_SUBSET not in prepared.subsets:
        raise DataError(f"{prepared.root}: there is no subset '{TRAIN_SUBSET}' to train on.", prepared.mend)
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


def _run_to_resume(request: MethodRequest, settings: dict[str, Any], folders: Folders) -> Run:
    if request.run is not None:
        run = open_run(request.run)
        if run.method != request.method:
            mend = f"Type: ovseg train {run.method} --resume --run {request.run}"
            raise UsageError(f"--run {request.run}: this is a run of {run.method}, not of {request.method}.", mend)
        if run.is_finished:
            raise UsageError(f"--run {request.run}: this run is finished, there is nothing to go on with.")
        if differs := [key for key, value in settings.items() if _setting(run, key) != value]:
            what = f"--run {request.run} has another {differs[0]} ({_setting(run, differs[0])})"
            raise UsageError(f"{what} than the one given.", "Leave the settings out, or begin a new run.")
        return run
    for run in list_runs(folders.runs):
        fits = run.method == request.method and run.kind == "segmentation" and "training" in run.config
        if fits and not run.is_finished and all(_setting(run, key) == value for key, value in settings.items()):
            return run
    having = " with these settings" if settings else ""
    raise UsageError(
        f"--resume: there is no unfinished run of {request.method}{having} in {folders.runs}/.",
        "Leave --resume out to begin one; `ovseg list runs` shows all.",
    )


def _setting(run: Run, key: str) -> Any:
    return run.config["method"].get(key, run.config.get("training", {}).get(key))
