"""`ovseg prepare DATASET`: fetch if asked, find the official folders, convert, make seen-only labels, check."""

from pathlib import Path
from typing import Annotated

import typer

from ovseg_cli.commands import options


def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="Name of a data set, or path of a spec of your own (.toml).",
            autocompletion=options.complete_data,
        ),
    ],
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the official files or their archives; they are never changed."),
    ] = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Fetch and unpack what needs no login; say what is to be fetched by hand."),
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --download: fetch each FILE from URL/FILE instead of its own address."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check what is prepared, change nothing.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes; default: one a core.")] = None,
    allow_missing: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Accept that N pictures of the official counts are missing; results will say so."
        ),
    ] = None,
    data_root: options.DataRoot = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Convert a data set to train ids, make the seen/unseen training labels, check and fingerprint it.

    [dim]ovseg prepare toy[/dim]
    [dim]ovseg prepare camvid --source CamVid[/dim]
    [dim]ovseg prepare coco-stuff --download[/dim]
    """
    import os

    from ovseg_cli.commands import console, download_views, views
    from ovseg_cli.core.data import download as downloading
    from ovseg_cli.core.data import prepare as preparation
    from ovseg_cli.core.data.find import find_data
    from ovseg_cli.core.runtime import folders

    places = folders(data_root)
    spec = find_data(dataset, None, places).spec
    downloading.require_fitting(download, mirror, source, check)
    reporter = console.TerminalReporter()
    count = workers or max(1, len(os.sched_getaffinity(0)))
    if download and dry_run:
        download_views.show_download_plan(downloading.make_plan(spec, places, mirror), spec, json)
        return
    if download:
        source = downloading.download(spec, places, mirror, reporter)
    if dry_run and (unpacking := preparation.plan_archives(spec, places, source)):
        download_views.show_unpack_plan(unpacking, json)
        return
    if dry_run:
        views.show_plan(preparation.plan(spec, places, source), json)
        return
    allowed = preparation.allowed_missing(places, spec) if allow_missing is None else allow_missing
    with download_views.problems_shown(json):
        report = preparation.prepare(spec, places, source, reporter, count, check, allowed)
    views.show_prepared(report, json)
