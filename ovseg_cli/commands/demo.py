"""`ovseg demo`: the whole pipeline on the built-in world, no download."""

from pathlib import Path
from typing import Annotated

import typer

from ovseg_cli.commands import options


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the demo's data, runs, pictures and table.")
    ] = Path("ovseg-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Shortest: one host, barely trained, fewer pictures.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Train every row from scratch, for claims with a spread; takes long.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --full: how many seeds are trained.", show_default="3"),
    ] = None,
    classes: Annotated[
        str, typer.Option(metavar='"a, b"', help="Your words: pictures that hold them are drawn and labelled.")
    ] = "grass, brick, leaves, a red plain toy, a purple striped toy",
    gpus: options.Gpus = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Run the whole pipeline on the built-in toy world: prepare, score, compare, draw. Nothing is downloaded.

    [dim]ovseg demo[/dim]
    [dim]ovseg demo --full --seeds 3[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core.demo.plan import DemoRequest
    from ovseg_cli.core.demo.run import run_demo
    from ovseg_cli.core.errors import UsageError

    if quick and full:
        raise UsageError("--quick and --full exclude each other.", "Leave one out.")
    if seeds is not None and not full:
        raise UsageError(f"--seeds {seeds}: without --full nothing is trained.", "Add --full, or leave --seeds out.")
    count = (seeds or 3) if full else 0
    request = DemoRequest(out, quick=quick, full_seeds=count, words=classes, gpus=gpus)
    outcome = run_demo(request, console.TerminalReporter())
    views.show_demo(outcome, json)
