"""`ovseg report RUN… --format html`: from what was typed to one file."""

import errno
import os
from pathlib import Path

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.files import explain_os_error, make_folder, write_text
from ovseg_cli.core.page.build import PageRequest, build_page
from ovseg_cli.core.page.document import Page
from ovseg_cli.core.report.stored import home_of
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders

FILE = "report.html"


def report_page(request: PageRequest, folders: Folders, reporter: Reporter) -> Path:
    """Write the page of a request: to its `out`, else into the folder of the first run.

    Raises:
        UsageError: A name is no run and no result file, results cannot share a table, or `out` is a folder.
        DataError: A result file is broken.
        MachineError: The file cannot be written.
    """
    out = request.out or home_of(request.report.results[0], folders) / FILE
    require_place(out)
    return write_page(build_page(request, folders, reporter), out)


def write_page(page: Page, out: Path) -> Path:
    """Write a page, whole or not at all."""
    from ovseg_cli.core.page.render import render

    write_text(out, render(page))
    return out


def require_place(out: Path) -> None:
    """Find out whether a page can be written before minutes are spent on its pictures.

    Raises:
        UsageError: It is a folder.
        MachineError: Its folder cannot be made or written to.
    """
    if out.is_dir():
        raise UsageError(f"--out {out}: this is a folder, and the page is one file.", f"Name it: --out {out / FILE}")
    make_folder(out.parent)
    if not os.access(out.parent, os.W_OK):
        raise explain_os_error(PermissionError(errno.EACCES, "permission denied"), out)
