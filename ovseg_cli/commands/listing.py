"""`ovseg list datasets|methods|proposals|backbones|runs`: what there is."""

from typing import Annotated, Literal

import typer

from ovseg_cli.commands import options

What = Literal["datasets", "methods", "proposals", "backbones", "runs"]


def list_(
    what: Annotated[What, typer.Argument(help="What to list.")],
    data_root: options.DataRoot = None,
    runs: options.Runs = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List data sets, methods, mask proposals, CLIP backbones or runs.

    [dim]ovseg list datasets[/dim]
    [dim]ovseg list runs --json[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core import catalogue
    from ovseg_cli.core.runtime import folders

    places = folders(data_root, runs)
    tables = {
        "datasets": lambda: catalogue.datasets(places),
        "methods": catalogue.methods,
        "proposals": lambda: catalogue.proposals(places),
        "backbones": catalogue.backbones,
        "runs": lambda: catalogue.runs(places),
    }
    table = tables[what]()
    if json:
        console.print_json({"schema": 1, what: table.records()})
    else:
        views.show_table(table)
