"""From what was typed (a model, a CLIP, settings) to a method ready to predict.

`choose_model` reads names and files only and needs no torch; `build_method` loads the weights.
Settings: the method's defaults < the data set's preset (the paper's recipe) < the run's < `--config` < `--set`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core import registry
from ovseg_cli.core.errors import UsageError, nearest
from ovseg_cli.core.reporter import Reporter, Silent
from ovseg_cli.core.runs import Run, is_run_path, latest_run, open_run

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel, ValidationError

    from ovseg_cli.core.data.specs import Spec
    from ovseg_cli.core.methods.base import Method

DEFAULT_CLIP = ("ViT-B-16", "openai")


@dataclass(frozen=True)
class ModelChoice:
    """What will be built.

    Attributes:
        method: Name in `registry.METHODS`.
        clip: open_clip architecture, `toy-clip`, or a path.
        pretrained: Tag or file of an open_clip architecture; None for a self-describing CLIP.
        settings: Settings that differ from the method's defaults.
        run: The run folder that MODEL named, or None for a training-free method.
    """

    method: str
    clip: str
    pretrained: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None


def choose_model(
    model: str,
    runs: Path,
    spec: "Spec | None" = None,
    clip: str | None = None,
    pretrained: str | None = None,
    settings: Mapping[str, Any] | None = None,
    recipe: bool = True,
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

    Raises:
        UsageError: The method or run does not exist, or `--pretrained` stands without an architecture.
    """
    run = None
    if model == "latest":
        run = latest_run(runs)
    elif is_run_path(model):
        run = open_run(Path(model))
        if run.kind != "segmentation":
            raise UsageError(
                f"{model}: this is a {run.kind} run, it holds no segmentation method.",
                f"Use it as a CLIP: `ovseg eval maskclip --clip {model}`.",
            )
    name = run.method if run else model
    try:
        registry.lookup(registry.METHODS, "method", name)
    except UsageError as error:
        if name in registry.TRAINERS:
            raise UsageError(f"'{name}' is a CLIP, not a segmentation method.", f"Use --clip {name}.") from error
        if Path(model).is_dir():
            raise UsageError(f"'{model}' is not a method.", f"For the run folder type ./{model}") from error
        raise
    chosen_clip, chosen_weights = _choose_clip(run, spec, clip, pretrained)
    preset = _preset_settings(spec, name, run) if recipe else {}
    merged = {**preset, **(run.config.get("method", {}) if run else {}), **(settings or {})}
    return ModelChoice(name, chosen_clip, chosen_weights, merged, run)


def _choose_clip(
    run: Run | None, spec: "Spec | None", clip: str | None, pretrained: str | None
) -> tuple[str, str | None]:
    """`--clip`, else the run's, else the spec's preset, else ViT-B-16 / openai."""
    if clip is not None:
        default = DEFAULT_CLIP[1] if clip == DEFAULT_CLIP[0] else None
        return clip, pretrained or default
    if run is not None and "clip" in run.config:
        table = run.config["clip"]
        return str(table["name"]), pretrained or table.get("pretrained")
    if spec is not None and spec.preset.clip and pretrained is None:
        return spec.preset.clip, None
    return DEFAULT_CLIP[0], pretrained or DEFAULT_CLIP[1]


def _preset_settings(spec: "Spec | None", method: str, run: Run | None) -> dict[str, Any]:
    """The data set's recipe for a method; a run already holds the one it was made with."""
    if spec is None or run is not None:
        return {}
    return spec.preset.settings(method)


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


def _settings_error(error: "ValidationError", config_class: "type[BaseModel]", where: str) -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        hit = nearest(key, config_class.model_fields)
        hint = f"Did you mean '{hit}'?" if hit else f"Known: {', '.join(config_class.model_fields)}."
        return UsageError(f"{where}: unknown setting '{key}'.", hint)
    return UsageError(f"{where}: setting {key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}.")


def build_method(
    choice: ModelChoice, device: "torch.device | str" = "cpu", reporter: Reporter | None = None
) -> "Method":
    """Load the CLIP and make the method, in evaluation mode on one device.

    Raises:
        UsageError: A setting does not fit the method.
        MachineError: Weights are missing.
    """
    from ovseg_cli.core.clip.model import load_clip

    reporter = reporter or Silent()
    method_class = registry.lookup(registry.METHODS, "method", choice.method).load()
    config = check_settings(method_class.Config, choice.settings, choice.method)
    clip = load_clip(choice.clip, choice.pretrained, device=device, reporter=reporter)
    return method_class(clip, config).to(device).eval()
