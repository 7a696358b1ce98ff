"""What `ovseg doctor` looks at: packages, devices, memory, disk, folders, prepared data and weights."""

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ovseg_cli import __version__
from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.runtime import Folders

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "matplotlib",
    "numpy",
    "pillow",
    "pycocotools",
    "pydantic",
    "rich",
    "safetensors",
    "tomli-w",
    "tqdm",
    "typer",
)
LOW_DISK_GIB = 2.0


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        what: What was looked at.
        status: "ok", "note" (works, worth knowing) or "broken" (something cannot work).
        found: What was found.
        mend: What to do, or "".
    """

    what: str
    status: Literal["ok", "note", "broken"]
    found: str
    mend: str = ""

    def record(self) -> dict[str, str]:
        """The check as plain data."""
        return asdict(self)


def examine(folders: Folders) -> list[Check]:
    """Run every check; a check that fails itself is reported, not raised."""
    steps: tuple[Callable[[], Iterator[Check]], ...] = (
        _packages,
        _devices,
        _memory,
        lambda: _folders(folders),
        lambda: _data(folders),
        _weights,
        lambda: _runs(folders),
    )
    checks = [Check("ovseg", "ok", f"{__version__}, Python {platform.python_version()}, {platform.system()}")]
    for step in steps:
        try:
            checks.extend(step())
        except OvsegError as error:
            checks.append(Check("check", "broken", error.message, error.mend or ""))
    return checks


def _packages() -> Iterator[Check]:
    missing = []
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Check("packages", "broken", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    yield Check("packages", "ok", ", ".join(versions))


def _devices() -> Iterator[Check]:
    try:
        import torch
    except ImportError as error:
        yield Check("devices", "broken", f"torch cannot be imported: {error}", "pip install --force-reinstall torch")
        return
    if not torch.cuda.is_available():
        yield Check(
            "devices",
            "note",
            f"no GPU; CPU with {torch.get_num_threads()} threads",
            "Training real models needs a GPU.",
        )
        return
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Check("devices", "ok", f"{len(names)} GPU: {', '.join(names)}")


def _memory() -> Iterator[Check]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    status: Literal["ok", "note"] = "ok" if total >= 4 else "note"
    mend = "" if total >= 4 else "Real CLIP models want 4 GiB or more."
    yield Check("memory", status, f"{total:.1f} GiB", mend)


def _folders(folders: Folders) -> Iterator[Check]:
    for what, path in (("data folder", folders.data), ("runs folder", folders.runs), ("cache", folders.cache)):
        there = _existing_parent(path)
        free = shutil.disk_usage(there).free / 2**30
        if not there.is_dir():
            yield Check(what, "broken", f"{path}: {there} is a file, not a folder", "Choose another folder.")
        elif not _can_write(there):
            yield Check(
                what, "broken", f"{path} cannot be written", "Choose another folder, or change its permissions."
            )
        elif free < LOW_DISK_GIB:
            yield Check(what, "note", f"{path}: {free:.1f} GiB free", "Free some space before large data sets.")
        else:
            yield Check(what, "ok", f"{path}: {free:.0f} GiB free" + ("" if path.exists() else ", made when needed"))


def _can_write(folder: Path) -> bool:
    """Try it: permissions alone do not tell (a read-only disk, /proc)."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _existing_parent(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _data(folders: Folders) -> Iterator[Check]:
    from ovseg_cli.core.data.dataset import PreparedData, prepared_names

    names = prepared_names(folders)
    if not names:
        yield Check("data", "note", f"nothing is prepared in {folders.data}", "ovseg prepare toy")
    for name in names:
        try:
            prepared = PreparedData.open_name(name, folders)
        except OvsegError as error:
            yield Check(f"data {name}", "broken", error.message, error.mend or f"ovseg prepare {name}")
        else:
            yield Check(f"data {name}", "ok", f"fingerprint {prepared.fingerprint[:12]}")


def _weights() -> Iterator[Check]:
    from ovseg_cli.core.clip.model import load_clip

    clip = load_clip("toy-clip")
    yield Check("weights toy-clip", "ok", f"in the package, fingerprint {clip.digest[:12]}")
    caches = [os.environ.get("HF_HUB_CACHE"), os.environ.get("HF_HOME"), str(Path.home() / ".cache" / "huggingface")]
    found = sorted({p.name for c in caches if c and Path(c).is_dir() for p in Path(c).glob("**/models--*")})
    openai = sorted(p.name for p in (Path.home() / ".cache" / "clip").glob("*.pt"))
    if found or openai:
        yield Check("weights in caches", "ok", ", ".join([*found, *openai]))
    else:
        yield Check(
            "weights in caches",
            "note",
            "none",
            "The first use of a real CLIP downloads it; without network pass --pretrained FILE.",
        )


def _runs(folders: Folders) -> Iterator[Check]:
    from ovseg_cli.core.runs import list_runs, open_run

    good = list_runs(folders.runs)
    yield Check("runs", "ok", f"{len(good)} in {folders.runs}, {sum(run.is_finished for run in good)} finished")
    for config in sorted(folders.runs.glob("*/config.toml")):
        try:
            open_run(config.parent)
        except OvsegError as error:
            yield Check("runs", "note", error.message, error.mend or "")
