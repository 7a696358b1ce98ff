"""From what was typed (a model, a CLIP, settings) to a method ready to predict.

`choose_model` reads names and files only and needs no torch; `build_method` loads the weights.
Settings: the method's defaults < the data set's preset (the paper's recipe) < the run's < `--config` < `--set`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ovseg_cli.core import registry
from ovseg_cli.core.errors import DataError, UsageError, nearest, unknown_name
from ovseg_cli.core.reporter import Reporter, Silent
from ovseg_cli.core.runs import CONFIG, HOST, LIVE, WEIGHTS, Run, is_run_path, latest_run, open_run

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel, ValidationError

    from ovseg_cli.core.clip.model import ClipModel
    from ovseg_cli.core.data.specs import Spec
    from ovseg_cli.core.methods.base import Method, MethodConfig
    from ovseg_cli.core.methods.masked import MaskMethod, MaskSource
    from ovseg_cli.core.methods.trained import TrainedMethod
    from ovseg_cli.core.methods.training_config import TrainingConfig

DEFAULT_CLIP = ("ViT-B-16", "openai")
OWN_CLIP = "."
"""Name of the CLIP in the config of a run that brings its own, as converted checkpoints do."""
HOST_CLIP = ".."
"""The same in the config of a host whose CLIP is that of the run it lies in."""
JOINT = "host_settings"
"""Table in the config of a run: settings that its host has where it makes the run's masks, not where it runs alone."""
FIRST_STEP = "inductive"
"""Folder, inside a run, of the run of the same method whose weights it starts from; also the kind of such a run, and
the table of that step's settings in the config of the run around it."""


@dataclass(frozen=True)
class ModelChoice:
    """What will be built.

    Attributes:
        method: Name in `registry.METHODS`.
        clip: open_clip architecture, `toy-clip`, or a path.
        pretrained: Tag or file of an open_clip architecture; None for a self-describing CLIP.
        settings: Settings that differ from the method's defaults, those of its training among them.
        run: The run folder that MODEL named, or None for a training-free method.
        optional: Names of settings that are dropped where the method has none of that name: a data set's preset sizes
            pictures for all methods alike, and not every method slides a window.
    """

    method: str
    clip: str
    pretrained: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None
    optional: tuple[str, ...] = ()


def choose_model(
    model: str,
    runs: Path,
    spec: "Spec | None" = None,
    clip: str | None = None,
    pretrained: str | None = None,
    settings: Mapping[str, Any] | None = None,
    recipe: bool = True,
    to_train: bool = False,
) -> ModelChoice:
    """Resolve MODEL, `--clip` and settings by the precedence of the contract.

    Args:
        model: `latest`, a method's name, or the path of a run folder (it has a slash).
        runs: Folder of all runs, for `latest`.
        spec: Data set whose preset applies, or None.
        clip: What `--clip` said, or None.
        pretrained: What `--pretrained` said, or None.
        settings: What `--config` and `--set` said.
        recipe: Whether the data set's settings for its own pictures apply; not to pictures from elsewhere.
        to_train: A bare name may be that of a method which has to be trained first.

    Raises:
        UsageError: The method or run does not exist, or `--pretrained` stands without an architecture.
    """
    run = None
    if model == "latest":
        run = latest_run(runs)
    elif is_run_path(model):
        run = open_run(Path(model))
        if run.kind not in ("segmentation", HOST, FIRST_STEP):
            raise UsageError(
                f"{model}: this is a {run.kind} run, it holds no segmentation method.",
                f"Use it as a CLIP: `ovseg eval maskclip --clip {model}`.",
            )
    name = run.method if run else model
    _check_name(name, model, known_run=run is not None or to_train)
    chosen_clip, chosen_weights = _choose_clip(run, spec, clip, pretrained)
    shared, own = preset_settings(spec, name, run, settings or {}) if recipe else ({}, {})
    merged: dict[str, Any] = {}
    for layer in (shared, own, run.config.get("method", {}) if run else {}, settings or {}):
        merged = merge(merged, layer)
    optional = tuple(key for key in shared if key not in own and key not in (settings or {}))
    return ModelChoice(name, chosen_clip, chosen_weights, merged, run, optional)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over others; tables are merged key by key."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def _check_name(name: str, typed: str, known_run: bool) -> None:
    """A name that is no method, or a method without the run that holds its weights."""
    try:
        entry = registry.lookup(registry.METHODS, "method", name)
    except UsageError as error:
        if name in registry.TRAINERS:
            raise UsageError(f"'{name}' is a CLIP, not a segmentation method.", f"Use --clip {name}.") from error
        if Path(typed).is_dir():
            raise UsageError(f"'{typed}' is not a method.", f"For the run folder type ./{typed}") from error
        raise
    if entry.trained != "nothing" and not known_run:
        raise UsageError(
            f"'{name}' has to be trained before it can be used.",
            f"Train it (ovseg train {name}), or name the folder of a run (`ovseg list runs` shows all).",
        )


def _choose_clip(
    run: Run | None, spec: "Spec | None", clip: str | None, pretrained: str | None
) -> tuple[str, str | None]:
    """`--clip`, else the run's, else the spec's preset, else ViT-B-16 / openai."""
    if clip is not None:
        default = DEFAULT_CLIP[1] if clip == DEFAULT_CLIP[0] else None
        return clip, pretrained or default
    if run is not None and "clip" in run.config:
        table = run.config["clip"]
        own = {OWN_CLIP: run.path, HOST_CLIP: run.path.parent}
        folder = own.get(table["name"])
        name = str(table["name"]) if folder is None else _typed_path(folder)
        return name, pretrained or table.get("pretrained")
    if spec is not None and spec.preset.clip and pretrained is None:
        return spec.preset.clip, None
    return DEFAULT_CLIP[0], pretrained or DEFAULT_CLIP[1]


def _typed_path(folder: Path) -> str:
    """Write a folder so that it is no bare word, which would mean an architecture."""
    return str(folder) if len(folder.parts) > 1 else f"./{folder}"


def preset_settings(
    spec: "Spec | None", method: str, run: Run | None, typed: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a data set's settings for all methods and for this one; a run already holds those it was made with.

    Args:
        spec: The data set; None has none.
        method: Name of the method.
        run: The run that is the model; None for a method, trained or yet to be trained.
        typed: What the user set, which may choose among a method's settings there.
    """
    if spec is None or run is not None:
        return {}, {}
    own = spec.preset.recipe(method)
    if by_setting := spec.preset.by_setting(method):
        own = merge(own, by_setting.get(_setting_of(spec.name, method, by_setting, {**own, **typed}), {}))
    return {k: v for k, v in spec.preset.shared.items() if k not in own}, own


def _setting_of(data: str, method: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the setting that a method is trained in; a recipe for one that it does not have is refused."""
    field = registry.METHODS[method].load().Training.model_fields.get("setting")
    choices = [] if field is None else list(get_args(field.annotation))
    for name in known:
        if name not in choices:
            raise unknown_name("setting", name, choices, f"{data}: preset.methods.{method}.by_setting: ")
    return str(given.get("setting", field.default if field else ""))


def with_implied(method_class: "type[Method]", choice: ModelChoice) -> ModelChoice:
    """Lay the settings of a choice over those that follow from them, for a training that begins."""
    return replace(choice, settings=merge(implied_settings(method_class, choice.settings), choice.settings))


def implied_settings(method_class: "type[Method]", settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults that follow from the value of other settings; what is left open has its own default."""
    models = [method_class.Config, *([training] if (training := getattr(method_class, "Training", None)) else [])]
    defaults = {
        name: field.get_default(call_default_factory=True)
        for model in models
        for name, field in model.model_fields.items()
    }
    return getattr(method_class, "implied", lambda _: {})({**defaults, **settings})


def check_settings(config_class: "type[BaseModel]", settings: Mapping[str, Any], where: str) -> Any:
    """Build a settings model; what is wrong is said with the key, the value and the nearest known key.

    Args:
        config_class: The pydantic model.
        settings: Key and value pairs.
        where: What the message opens with, for instance "maskclip".

    Raises:
        UsageError: An unknown key or a value that does not fit.
    """
    from pydantic import ValidationError

    try:
        return config_class(**settings)
    except ValidationError as error:
        raise _settings_error(error, config_class, where) from error


def split_settings(
    method_class: "type[Method]", settings: Mapping[str, Any], where: str, optional: Sequence[str] = ()
) -> "tuple[MethodConfig, TrainingConfig | None]":
    """Build the method's settings and those of its training from one table; no name stands for both.

    Args:
        method_class: The method.
        settings: Key and value pairs of both.
        where: What a message opens with.
        optional: Keys that are dropped where neither has them.

    Returns:
        The method's settings, and those of its training (None where it has none).

    Raises:
        UsageError: An unknown key or a value that does not fit.
    """
    training_class = getattr(method_class, "Training", None)
    of_training = training_class.model_fields if training_class else {}
    own = {key: value for key, value in settings.items() if key not in of_training}
    own = {key: value for key, value in own.items() if key in method_class.Config.model_fields or key not in optional}
    check_names(method_class, own, where)
    config = check_settings(method_class.Config, own, where)
    if training_class is None:
        return config, None
    return config, check_settings(training_class, {k: v for k, v in settings.items() if k in of_training}, where)


def check_names(method_class: "type[Method]", settings: Mapping[str, Any], where: str) -> None:
    """Refuse a setting that neither a method nor its training has.

    Raises:
        UsageError: With the nearest known name.
    """
    training_class = getattr(method_class, "Training", None)
    known = [*method_class.Config.model_fields, *(training_class.model_fields if training_class else {})]
    for key in settings:
        if key not in known:
            raise _unknown_setting(key, known, where)


def _unknown_setting(key: str, known: Sequence[str], where: str) -> UsageError:
    hit = nearest(key, known)
    return UsageError(
        f"{where}: unknown setting '{key}'.", f"Did you mean '{hit}'?" if hit else f"Known: {', '.join(known)}."
    )


def _settings_error(error: "ValidationError", config_class: "type[BaseModel]", where: str) -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown_setting(key, _names_beside(first["loc"], config_class), where)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and not isinstance(first["input"], str | int | float | bool):
        return UsageError(f"{where}: {f'{key}: ' if key else ''}{message}.")  # settings that do not fit each other
    what = f"{where}: setting {key} = {first['input']!r}: {message[0].lower()}{message[1:]}."
    choices = re.findall("'([^']*)'", str(first.get("ctx", {}).get("expected", "")))
    hit = nearest(str(first["input"]), choices) if first["type"] == "literal_error" else None
    return UsageError(what, f"Did you mean '{hit}'?" if hit else None)


def _names_beside(place: Sequence[str | int], config_class: "type[BaseModel]") -> list[str]:
    """Return the full names of the settings of the table that a place lies in."""
    for part in place[:-1]:
        inner = config_class.model_fields[str(part)].annotation if part in config_class.model_fields else None
        if not hasattr(inner, "model_fields"):
            break
        config_class = inner  # type: ignore[assignment]
    return [".".join([*map(str, place[:-1]), name]) for name in config_class.model_fields]


def build_method(
    choice: ModelChoice,
    device: "torch.device | str" = "cpu",
    reporter: Reporter | None = None,
    clip: "ClipModel | None" = None,
) -> "Method":
    """Load the CLIP and the trained weights and make the method, in evaluation mode on one device.

    Args:
        choice: What to build.
        device: Where to put it.
        reporter: Told what is loaded.
        clip: The CLIP of `choice` where it is loaded already (a host shares that of MAFT); None loads it.

    Raises:
        UsageError: A setting does not fit the method.
        MachineError: Weights are missing.
        DataError: The run's weights are broken or do not fit its settings.
    """
    from ovseg_cli.core.clip.model import load_clip

    reporter = reporter or Silent()
    method_class = registry.lookup(registry.METHODS, "method", choice.method).load()
    if choice.run is not None:
        _refuse_training_settings(method_class, choice)
    config, _ = split_settings(method_class, choice.settings, choice.method, choice.optional)
    clip = clip or load_clip(choice.clip, choice.pretrained, device=device, reporter=reporter)
    method: Any = method_class(clip, config)
    if choice.run is not None and registry.METHODS[choice.method].trained != "nothing":
        _load_weights(method, choice)
    if set_source := getattr(method, "set_source", None):
        set_source(open_source(config, choice, clip, device, reporter))
    return method.to(device).eval()


def _refuse_training_settings(method_class: "type[Method]", choice: ModelChoice) -> None:
    """A run is trained: what would have changed its training does nothing any more."""
    training_class = getattr(method_class, "Training", None)
    for key in choice.settings:
        if training_class and key in training_class.model_fields:
            what = f"{choice.method}: '{key}' is a setting of its training, and this run is trained."
            raise UsageError(what, f"Train another: ovseg train {choice.method} --set {key}=…")


def _load_weights(method: "TrainedMethod", choice: ModelChoice) -> None:
    """Give a trained method the weights of its run, and the names that it was trained on."""
    assert choice.run is not None, "weights come from a run"
    run = choice.run
    try:
        method.load_trained_state(read_weights(run), str(run.path / WEIGHTS))
    except DataError as error:
        own = run.config.get("method", {})
        changed = sorted(key for key, value in choice.settings.items() if key in own and own[key] != value)
        if not changed:
            raise
        what = f"{run.path}: its weights do not fit what was set here ({error.message.rstrip('.')})."
        raise UsageError(what, f"One of these changes the network: {', '.join(changed)}. Leave it out.") from error
    names = run.config.get("vocabulary", {}).get("training_names")
    method.training_names = None if names is None else tuple(names)


def read_weights(run: Run) -> "dict[str, torch.Tensor]":
    """Read what the `trained_state` of a run's method was.

    Raises:
        DataError: The weights are missing or broken.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = run.path / WEIGHTS
    if not path.is_file():
        going_on = f"Go on with its training: ovseg train {run.method} --resume --run {run.path}"
        mend = "Bring the file back, or train or convert it anew." if run.is_finished else going_on
        lack = "has lost its weights" if run.is_finished else "has no weights yet"
        raise DataError(f"{run.path}: this run {lack}, {WEIGHTS} is missing.", mend)
    try:
        return dict(load_file(path))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({error}).", "Train or convert it anew.") from error


def open_source(
    config: Any, choice: ModelChoice, clip: "ClipModel", device: "torch.device | str", reporter: Reporter
) -> "MaskSource":
    """Open what the setting `proposals` names: the run's host, another run, a cache, or a generator.

    Raises:
        UsageError: There is no such generator, or the run makes no masks.
        DataError: The run or cache is broken.
    """
    from ovseg_cli.core.methods.sources import GeneratorSource, StoreSource

    name = config.proposals
    if name in (HOST, LIVE):
        if choice.run is None:
            raise UsageError(
                f"proposals = {name}: only a run of maft has a host of its own.", "Name a run or a generator."
            )
        joint = choice.run.config.get(JOINT, {})
        return _open_host(choice.run.path / HOST, choice, clip, device, reporter, joint)
    if is_run_path(name):
        path = Path(name)
        is_run = (path / CONFIG).is_file()
        return _open_host(path, choice, clip, device, reporter) if is_run else StoreSource.open(path)
    return GeneratorSource.make(name, config.proposal_settings, device, reporter)


def _open_host(
    path: Path,
    choice: ModelChoice,
    clip: "ClipModel",
    device: "torch.device | str",
    reporter: Reporter,
    settings: Mapping[str, Any] | None = None,
) -> "MaskMethod":
    found = choose_model(str(path), path.parent, settings=settings)
    same = (found.clip, found.pretrained) == (choice.clip, choice.pretrained)
    host: Any = build_method(found, device, reporter, clip if same else None)
    if not hasattr(host, "propose"):
        raise UsageError(
            f"{path}: a run of {found.method} makes no masks.", "Name a run of freeseg, zegformer or zsseg."
        )
    return host
