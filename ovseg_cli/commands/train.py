"""`ovseg train METHOD`: a run folder with config, log and checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from ovseg_cli.commands import options


def train(
    method: Annotated[
        str,
        typer.Argument(metavar="METHOD", help="What to train: toy-clip.", autocompletion=options.complete_trainer),
    ],
    config: options.ConfigFile = None,
    set_: options.Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished run that has the settings given.")
    ] = False,
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="With --resume: go on with this run folder.")] = None,
    gpus: options.Gpus = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; the same as --set seed=N.")] = None,
    runs: options.Runs = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a model; it can be stopped at any step and continues where it was.

    [dim]ovseg train toy-clip --seed 1[/dim]
    [dim]ovseg train toy-clip --seed 1 --resume[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core import registry
    from ovseg_cli.core.errors import UsageError
    from ovseg_cli.core.runtime import folders

    if method in registry.METHODS and method not in registry.TRAINERS:
        raise UsageError(f"{method} is training-free: there is nothing to train.", f"Score it: ovseg eval {method}")
    registry.lookup(registry.TRAINERS, "trainer", method)
    settings = {**options.read_config(config), **options.parse_settings(set_)}
    if seed is not None:
        settings["seed"] = seed
    from ovseg_cli.core.training import session

    places = folders(runs=runs)
    request = session.TrainRequest(method, settings, resume, run, gpus)
    if dry_run:
        views.show_document(session.plan(request, places), json, title=f"plan: train {method}")
        return
    outcome = session.train(request, places, console.TerminalReporter())
    views.show_document(outcome, json, title=f"trained {method}")
