"""Every option that more than one command has, once. Imports nothing heavy: completion must be quick."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

SplitName = Literal["all", "seen", "unseen"]
AbsentRule = Literal["union", "present"]


def _remember_debug(value: bool) -> bool:
    if value:
        from ovseg_cli.commands import console

        console.debug = True
    return value


def complete_data(incomplete: str) -> list[str]:
    """Offer data set names, the user's own ones too, and, after a colon, their class splits."""
    from ovseg_cli.core import runtime
    from ovseg_cli.core.data import find, specs
    from ovseg_cli.core.errors import OvsegError

    places = runtime.folders()
    name, colon, _ = incomplete.partition(":")
    if not colon:
        return [known for known in (*specs.spec_names(), *find.own_names(places)) if known.startswith(incomplete)]
    try:
        choice = find.find_data(f"{name}:{specs.NO_SPLIT}", None, places)
    except OvsegError:  # nothing to offer for a name that does not exist
        return []
    return [f"{name}:{split.id}" for split in choice.spec.class_splits]


def complete_model(incomplete: str) -> list[str]:
    """Offer methods, `latest`, and run folders."""
    from ovseg_cli.core import registry, runtime

    words = ["latest", *registry.METHODS]
    words += [f"{p}" for p in sorted(runtime.folders().runs.glob("*")) if p.is_dir()]
    return [word for word in words if word.startswith(incomplete)]


def complete_trainer(incomplete: str) -> list[str]:
    """Offer what can be trained."""
    from ovseg_cli.core import registry

    trained = [name for name, entry in registry.METHODS.items() if entry.trained != "nothing"]
    return [name for name in (*trained, *registry.TRAINERS) if name.startswith(incomplete)]


def complete_proposals(incomplete: str) -> list[str]:
    """Offer generators of proposals."""
    from ovseg_cli.core import registry

    return [name for name in registry.PROPOSALS if name.startswith(incomplete)]


Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        metavar="NAME[:CLASS_SPLIT]",
        help="Data set, or the path of a spec of your own; `coco-stuff:156-15`.",
        autocompletion=complete_data,
    ),
]
DataMany = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "-d",
        metavar="NAME[:CLASS_SPLIT]",
        help="Data set; give it several times to score across data sets. Default: the run's own.",
        autocompletion=complete_data,
    ),
]
Unseen = Annotated[
    str | None, typer.Option(metavar='"a, b"', help="Make a class split of your own: these classes are unseen.")
]
Split = Annotated[SplitName, typer.Option(help="Which classes are reported.")]
Candidates = Annotated[SplitName, typer.Option(help="Which names compete in the arg-max.")]
Absent = Annotated[
    AbsentRule,
    typer.Option(help="Classes predicted but absent from the ground truth: count with IoU 0, or left out."),
]
Subset = Annotated[str | None, typer.Option(help="Which images; default: the data set's scoring subset.")]
Clip = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="CLIP: an open_clip architecture, `toy-clip`, or a file; default: the run's, else the spec's.",
    ),
]
Pretrained = Annotated[
    str | None, typer.Option(metavar="TAG|FILE", help="Weights of --clip: open_clip tag, or a local file.")
]
Proposals = Annotated[
    str | None,
    typer.Option(
        metavar="GENERATOR|CACHE|RUN",
        help="Where masks come from: a generator, a cache of `ovseg propose`, or the run of a host.",
        autocompletion=complete_proposals,
    ),
]
Gpus = Annotated[
    int | None, typer.Option(metavar="N", help="How many GPUs; 0 is the CPU. Default: all there are, else the CPU.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random generator.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings of the method, TOML.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting of the method; wins over --config.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(metavar="DIR", envvar="OVSEG_DATA", help="Where prepared data sets lie.", show_default="datasets"),
]
Runs = Annotated[
    Path | None, typer.Option(metavar="DIR", envvar="OVSEG_RUNS", help="Where runs lie.", show_default="runs")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout and nothing else.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, do nothing.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", callback=_remember_debug, hidden=False)]
Out = Annotated[Path | None, typer.Option(metavar="PATH", help="Where to write.")]


def parse_settings(items: list[str] | None) -> dict[str, Any]:
    """Parse `--set key=value` pairs; values are read as TOML, and as plain words where they are none.

    A key with dots stands for a setting inside a table: `generator.queries=40`, `host.iterations=300`.

    Raises:
        UsageError: An item has no `=`.
    """
    import tomllib

    from ovseg_cli.core.errors import UsageError

    settings: dict[str, Any] = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {item}: a setting is written key=value.", "For instance --set side=320")
        try:
            read = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            read = value
        *tables, name = (part.strip() for part in key.split("."))
        place = settings
        for table in tables:
            if not isinstance(place.setdefault(table, {}), dict):
                raise UsageError(f"--set {item}: '{table}' was set to a single value before.", "Set one or the other.")
            place = place[table]
        place[name] = read
    return settings


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay `--set` over `--config`; tables are merged key by key."""
    from ovseg_cli.core.methods.build import merge

    return merge(below, above)


def read_config(path: Path | None) -> dict[str, Any]:
    """Read a settings file (TOML); a run's config.toml serves too: its settings, those of its training among them.

    Raises:
        UsageError: The file is missing or no TOML.
    """
    import tomllib

    from ovseg_cli.core.errors import UsageError

    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"--config {path}: there is no such file.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read as TOML ({error}).") from error
    if "run" not in document:
        return dict(document)
    return {**document.get("method", {}), **document.get("training", {})}
