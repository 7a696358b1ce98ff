"""What would be fetched, from where, where to, and how much of it is there; and what only people can fetch.

Data sets of the same pictures share one folder, `DATA/_downloads/FOLDER`, so that no archive is fetched twice.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovseg_cli.core.data.commands import prepare_command
from ovseg_cli.core.data.download_files import is_recorded, is_unpacked
from ovseg_cli.core.data.http_part import Part
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_files import Download
from ovseg_cli.core.data.spec_types import WebAddress
from ovseg_cli.core.data.unpack_list import FOREIGN, SUFFIXES
from ovseg_cli.core.data.upkeep import free_bytes
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.runtime import Folders

State = Literal["unpacked", "fetched", "begun", "absent"]


@dataclass(frozen=True)
class FilePlan:
    """One file of a data set.

    Attributes:
        part: What the spec says of it.
        path: Where it lies, or will; None for what is no single file.
        address: Where it is fetched from; None: people have to fetch it.
        state: "unpacked" (nothing to do), "fetched", "begun" (`have` bytes are there), "absent".
        have: Bytes that are there.
        total: Its bytes, where they are known at least roughly.
    """

    part: Download
    path: Path | None
    address: str | None
    state: State
    have: int = 0
    total: int | None = None

    @property
    def is_archive(self) -> bool:
        """Whether it is unpacked here; other files are put in place as they are."""
        return self.path is not None and self.path.name.lower().endswith(SUFFIXES)

    @property
    def is_foreign(self) -> bool:
        """Whether it is an archive that people have to unpack."""
        return self.path is not None and not self.is_archive and self.path.name.lower().endswith(FOREIGN)

    @property
    def need(self) -> int:
        """Bytes that it will still take: the rest of the file, and about as much again once unpacked."""
        if self.state == "unpacked" or (self.address is None and self.state == "absent"):
            return 0
        total = self.total or self.have
        left = total - self.have if self.state != "fetched" else 0
        return left + (total if self.is_archive else 0)


@dataclass(frozen=True)
class DownloadPlan:
    """What `ovseg prepare NAME --download` would do.

    Attributes:
        name: The data set.
        folder: Where the files lie.
        source: Folder that they are unpacked into: what `--source` would name.
        files: In the spec's order.
        need: Estimated bytes that they will still take; files of unknown size count as nothing.
        free: Bytes free on that disk.
    """

    name: str
    folder: Path
    source: Path
    files: tuple[FilePlan, ...]
    need: int
    free: int


def make_plan(spec: Spec, folders: Folders, mirror: str | None = None) -> DownloadPlan:
    """Plan the download of a data set, writing nothing and asking nobody.

    Args:
        spec: The data set.
        folders: Where data lies.
        mirror: Folder of a server that holds the same files: FILE is fetched from MIRROR/FILE, and nothing else of its
            published address is kept. Files behind a login are not taken from there either.

    Raises:
        UsageError: The data set is drawn by the program or names no file to fetch, or the mirror is no web address.
    """
    if spec.generator is not None:
        raise UsageError(f"{spec.name} is drawn by the program.", f"Leave --download out: {prepare_command(spec)}")
    if not spec.downloads:
        what = f"{spec.typed}: the spec names nothing to download."
        raise UsageError(what, f"Add [[downloads]] to it, or run: {prepare_command(spec)}")
    if mirror is not None:
        _require_address(mirror)
    folder = folders.data / "_downloads" / (spec.download_folder or spec.name)
    source = folder / "unpacked"
    files = tuple(_plan_file(part, folder, source, mirror) for part in spec.downloads)
    return DownloadPlan(spec.name, folder, source, files, sum(f.need for f in files), free_bytes(folder))


def _plan_file(part: Download, folder: Path, source: Path, mirror: str | None) -> FilePlan:
    if part.file is None:
        return FilePlan(part, None, None, "absent", total=part.size or part.about)
    path = folder / part.file
    address = None
    if not part.login:
        address = f"{mirror.rstrip('/')}/{part.file}" if mirror else part.url
    state, have = _state(path, part, source)
    return FilePlan(part, path, address, state, have, have if state == "fetched" else part.size or part.about)


def _state(path: Path, part: Download, source: Path) -> tuple[State, int]:
    if is_unpacked(path, part, source) and (is_recorded(path) or not path.exists()):
        return "unpacked", 0
    if path.exists():
        return "fetched", path.stat().st_size
    have = Part(path).size
    return ("begun", have) if have else ("absent", 0)


def _require_address(mirror: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(WebAddress).validate_python(mirror)
        fits = "?" not in mirror
    except ValidationError:
        fits = False
    if not fits:
        raise UsageError(
            f"--mirror {mirror}: this is no address of a folder.",
            "Give http://… or https://…, without user name, '?' and '#'; FILE is fetched from MIRROR/FILE.",
        )
