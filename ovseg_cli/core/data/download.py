"""`ovseg prepare NAME --download`: fetch what may be fetched, look whether it is right, unpack it; name the rest.

Every state is a good one: a file is begun (.part), whole, recorded, unpacked, in this order, and what is done is not
done again. What needs a login is never fetched; a file that people put into the folder is taken like a fetched one.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ovseg_cli.core.data.commands import download_command, prepare_command
from ovseg_cli.core.data.download_files import (
    PUBLISHED,
    difference,
    hashes,
    is_recorded,
    is_unpacked,
    read_record,
    record_path,
    write_record,
    write_unpacked,
)
from ovseg_cli.core.data.download_plan import DownloadPlan, FilePlan, make_plan
from ovseg_cli.core.data.download_text import errand, is_untried
from ovseg_cli.core.data.http_fetch import Wanted, fetch
from ovseg_cli.core.data.http_part import Part
from ovseg_cli.core.data.job import require_own_name
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.unpack import Contents, unpack
from ovseg_cli.core.data.upkeep import require_space
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.files import explain_os_error, folder_lock, make_folder
from ovseg_cli.core.reporter import Reporter, Silent
from ovseg_cli.core.runtime import Folders


def require_fitting(download: bool, mirror: str | None, source: Path | None, check: bool) -> None:
    """Refuse options of `ovseg prepare` that contradict each other; raises UsageError."""
    if mirror is not None and not download:
        raise UsageError(f"--mirror {mirror}: nothing is fetched.", "Add --download.")
    if download and source is not None:
        what = f"--download has a folder of its own, so --source {source} would not be read."
        raise UsageError(what, "Leave one of them out; --data-root DIR chooses another disk.")
    if download and check:
        raise UsageError("--check only looks, and --download fetches.", "Leave one of them out.")


def download(
    spec: Spec,
    folders: Folders,
    mirror: str | None = None,
    reporter: Reporter | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch and unpack what a data set consists of.

    Args:
        spec: The data set.
        folders: Where data lies.
        mirror: See `make_plan`.
        reporter: Receives progress, and what only people can fetch.
        sleep: Waits between tries.

    Returns:
        The folder of the original files: what `--source` would name.

    Raises:
        UsageError: See `make_plan`.
        DataError: People have to fetch something first, or a file is not the published one.
        MachineError: The network, a server or the disk refuses.
    """
    reporter = reporter or Silent()
    plan = make_plan(spec, folders, mirror)
    require_own_name(spec)
    with folder_lock(plan.folder, f"downloading {spec.name}"):
        require_space(plan.folder, plan.need, f"downloading {spec.name}")
        make_folder(plan.source)
        for item in plan.files:
            _obtain(item, plan, spec, reporter, sleep)
    _tell_what_is_missing(plan, spec, reporter)
    return plan.source


def _obtain(item: FilePlan, plan: DownloadPlan, spec: Spec, reporter: Reporter, sleep: Callable[[float], None]) -> None:
    """Bring one file to where it is unpacked, from whatever state it is in."""
    if item.path is None or item.state == "unpacked" or (item.address is None and item.state != "fetched"):
        return
    if item.state == "fetched":
        _look_at(item, item.path, reporter)
    else:
        _fetch(item, item.path, spec, reporter, sleep)
    if not is_unpacked(item.path, item.part, plan.source):
        _place(item, item.path, plan.source, reporter)


def _fetch(item: FilePlan, path: Path, spec: Spec, reporter: Reporter, sleep: Callable[[float], None]) -> None:
    """Fetch a file and look at it; one that was put together of several answers gets a second chance."""
    part, untried = item.part, "The address was never tried by ovseg. " if is_untried(item) else ""
    mend = f"{untried}By hand: fetch {path.name} from {part.page}, put it at {path}, then: {download_command(spec)}"
    is_checked = bool(part.sha256 or part.md5 or read_record(path))
    wanted = Wanted(str(item.address), path, mend, part.size, is_checked)
    fetched = Part(path)
    for attempt in (1, 2):
        in_one = fetch(wanted, reporter, sleep)
        facts = hashes(fetched.path, reporter)
        wrong = difference(part, facts, read_record(path))
        if wrong is None:
            break
        fetched.remove()
        if in_one or attempt == 2:
            how = f"If that file is right, delete {record_path(path)}." if _is_ours(wrong, path) else mend
            raise DataError(f"{item.address}: {path.name} is not the file of {spec.name}: {wrong}.", how)
        reporter.say(f"{path.name}: {wrong}; it came in pieces, so it is fetched again in one.")
    fetched.finish(path)
    write_record(path, facts, item.address)


def _look_at(item: FilePlan, path: Path, reporter: Reporter) -> None:
    """Look at a file that is there already, put there by an earlier run or by people."""
    if is_recorded(path):
        return
    facts, record = hashes(path, reporter), read_record(path)
    if wrong := difference(item.part, facts, record):
        mend = f"Delete {path} and run the same command; if the file is right, delete {record_path(path)} instead."
        raise DataError(f"{path}: {wrong}.", mend if _is_ours(wrong, path) else f"Delete {path}, then fetch it again.")
    write_record(path, facts, (record or {}).get("address"))


def _is_ours(wrong: str, path: Path) -> bool:
    """Whether a file differs from our own record only, not from what is published."""
    return PUBLISHED not in wrong and record_path(path).exists()


def _place(item: FilePlan, path: Path, source: Path, reporter: Reporter) -> None:
    """Unpack an archive, or put a file where it belongs; then record that it is done."""
    if item.is_foreign:
        return
    target = source / item.part.into
    contents = unpack(path, target, reporter) if item.is_archive else _put(path, target)
    write_unpacked(path, item.part, contents)
    if item.is_archive:
        reporter.say(f"{path} is unpacked; it may be deleted, and is not fetched again for that.")


def _put(path: Path, folder: Path) -> Contents:
    """Put a file into a folder: a second name for it where the disk can, else a copy."""
    make_folder(folder)
    target, beside = folder / path.name, folder / f".{path.name}.{os.getpid()}.part"
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        try:
            os.link(path, beside)
        except OSError:
            shutil.copyfile(path, beside)
        os.replace(beside, target)
    except OSError as error:
        raise explain_os_error(error, target) from error
    return Contents(1, path.stat().st_size, (path.name,))


def _tell_what_is_missing(plan: DownloadPlan, spec: Spec, reporter: Reporter) -> None:
    """Name what people have to do: refuse to go on where the data set cannot do without it."""
    left = [item for item in plan.files if _is_left(item)]
    for item in left:
        if item.part.optional:
            reporter.say(f"{spec.name}: not fetched, and not needed for most: {errand(item, plan.source, spec)}.")
    needed = [item for item in left if not item.part.optional]
    if not needed:
        return
    by_name = all(item.path is not None and not item.is_foreign for item in needed)
    command = download_command(spec) if by_name else prepare_command(spec, plan.source)
    errands = "; ".join(errand(item, plan.source, spec) for item in needed)
    raise DataError(f"{spec.name}: something is missing that ovseg does not fetch: {errands}.", f"Then run: {command}")


def _is_left(item: FilePlan) -> bool:
    return item.state != "unpacked" and (item.is_foreign or (item.address is None and item.state != "fetched"))
