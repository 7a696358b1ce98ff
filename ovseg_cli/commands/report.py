"""`ovseg report RUN…`: comparison tables from result files alone; a page of all that is known of runs; figures."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ovseg_cli.commands import options

if TYPE_CHECKING:
    from ovseg_cli.core.report.figure_inputs import FigureReport, FigureRequest
    from ovseg_cli.core.reporter import Reporter
    from ovseg_cli.core.runtime import Folders

Format = Literal["rich", "markdown", "latex", "csv", "json", "html"]
Figures = Literal["mask-sensitivity", "trusty-map", "compare", "calibration", "masks", "clusters", "nearest", "tsne"]
DRAWN_BY: dict[Figures, str] = {
    "mask-sensitivity": "sensitivity:report_sensitivity",
    "trusty-map": "trusty:report_trusty_maps",
    "compare": "compare_grid:report_comparison",
    "calibration": "calibration:report_calibration",
    "masks": "prompt_masks:report_masks",
    "clusters": "prompt_clusters:report_clusters",
    "nearest": "prompt_nearest:report_nearest",
    "tsne": "prompt_tsne:report_tsne",
}
"""Module in `core/report` and function; loaded when asked for."""
OF_MASKS = ("mask-sensitivity", "calibration", "masks", "nearest")
"""Figures that are given masks."""
OF_PICTURES = ("compare", "masks", "clusters", "nearest")
"""Figures for which pictures can be chosen by name."""


def report(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…",
            help="Run folders, folders of seeds, result files (of masks and oracles, too), or `latest`.",
            autocompletion=options.complete_model,
        ),
    ],
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            help="How the tables are written. html: one page that opens anywhere, with classes, confusions, pictures, "
            "curves, settings and commands besides.",
        ),
    ] = "rich",
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
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Score one result under every convention that papers differ in, with the reason for each gap: absent "
            "classes, background, candidates, calibration of seen scores.",
        ),
    ] = False,
    score_missing: Annotated[
        bool,
        typer.Option(
            "--score-missing",
            help="With --explain: let the run's model score what its results do not tell yet, in one pass over the "
            "pictures; the new results are kept.",
        ),
    ] = False,
    figures: Annotated[
        Figures | None,
        typer.Option(
            help="Draw instead of comparing scores. mask-sensitivity: how a mask's class scores follow the mask, from "
            "right to wrong, of the model of each RUN. trusty-map: where a run of tagclip trusts that it sees "
            "what it was trained on, and what that changes. compare: some pictures, their ground truth and the classes "
            "that the model of each RUN finds. calibration: whether the probabilities of masks that were named "
            "(`ovseg eval RUN --task masks`) come true. Of runs of pixelclip: masks, those that it learned from (by "
            "default of train), one by one and grouped by its learned prompts; clusters, pictures that the prompts of "
            "each RUN part; nearest, the class names nearest to each prompt, and pictures in the colours of these "
            "names; tsne, prompts and class names as points of a plane.",
        ),
    ] = None,
    data: options.Data = None,
    subset: options.Subset = None,
    proposals: Annotated[
        str | None,
        typer.Option(
            metavar="GENERATOR|CACHE",
            help="With --figures mask-sensitivity: proposals of a generator, a cache or a run (of maft: its host's) "
            "instead of changed ground-truth regions, measured picture by picture too; with masks and nearest: others "
            "than those of the run's training; with calibration: which named masks.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="With --figures and --format html: at most N pictures; on a page 0 is none, and no model is built.",
            show_default="50; compare and clusters: 4; html: 24",
        ),
    ] = None,
    picture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"With --format html and --figures {', '.join(OF_PICTURES)}: a picture to draw; give it several "
            "times.",
        ),
    ] = None,
    gpus: options.Gpus = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="File of the tables or the page; with --figures the folder of the pictures. Page and pictures go to "
            "the folder of the first RUN by default.",
        ),
    ] = None,
    data_root: options.DataRoot = None,
    runs: options.Runs = None,
    debug: options.Debug = False,
) -> None:
    """Compare runs: scores with 95 % intervals over images, differences, classes.

    [dim]ovseg report runs/clip-toy-… runs/maskclip-toy-… --baseline runs/clip-toy-…[/dim]
    [dim]ovseg report latest --format latex --out table.tex[/dim]
    [dim]ovseg report runs/clip-toy-… runs/maskclip-toy-… --format html --out page.html[/dim]
    [dim]ovseg report latest --explain[/dim]
    [dim]ovseg report runs/ipclip-toy-… runs/maft-toy-… --figures mask-sensitivity[/dim]
    [dim]ovseg report runs/tagclip-toy-… --figures trusty-map[/dim]
    [dim]ovseg report runs/clip-toy-… runs/pixelclip-toy-… --figures compare --picture 00003 --picture 00007[/dim]
    [dim]ovseg report runs/clip-toy-… runs/pixelclip-toy-… --figures calibration[/dim]
    [dim]ovseg report runs/pixelclip-toy-… --figures masks[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core.report import request as requests
    from ovseg_cli.core.runtime import folders

    of_tables = {
        "--per-class": per_class, "--baseline": baseline, "--split": split != "all", "--absent": absent != "union",
        "--seeds": seeds, "--bootstrap": bootstrap != 1000,
    }  # fmt: skip
    of_figures = {
        "--data": data, "--subset": subset, "--proposals": proposals,
        "--limit": limit is not None, "--gpus": gpus is not None, "--picture": picture,
    }  # fmt: skip
    of_pages = ("--limit", "--gpus", "--picture")
    if not explain:
        _refuse({"--score-missing": score_missing}, "--explain")
    if explain:
        of_comparison = {name: value for name, value in of_tables.items() if name != "--bootstrap"}
        of_comparison |= {"--figures": figures, "--format html": format == "html"}
        _refuse(of_comparison, "comparisons", "--explain")
        of_model = {"--gpus": gpus is not None} if not score_missing else {}
        _refuse(of_model, "--explain --score-missing and --figures")
        _refuse({name: value for name, value in of_figures.items() if name != "--gpus"}, "--figures", "--explain")
    elif format == "html" and figures is None:
        _refuse({name: value for name, value in of_figures.items() if name not in of_pages}, "--figures")
        _refuse({"--picture": picture and limit == 0}, "a gallery, and --limit 0 asks for none")
    elif figures is None:
        _refuse({name: value for name, value in of_figures.items() if name not in of_pages}, "--figures")
        _refuse({name: of_figures[name] for name in of_pages}, "--figures and --format html")
    else:
        _refuse({**of_tables, "--format html": format == "html"}, "the tables", "--figures")
        _refuse({"--limit 0": limit == 0}, "--format html")
    if figures is not None and figures not in OF_MASKS:
        _refuse({"--proposals": proposals}, f"--figures {', '.join(OF_MASKS)}")
    if figures is not None and figures not in OF_PICTURES:
        _refuse({"--picture": picture}, f"--figures {', '.join(OF_PICTURES)}")
    if figures == "calibration":
        _refuse({"--limit": limit, "--gpus": gpus is not None}, "figures for which a model is asked")
    if figures == "tsne":
        _refuse({"--subset": subset, "--limit": limit}, "figures of pictures")
    reporter = console.TerminalReporter()
    if explain:
        from ovseg_cli.core.report.explain_request import ExplainRequest, report_explanation

        told = ExplainRequest(tuple(results), bootstrap, score_missing, gpus)
        views.show_report(report_explanation(told, folders(data_root, runs), reporter), format, out)
        return
    if figures is not None:
        from ovseg_cli.core.report.figure_inputs import FigureRequest

        wanted = FigureRequest(tuple(results), data, subset, out, limit, proposals, gpus, tuple(picture or ()))
        drawn = _draw(figures, wanted, folders(data_root, runs), reporter)
        tables = [drawn.table, *drawn.further, *(drawn.details if format in ("csv", "json") else ())]
        views.show_report(tables, format, None)
        for path in drawn.pictures:
            console.say(f"wrote {path}")
        return
    from ovseg_cli.core.report.mask_reports import mask_tables

    if found := mask_tables(results, split, absent):
        others = {name: value for name, value in of_tables.items() if name not in ("--split", "--absent")}
        _refuse({**others, "--format html": format == "html"}, "scores of label maps")
        views.show_report(found, format, out)
        return
    places = folders(data_root, runs)
    asked = requests.ReportRequest(
        results=tuple(results),
        baseline=baseline,
        per_class=per_class,
        split=split,
        absent=absent,
        group_seeds=seeds,
        resamples=bootstrap,
    )
    if format == "html":
        from ovseg_cli.core.page.build import PageRequest, PictureWish
        from ovseg_cli.core.page.write import report_page

        wish = PictureWish(PictureWish.limit if limit is None else limit, tuple(picture or ()), gpus)
        console.say(f"wrote {report_page(PageRequest(asked, wish, out), places, reporter)}")
        return
    views.show_report(requests.build(asked, places, reporter), format, out)


def _draw(figure: Figures, wanted: "FigureRequest", places: "Folders", reporter: "Reporter") -> "FigureReport":
    module, _, function = DRAWN_BY[figure].partition(":")
    draw = getattr(import_module(f"ovseg_cli.core.report.{module}"), function)
    return draw(wanted, places, reporter)


def _refuse(given: Mapping[str, Any], belongs_to: str, instead_of: str | None = None) -> None:
    """No option stands there without effect.

    Args:
        given: Option and value.
        belongs_to: What the options are for.
        instead_of: Option that could be left out for their sake.

    Raises:
        UsageError: One does.
    """
    from ovseg_cli.core.errors import UsageError

    for name, value in given.items():
        if value:
            other = f", or leave {instead_of} out" if instead_of else ""
            raise UsageError(f"{name} belongs to {belongs_to}.", f"Leave it out{other}.")
