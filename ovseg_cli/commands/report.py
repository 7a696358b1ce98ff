"""`ovseg report RUN…`: comparison tables with intervals and per-class differences, from result files alone."""

from typing import Annotated, Literal

import typer

from ovseg_cli.commands import options

Format = Literal["rich", "markdown", "latex", "csv", "json"]


def report(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…", help="Run folders, result files, or `latest`.", autocompletion=options.complete_model
        ),
    ],
    format: Annotated[Format, typer.Option("--format", "-f", help="How the tables are written.")] = "rich",
    per_class: Annotated[bool, typer.Option("--per-class", help="Add the scores of every class.")] = False,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Add differences to this run: per class, and with paired intervals."),
    ] = None,
    split: options.Split = "all",
    absent: options.Absent = "union",
    seeds: Annotated[
        bool, typer.Option("--seeds", help="Group runs that differ in their seed: mean ± spread.")
    ] = False,
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="N", help="Resamples of the images; 0: no intervals.")
    ] = 1000,
    out: options.Out = None,
    runs: options.Runs = None,
    debug: options.Debug = False,
) -> None:
    """Compare runs: scores with 95 % intervals over images, differences, classes.

    [dim]ovseg report runs/clip-toy-… runs/maskclip-toy-… --baseline runs/clip-toy-…[/dim]
    [dim]ovseg report latest --format latex --out table.tex[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core.report import request as requests
    from ovseg_cli.core.runtime import folders

    asked = requests.ReportRequest(
        results=tuple(results),
        baseline=baseline,
        per_class=per_class,
        split=split,
        absent=absent,
        group_seeds=seeds,
        resamples=bootstrap,
    )
    tables = requests.build(asked, folders(runs=runs), console.TerminalReporter())
    views.show_report(tables, format, out)
