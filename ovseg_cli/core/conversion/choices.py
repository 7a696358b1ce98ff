"""Where does each value of a converted model come from? Shapes of the file, `--config`, or the official defaults.

What a shape tells is never overruled: a setting that contradicts it is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.build import check_settings, merge

FILE, ASKED = "the checkpoint", "--config / --set"


@dataclass(frozen=True)
class Choice:
    """One value and its source.

    Attributes:
        setting: Name, with dots for tables.
        value: As it is written into the run.
        source: Where it comes from.
    """

    setting: str
    value: Any
    source: str


def take_table(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """Remove a table from settings and return it; empty where there is none.

    Raises:
        UsageError: It is a single value.
    """
    table = settings.pop(name, {})
    if not isinstance(table, Mapping):
        raise UsageError(f"--config: '{name}' must be a table, not {table!r}.", f"Write [{name}], or {name}.KEY = …")
    return dict(table)


def read_sizes(
    config_class: type[BaseModel],
    from_shapes: Mapping[str, Any],
    asked: Mapping[str, Any],
    untold: Sequence[str],
    where: str,
    prefix: str,
) -> tuple[dict[str, Any], list[Choice]]:
    """Put together the sizes of one network.

    Args:
        config_class: Its settings model.
        from_shapes: What the shapes of the file tell, complete; what they do not tell holds the published values.
        asked: What the user said.
        untold: Settings that no shape tells.
        where: The file, for messages.
        prefix: Name of the table in `--config`, for messages.

    Returns:
        Settings of the network, and the sources of those that no shape tells, and of one line for all others.

    Raises:
        UsageError: An unknown setting, or one that contradicts the shapes.
    """
    for key in asked:
        if key not in config_class.model_fields:
            check_settings(config_class, {key: asked[key]}, f"{where}: {prefix}")
    told = {key: value for key, value in from_shapes.items() if key not in untold}
    refuse_contradiction(told, asked, where, prefix)
    chosen = {**from_shapes, **asked}
    sources = [Choice(f"{prefix}.{key}", chosen[key], ASKED if key in asked else "published value") for key in untold]
    shown = ", ".join(f"{key} {_plain(value)}" for key, value in told.items())
    return chosen, [Choice(prefix, shown, f"shapes in {FILE}"), *sources]


def refuse_contradiction(told: Mapping[str, Any], asked: Mapping[str, Any], where: str, prefix: str = "") -> None:
    """Make sure that the user says nothing else than the file.

    Raises:
        UsageError: A setting contradicts the file.
    """
    for key, value in asked.items():
        if key in told and _plain(told[key]) != _plain(value):
            name = f"{prefix}.{key}" if prefix else key
            raise UsageError(
                f"{name} = {_plain(value)} contradicts {where}, which says {_plain(told[key])}.",
                "Leave it out, or pass the checkpoint that it belongs to.",
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def make_sizes(config_class: type[BaseModel], sizes: Mapping[str, Any], where: str, prefix: str) -> Any:
    """Build the settings of a network; what does not fit together is said with the table to mend it in.

    Raises:
        UsageError: Sizes do not fit together.
    """
    try:
        return config_class(**sizes)
    except ValidationError as error:
        text = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"{where}: {prefix}: {text}.", f"Say what no shape tells in the table [{prefix}] of --config."
        ) from error


def choose_settings(
    method: Any,
    told: Mapping[str, Any],
    official: Mapping[str, tuple[Any, str]],
    recipe: tuple[Mapping[str, Any], str],
    asked: Mapping[str, Any],
    where: str,
) -> tuple[Any, list[Choice]]:
    """Put together the settings of a method: file, then the user, then the data set's recipe, then the defaults.

    Args:
        method: The class.
        told: What the file tells.
        official: Values of the published code where the method's own defaults differ, with their source.
        recipe: Settings of the paper for a data set, and the data set's name.
        asked: What the user said.
        where: The file, for messages.

    Returns:
        The method's settings, and the source of each.

    Raises:
        UsageError: An unknown setting, a value that does not fit, or one that contradicts the file.
    """
    refuse_contradiction(told, asked, where)
    fields = method.Config.model_fields
    _refuse_sizes(method, asked)
    below = {key: value for key, (value, _) in official.items()}
    of_data = {key: value for key, value in recipe[0].items() if key in fields and key not in told}
    config = check_settings(method.Config, merge(merge(merge(below, of_data), asked), told), method.name)
    choices = []
    for key in fields:
        if key == "generator":
            continue
        source = method.sources.get(key)
        default = f"default; {source.kind}: {source.place}" if source else "default"
        known = {**{k: s for k, (_, s) in official.items()}, **dict.fromkeys(of_data, f"recipe for {recipe[1]}")}
        known = {**known, **dict.fromkeys(asked, ASKED), **dict.fromkeys(told, FILE)}
        choices.append(Choice(key, getattr(config, key), known.get(key, default)))
    return config, choices


def _refuse_sizes(method: Any, asked: Mapping[str, Any]) -> None:
    """Say where a setting of the mask generator belongs that stands among those of the method.

    Raises:
        UsageError: There is one.
    """
    fields = method.Config.model_fields
    sizes = fields["generator"].annotation.model_fields if "generator" in fields else {}
    if found := [key for key in asked if key in sizes and key not in fields]:
        raise UsageError(
            f"{method.name}: '{found[0]}' is a setting of the mask generator.", f"Write generator.{found[0]} = …"
        )
