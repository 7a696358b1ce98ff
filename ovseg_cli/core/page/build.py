"""What `ovseg report RUN… --format html` puts on its page: all that is stored, and pictures where they can be made."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ovseg_cli import __version__
from ovseg_cli.core.page.classes import charts_of
from ovseg_cli.core.page.confusions import confusion_of
from ovseg_cli.core.page.curves import curves_of
from ovseg_cli.core.page.document import Page
from ovseg_cli.core.page.further import further_of
from ovseg_cli.core.page.reproductions import reproduction_of
from ovseg_cli.core.page.rows import Row, lost_runs, members_of, rows_of
from ovseg_cli.core.page.settings import settings_of
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.request import Comparison, ReportRequest, read, tables_of
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import typed_command
from ovseg_cli.core.runtime import Folders


@dataclass(frozen=True)
class PictureWish:
    """Which pictures are on the page.

    Attributes:
        limit: At most so many of each data set; 0 makes none, and builds no model.
        names: Pictures that are wanted, whatever else is chosen.
        gpus: What `--gpus` said.
    """

    limit: int = 24
    names: tuple[str, ...] = ()
    gpus: int | None = None


@dataclass(frozen=True)
class PageRequest:
    """Options of `ovseg report --format html`, as typed; the fields are explained in its help."""

    report: ReportRequest
    pictures: PictureWish = field(default_factory=PictureWish)
    out: Path | None = None


def build_page(request: PageRequest, folders: Folders, reporter: Reporter) -> Page:
    """Gather a page from names of runs and result files; see `request.build` for what is raised."""
    compared = read(request.report, folders, reporter)
    return page_of(compared, tables_of(compared, False), request.pictures, folders, reporter)


def page_of(
    compared: Comparison, tables: Sequence[Table], wish: PictureWish, folders: Folders, reporter: Reporter
) -> Page:
    """Gather a page from results.

    Args:
        compared: The results, and how they are looked at.
        tables: What stands on top: scores, differences.
        wish: Which pictures.
        folders: Where data, runs and caches lie.
        reporter: Receives progress and messages.
    """
    rows = rows_of(compared)
    curves, said = curves_of(rows)
    further, broken = further_of(compared, rows)
    page = Page(
        title=tables[0].title,
        version=__version__,
        command=typed_command(),
        tables=tuple(tables),
        further=tuple(further),
        classes=tuple(charts_of(compared)),
        confusions=tuple(found for row in rows if (found := confusion_of(row)) is not None),
        curves=tuple(curves),
        settings=tuple(settings_of(rows, folders)),
        reproductions=tuple(reproduction_of(member, folders) for member in members_of(rows)),
        notes=(*compared.left_out, *lost_runs(rows), *_first_seeds(rows), *broken, *said),
    )
    return with_galleries(page, rows, wish, folders, reporter) if wish.limit else page


def with_galleries(page: Page, rows: Sequence[Row], wish: PictureWish, folders: Folders, reporter: Reporter) -> Page:
    """Add pictures to a page, as large as the rest of it leaves room for; models are built for these alone."""
    from ovseg_cli.core.page.gallery import Making, galleries_of
    from ovseg_cli.core.page.render import render
    from ovseg_cli.core.page.scenes import budget_beside
    from ovseg_cli.core.runtime import open_runtime

    budget = budget_beside(len(render(page).encode("utf-8")))
    making = Making(wish.limit, wish.names, budget, open_runtime(wish.gpus).device, folders, reporter)
    galleries, lacking = galleries_of(rows, making)
    for why in lacking:
        making.reporter.warn(why)
    return replace(page, galleries=tuple(galleries), notes=(*page.notes, *lacking))


def _first_seeds(rows: Sequence[Row]) -> list[str]:
    if all(len(row.members) == 1 for row in rows):
        return []
    return ["Of rows with several seeds, classes, confusions and pictures are those of the first."]
