"""What `ovseg prepare` shows of its plans (download, unpack), and file by file of what is broken."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ovseg_cli.commands import console

if TYPE_CHECKING:
    from ovseg_cli.core.data.download_plan import DownloadPlan, FilePlan
    from ovseg_cli.core.data.source_tree import UnpackPlan
    from ovseg_cli.core.data.spec import Spec

_MOST_PROBLEMS = 100


def show_download_plan(plan: "DownloadPlan", spec: "Spec", as_json: bool) -> None:
    """Print what `ovseg prepare NAME --download` would fetch."""
    from ovseg_cli.core.data.download_text import describe_file

    if as_json:
        document = {"name": plan.name, "folder": str(plan.folder), "source": str(plan.source)}
        files = [_record(item) for item in plan.files]
        console.print_json({"schema": 1, **document, "need": plan.need, "free": plan.free, "files": files})
        return
    out = console.stdout()
    out.print(f"plan: download {plan.name}", style="bold", markup=False)
    out.print(f"  folder: {plan.folder}", markup=False)
    for item in plan.files:
        out.print(f"  {describe_file(item, plan.source, spec)}", markup=False)
    unknown = " and what is of unknown size" if any(f.address and not f.total for f in plan.files) else ""
    out.print(f"  needs about {plan.need / 1e9:.2f} GB{unknown}; {plan.free / 1e9:.2f} GB are free", markup=False)
    out.print(f"  then: prepare {plan.name} from {plan.source}", markup=False)


def show_unpack_plan(plan: "UnpackPlan", as_json: bool) -> None:
    """Print which archives of `--source` would be unpacked, before anything can be said of the pictures in them."""
    if as_json:
        archives = [{"path": str(path), "files": files, "bytes": size} for path, files, size in plan.archives]
        document = {"name": plan.name, "folder": str(plan.files), "need": plan.need, "free": plan.free}
        console.print_json({"schema": 1, **document, "archives": archives})
        return
    from ovseg_cli.core.data.http_fetch import amount

    out = console.stdout()
    out.print(f"plan: unpack the archives of {plan.name}", style="bold", markup=False)
    for path, files, size in plan.archives:
        out.print(f"  {path}: {files:,} files, {amount(size)}", markup=False)
    out.print(f"  into: {plan.files}", markup=False)
    out.print(f"  needs about {amount(plan.need)}; {amount(plan.free)} are free", markup=False)
    out.print(f"  then: prepare {plan.name} from there; the archives are only read", markup=False)


@contextlib.contextmanager
def problems_shown(as_json: bool) -> Iterator[None]:
    """While data is prepared or checked: list what is broken, with what to do, before the error sums it up."""
    from ovseg_cli.core.data.problems import BrokenData

    try:
        yield
    except BrokenData as broken:
        if not as_json and len(broken.problems) > 1:
            for problem in broken.problems[:_MOST_PROBLEMS]:
                console.say(problem.line)
            if (left := len(broken.problems) - _MOST_PROBLEMS) > 0:
                where = f"all are in {broken.listed}" if broken.listed else "mend these first, then check again"
                console.say(f"and {left:,} more; {where}")
        raise


def _record(item: "FilePlan") -> dict[str, object]:
    part = item.part
    place = str(item.path) if item.path else None
    return {
        "file": part.file,
        "what": part.what,
        "page": part.page,
        "path": place,
        "address": item.address,
        "tried": part.tried,
        "login": part.login,
        "optional": part.optional,
        "state": item.state,
        "have": item.have,
        "total": item.total,
    }
