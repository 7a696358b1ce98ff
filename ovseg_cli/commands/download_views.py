"""How the plan of a download, or of unpacking what lies there, looks on a terminal, and as JSON."""

from typing import TYPE_CHECKING

from ovseg_cli.commands import console

if TYPE_CHECKING:
    from ovseg_cli.core.data.download_plan import DownloadPlan, FilePlan
    from ovseg_cli.core.data.source_tree import UnpackPlan
    from ovseg_cli.core.data.spec import Spec


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
