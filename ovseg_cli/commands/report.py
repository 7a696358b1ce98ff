"""`ovseg report RUN…`: comparison tables from result files alone; with `--figures`, what models say of masks, drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ovseg_cli.commands import options

Format = Literal["rich", "markdown", "latex", "csv", "json"]
Figures = Literal["mask-sensitivity"]


def report(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…",
            help="Run folders, folders of seeds, result files, or `latest`.",
            autocompletion=options.complete_model,
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
    figures: Annotated[
        Figures | None,
        typer.Option(
            help="Draw instead of comparing scores. mask-sensitivity: how a mask's class scores follow the mask, from "
            "right to wrong, of the model of each RUN.",
        ),
    ] = None,
    data: options.Data = None,
    subset: options.Subset = None,
    proposals: Annotated[
        str | None,
        typer.Option(
            metavar="GENERATOR|CACHE", help="With --figures: masks of a cache instead of changed ground-truth regions."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --figures: at most N pictures.", show_default="50"),
    ] = None,
    gpus: options.Gpus = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="File of the tables; with --figures the folder of the pictures, by default that of the first RUN.",
        ),
    ] = None,
    data_root: options.DataRoot = None,
    runs: options.Runs = None,
    debug: options.Debug = False,
) -> None:
    """Compare runs: scores with 95 % intervals over images, differences, classes.

    [dim]ovseg report runs/clip-toy-… runs/maskclip-toy-… --baseline runs/clip-toy-…[/dim]
    [dim]ovseg report latest --format latex --out table.tex[/dim]
    [dim]ovseg report runs/ipclip-toy-… runs/maft-toy-… --figures mask-sensitivity[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core.report import request as requests
    from ovseg_cli.core.runtime import folders

    of_tables = {
        "--per-class": per_class, "--baseline": baseline, "--split": split != "all", "--absent": absent != "union",
        "--seeds": seeds, "--bootstrap": bootstrap != 1000,
    }  # fmt: skip
    of_figures = {
        "--data": data, "--subset": subset, "--proposals": proposals, "--limit": limit, "--gpus": gpus is not None,
    }  # fmt: skip
    _refuse(of_figures if figures is None else of_tables, figures is not None)
    reporter = console.TerminalReporter()
    if figures is not None:
        from ovseg_cli.core.report import sensitivity

        wanted = sensitivity.SensitivityRequest(
            tuple(results), data, subset, out, limit or sensitivity.LIMIT, proposals, gpus
        )
        report = sensitivity.report_sensitivity(wanted, folders(data_root, runs), reporter)
        views.show_report([report.table], format, None)
        for picture in report.pictures:
            console.say(f"wrote {picture}")
        return
    asked = requests.ReportRequest(
        results=tuple(results),
        baseline=baseline,
        per_class=per_class,
        split=split,
        absent=absent,
        group_seeds=seeds,
        resamples=bootstrap,
    )
    tables = requests.build(asked, folders(runs=runs), reporter)
    views.show_report(tables, format, out)


def _refuse(given: Mapping[str, Any], with_figures: bool) -> None:
    """No option stands there without effect.

    Raises:
        UsageError: One does.
    """
    from ovseg_cli.core.errors import UsageError

    for name, value in given.items():
        if value:
            where = "belongs to the tables" if with_figures else "belongs to --figures mask-sensitivity"
            raise UsageError(f"{name} {where}.", f"Leave it out{', or leave --figures out' if with_figures else ''}.")
