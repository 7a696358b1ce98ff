"""`ovseg propose GENERATOR`: class-agnostic mask proposals into the cache; import and export of them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ovseg_cli.commands import options

Form = Literal["coco", "sa-1b"]


def propose(
    generator: Annotated[
        str,
        typer.Argument(
            metavar="GENERATOR",
            help="A generator (`ovseg list proposals`), or the run folder of a method that makes masks; with --import "
            "the name that the masks get.",
            autocompletion=options.complete_proposals,
        ),
    ],
    data: options.Data = None,
    subset: Annotated[str, typer.Option(help="Which pictures: train, val, …")] = "train",
    unseen: options.Unseen = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes; default: one a GPU, else one a core.")
    ] = None,
    gpus: options.Gpus = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N pictures.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Make all of them anew.")] = False,
    import_: Annotated[
        Path | None, typer.Option("--import", metavar="FILE|DIR", help="Read the masks from here instead.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Write the masks here too, once they are made.")
    ] = None,
    format_: Annotated[
        Form,
        typer.Option(
            "--format", help="Of --import and --export: a COCO result file, or a folder with a SA-1B file a picture."
        ),
    ] = "coco",
    allow_missing: Annotated[
        int, typer.Option(min=0, metavar="N", help="With --import: accept that N pictures have no masks in it.")
    ] = 0,
    data_root: options.DataRoot = None,
    runs: options.Runs = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make mask proposals of a subset once and keep them; what is there already is not made again.

    [dim]ovseg propose superpixels --data toy --subset val[/dim]
    [dim]ovseg propose ground-truth --data toy --subset train --set noise=0.5[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core.proposals import request as requests
    from ovseg_cli.core.runtime import folders

    places = folders(data_root, runs)
    reporter = console.TerminalReporter()
    settings = {**options.read_config(config), **options.parse_settings(set_)}
    asked = requests.ProposeRequest(generator, data, subset, unseen, settings, workers, gpus, limit, force)
    if import_ is not None:
        from ovseg_cli.core.proposals import importing

        plan_in = importing.resolve(asked, import_, format_, allow_missing, places, reporter)
        if dry_run:
            views.show_document(plan_in.document(places), json, title="plan: propose")
            return
        done = importing.import_masks(plan_in, places, reporter)
    else:
        plan = requests.resolve(asked, places, reporter)
        if dry_run:
            views.show_document(plan.document(places), json, title="plan: propose")
            return
        from ovseg_cli.core.proposals import session

        done = session.propose(plan, places, reporter)
    document = done.document()
    if export is not None:
        from ovseg_cli.core.proposals import exchange

        document["export"] = exchange.export_masks(done.store, export, format_, force, reporter)
    views.show_document(document, json, title=f"proposed {generator}")
