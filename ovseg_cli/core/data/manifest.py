"""What a prepared data set looks like on disk, and what of it is prepared. Imports no torch.

datasets/NAME/images/SUBSET/STEM.*         links to the source's pictures (or drawn, or copied)
              labels/SUBSET/STEM.png       train ids, 8 or 16 bit
              labels-SPLIT/SUBSET/STEM.png seen-only labels of training subsets: hidden classes → ignore_label
              captions/SUBSET.jsonl        where a generator gives captions
              index/SUBSET.jsonl           one record a picture; grows while `prepare` runs, so that it can go on
              spec.toml                    the spec it was prepared with
              manifest.json                written last: its presence says that everything is complete
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import digest_of, read_json
from ovseg_cli.core.runtime import Folders

SCHEMA = 1
MANIFEST = "manifest.json"
SPEC = "spec.toml"


def data_root(folders: Folders, name: str) -> Path:
    """Folder of a prepared data set."""
    return folders.data / name


def total_fingerprint(by_subset: dict[str, str]) -> str:
    """Fingerprint of all subsets."""
    return digest_of(["data-1", *(part for name in sorted(by_subset) for part in (name, by_subset[name]))])


def read_manifest(root: Path, name: str | None = None, command: str | None = None) -> dict[str, Any]:
    """Read a manifest.

    Args:
        root: Folder of the data set.
        name: Its name; None takes the folder's.
        command: What prepares it, as the user would type it.

    Raises:
        DataError: The data set is not prepared, only half, or by another version; the message has the command.
    """
    name = name or root.name
    command = command or f"ovseg prepare {name}"
    mend = f"Prepare it: {command}"
    path = root / MANIFEST
    if not path.exists():
        half = (root / "index").is_dir()
        state = "its preparation was not finished" if half else "it is not prepared"
        raise DataError(f"data set '{name}': {state} (looked in {root}).", mend)
    manifest = read_json(path, "the manifest", mend)
    if (
        not isinstance(manifest, dict)
        or manifest.get("schema") != SCHEMA
        or not isinstance(manifest.get("subsets"), dict)
    ):
        raise DataError(f"{path}: this is not a manifest of version {SCHEMA}.", f"Prepare again: {command}")
    return manifest


def prepared_names(folders: Folders) -> list[str]:
    """Names of all completely prepared data sets, in alphabetical order."""
    return sorted(path.parent.name for path in _manifests(folders))


def last_prepared(folders: Folders) -> str | None:
    """Name of the data set that was prepared (or found complete) last; None if there is none."""
    newest = max(_manifests(folders), key=lambda path: (path.stat().st_mtime_ns, path.parent.name), default=None)
    return newest.parent.name if newest else None


def _manifests(folders: Folders) -> Sequence[Path]:
    return sorted(folders.data.glob(f"*/{MANIFEST}")) if folders.data.is_dir() else []


@dataclass(frozen=True)
class DataSummary:
    """One row of `ovseg list datasets`.

    Attributes:
        state: "prepared", "unfinished", "missing", or "broken" (its manifest cannot be read).
        images: Subset → prepared pictures.
        expected: Subset → official count, None where unknown.
        fingerprint: Of the contents, None unless prepared.
    """

    name: str
    state: str
    images: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int | None] = field(default_factory=dict)
    fingerprint: str | None = None


def describe(folders: Folders, name: str) -> DataSummary:
    """Say whether a data set is prepared and how many pictures it holds, without looking at the pictures."""
    root = data_root(folders, name)
    if not (root / MANIFEST).exists():
        return DataSummary(name, "unfinished" if (root / "index").is_dir() else "missing")
    try:
        manifest = read_manifest(root)
    except DataError:
        return DataSummary(name, "broken")
    subsets = manifest["subsets"]
    return DataSummary(
        name,
        "prepared",
        {subset: int(facts["images"]) for subset, facts in subsets.items()},
        {subset: facts.get("expected") for subset, facts in subsets.items()},
        manifest.get("fingerprint"),
    )
