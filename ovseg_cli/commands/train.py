"""`ovseg train METHOD`: a run folder with config, log, checkpoints and weights."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ovseg_cli.commands import options


def train(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            help="What to train; `ovseg list methods` shows all, toy-clip is the toy world's own CLIP.",
            autocompletion=options.complete_trainer,
        ),
    ],
    data: options.Data = None,
    unseen: options.Unseen = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="maft: whose masks it learns from; trained first where needed.")
    ] = None,
    proposals: options.Proposals = None,
    setting: Annotated[
        str | None,
        typer.Option(metavar="SETTING", help="zegclip, tagclip: inductive, transductive or supervised."),
    ] = None,
    trust_target: Annotated[
        str | None,
        typer.Option(metavar="TARGET", help="tagclip: what its token learns; seen-vs-rest or official-unseen."),
    ] = None,
    init: Annotated[
        str | None, typer.Option(metavar="RUN", help="zegclip, tagclip, transductive: the run to start from.")
    ] = None,
    clip: options.Clip = None,
    pretrained: options.Pretrained = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile translate the training step; --set compile=true.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished run that has the settings given.")
    ] = False,
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="With --resume: go on with this run folder.")] = None,
    gpus: options.Gpus = None,
    nodes: Annotated[int, typer.Option(min=1, metavar="N", help="Machines; type the same command on each.")] = 1,
    rdzv: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="With --nodes: one of them, where they meet.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; the same as --set seed=N.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Train N seeds, from --seed on, below one folder; score each; print mean and spread."
        ),
    ] = None,
    data_root: options.DataRoot = None,
    runs: options.Runs = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a method, on seen classes or without labels; it can be stopped at any step and continues where it was.

    [dim]ovseg train maft --data toy[/dim]
    [dim]ovseg train maft --host zegformer --set iterations=200 --seed 1[/dim]
    [dim]ovseg train toy-clip --seed 1 --resume[/dim]
    [dim]ovseg train freeseg --data toy --seeds 3[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core import registry
    from ovseg_cli.core.errors import UsageError, unknown_name
    from ovseg_cli.core.runtime import folders

    trained = [name for name, entry in registry.METHODS.items() if entry.trained != "nothing"]
    if method in registry.METHODS and method not in trained:
        raise UsageError(f"{method} is training-free: there is nothing to train.", f"Score it: ovseg eval {method}")
    if method not in (*trained, *registry.TRAINERS):
        raise unknown_name("method to train", method, [*trained, *registry.TRAINERS])
    settings = options.merged(options.read_config(config), options.parse_settings(set_))
    if seed is not None:
        settings["seed"] = seed
    if compile_:
        if method in registry.TRAINERS:
            raise UsageError(f"--compile: {method} is trained as it is.", "Leave it out.")
        settings["compile"] = True
    places = folders(data_root, runs)
    chosen: dict[str, Any] = {
        "data": data,
        "unseen": unseen,
        "host": host,
        "proposals": proposals,
        "setting": setting,
        "trust_target": trust_target,
        "init": init,
        "clip": clip,
        "pretrained": pretrained,
    }
    if seeds is not None:
        _train_seeds(method, chosen, settings, seeds, resume, run, gpus, nodes, places, dry_run, json)
        return
    train_one = _train_clip if method in registry.TRAINERS else _train_method
    if not dry_run and _is_launched(method, gpus, nodes, rdzv):
        return  # the processes that were started have trained and told all
    document = train_one(method, chosen, settings, resume, run, gpus, places, console.TerminalReporter(), dry_run)
    views.show_document(document, json, title=f"plan: train {method}" if dry_run else f"trained {method}")


def _train_seeds(
    method: str,
    chosen: dict[str, Any],
    settings: dict[str, Any],
    count: int,
    resume: bool,
    run: Path | None,
    gpus: int | None,
    nodes: int,
    places: Any,
    dry_run: bool,
    json: bool,
) -> None:
    from ovseg_cli.commands.seeds import train_seeds
    from ovseg_cli.core.errors import UsageError

    if nodes > 1:
        mend = f"On several machines train one seed at a time: --seed 0 --nodes {nodes}"
        raise UsageError(f"--seeds: several seeds are trained on one machine, not on {nodes}.", mend)
    _refuse_choices(method, chosen)
    train_seeds(method, chosen, settings, count, resume, run, gpus, places, dry_run, json)


def _refuse_choices(method: str, chosen: dict[str, Any]) -> None:
    """No option stands there without effect: a CLIP is trained on data of its own."""
    from ovseg_cli.core import registry
    from ovseg_cli.core.errors import UsageError

    given = [name for name, value in chosen.items() if value is not None]
    if given and method in registry.TRAINERS:
        option = given[0].replace("_", "-")
        raise UsageError(f"--{option}: {method} draws its own data and makes its own weights.", "Leave it out.")


def _is_launched(method: str, gpus: int | None, nodes: int, rdzv: str | None) -> bool:
    """Start a process for each GPU, where there are several; a CLIP's batch cannot be shared by processes."""
    from ovseg_cli.core import registry
    from ovseg_cli.core.training import processes

    if method in registry.TRAINERS:
        return False
    return processes.launch_if_needed(gpus, nodes, rdzv) is not None


def _train_clip(
    method: str,
    chosen: dict[str, Any],
    settings: dict[str, Any],
    resume: bool,
    run: Path | None,
    gpus: int | None,
    places: Any,
    reporter: Any,
    dry_run: bool,
) -> dict[str, Any]:
    from ovseg_cli.core.training import session

    _refuse_choices(method, chosen)
    request = session.TrainRequest(method, settings, resume, run, gpus)
    return session.plan(request, places) if dry_run else session.train(request, places, reporter)


def _train_method(
    method: str,
    chosen: dict[str, Any],
    settings: dict[str, Any],
    resume: bool,
    run: Path | None,
    gpus: int | None,
    places: Any,
    reporter: Any,
    dry_run: bool,
) -> dict[str, Any]:
    from ovseg_cli.core.training import method_session
    from ovseg_cli.core.training.request import MethodRequest

    request = MethodRequest(method, settings=settings, resume=resume, run=run, gpus=gpus, **chosen)
    if dry_run:
        return method_session.plan_document(request, places, reporter)
    return method_session.train_method(request, places, reporter)
