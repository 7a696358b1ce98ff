"""The cache of one generator's proposals for one subset: a folder with one checked file a picture.

datasets/NAME/proposals/GENERATOR-KEY8/SUBSET/manifest.json   what made them: settings, weights, data, vocabulary
                                              entries/SS/NAME~IMAGE16.masks   one picture each, whole or absent

File names hold the picture's name and the beginning of the fingerprint of its pixels, so there is no index that could
be out of date: whatever was killed when, what lies in the folder is what there is. SS spreads the files over folders.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from ovseg_cli.core.data.rle import RleError
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import atomic_write, digest_of, explain_os_error, make_folder, read_json, write_json
from ovseg_cli.core.proposals import entry as entries
from ovseg_cli.core.proposals.entry import Entry, image_digest

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.types import Proposals

SCHEMA = 1
MANIFEST = "manifest.json"
SUFFIX = ".masks"
ORIGINALS = "originals"
"""Under `reads` in the manifest of a cache that holds nothing and reads the data set's own masks (sa1b_store.py)."""
_KEY = ("generator", "settings", "weights", "vocabulary", "labels", "data", "subset", "data_fingerprint")
_LONGEST_STEM = 180  # bytes; file systems allow 255, and the fingerprint, suffix and a temporary name come on top


class ProposalStore:
    """Proposals of the pictures of one subset, read and written one picture at a time.

    Args:
        folder: The folder.
        manifest: Its manifest, as read.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder, self.manifest = Path(folder), manifest
        self._listed: dict[str, Path] | None = None
        self._by_image: dict[str, str] = {}

    @classmethod
    def create(cls, folder: Path, key: dict[str, Any]) -> "ProposalStore":
        """Open a cache, or begin it.

        Args:
            folder: `…/proposals/GENERATOR-KEY8/SUBSET`.
            key: What the masks depend on: `generator` and `settings`; `weights`, `vocabulary`, `labels`, fingerprints
                or None; `data`, `subset` and `data_fingerprint`; and besides, `images`, how many pictures the subset
                has, and `command`, what makes them.

        Raises:
            DataError: The folder holds proposals that were made otherwise, or of data that has changed since.
            MachineError: The folder cannot be made.
        """
        folder = Path(folder)
        if (folder / MANIFEST).exists():
            store = cls.open(folder)
            store.require(key)
            return store
        make_folder(folder / "entries")
        write_json(folder / MANIFEST, {"schema": SCHEMA, "kind": "ovseg-proposals", **key})
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "ProposalStore":
        """Open a cache.

        Raises:
            DataError: There is none, or its manifest is broken or of another version.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such cache of proposals.", "See: ovseg list proposals")
        if not (folder / "entries").is_dir():
            raise DataError(f"{folder}: this folder is no cache of proposals.", "See: ovseg list proposals")
        manifest = read_json(folder / MANIFEST, "the manifest of a cache of proposals", "See: ovseg list proposals")
        is_ours = isinstance(manifest, dict) and manifest.get("kind") == "ovseg-proposals"
        if not is_ours or manifest.get("schema") != SCHEMA or not {"generator", "settings"} <= manifest.keys():
            raise DataError(
                f"{folder / MANIFEST}: this is not the manifest of a cache of proposals of version {SCHEMA}.",
                "Remove the folder and make them again with ovseg propose.",
            )
        if manifest.get("reads") == ORIGINALS:
            from ovseg_cli.core.proposals.sa1b_store import OriginalMasks

            return OriginalMasks(folder, manifest)
        return cls(folder, manifest)

    def require(self, key: dict[str, Any]) -> None:
        """Check that a cache is what it should be; only the keys that are given count.

        Raises:
            DataError: The data has changed since, or another part differs.
        """
        wanted = {name: _plain(key[name]) for name in _KEY if name in key}
        differs = [name for name, value in wanted.items() if _plain(self.manifest.get(name)) != value]
        if not differs:
            return
        if differs == ["data_fingerprint"]:
            what = f"the pictures or labels of {self.manifest.get('data')} have changed since these proposals were made"
        else:
            what = f"these proposals were made with another {' and another '.join(differs)}"
        raise DataError(f"{self.folder}: {what}.", f"Make them anew: {self.command} --force")

    @property
    def command(self) -> str:
        """What the user types to make these proposals."""
        return str(self.manifest.get("command") or f"ovseg propose {self.generator}")

    @property
    def mend(self) -> str:
        """What the user does about a missing or broken entry."""
        return f"What is missing or broken is made again by: {self.command}"

    @property
    def generator(self) -> str:
        """Name of the generator, as typed."""
        return str(self.manifest["generator"])

    @property
    def digest(self) -> str:
        """Fingerprint of all that the masks depend on."""
        parts = [f"{name}={_plain(self.manifest.get(name))}" for name in _KEY]
        return digest_of([f"proposal-store-{SCHEMA}", *parts])

    @property
    def images(self) -> int | None:
        """How many pictures the subset has; None where nobody said."""
        count = self.manifest.get("images")
        return int(count) if count is not None else None

    @property
    def complete(self) -> bool:
        """Whether every picture of the subset has its entry."""
        return self.images is not None and len(self._files) >= self.images

    def __len__(self) -> int:
        """How many pictures have an entry."""
        return len(self._files)

    def names(self) -> list[str]:
        """Names of the pictures that have an entry, in alphabetical order."""
        return sorted(self._files)

    def write(self, name: str, image: "Tensor | str", proposals: "Proposals") -> None:
        """Keep the proposals of a picture, whole or not at all; an older entry of it is replaced.

        Args:
            name: Its name in the subset.
            image: The picture, (3, H, W) uint8, or its `image_digest`.
            proposals: None, one or many masks.

        Raises:
            MachineError: The disk is full, the folder read-only, and so on.
        """
        digest = image if isinstance(image, str) else image_digest(image)
        self.write_entry(Entry.of(name, digest, proposals))

    def write_entry(self, entry: Entry) -> None:
        """Keep an encoded entry; see `write`."""
        path = self._path(entry.name, entry.image)
        with atomic_write(path, sync=False) as stream:
            stream.write(entry.to_bytes())
        for other in self._entries_of(entry.name):
            if other != path:
                other.unlink(missing_ok=True)
        if self._listed is not None:
            self._add(self._listed, path, entry.name)

    def read(self, name: str, image: "Tensor | str | None" = None) -> "Proposals":
        """Read the proposals of a picture.

        Args:
            name: Its name in the subset.
            image: The picture, (3, H, W) uint8, or its `image_digest`: an entry of another picture is refused.

        Raises:
            DataError: There is no entry, it is broken, or it belongs to another picture; the message names it, and the
                command that mends it.
        """
        entry, path = self._read(name, image)
        with _breakage(path, self.mend):
            return entry.proposals()

    def read_entry(self, name: str, image: "Tensor | str | None" = None) -> Entry:
        """Read and check an entry without decoding its masks; see `read`."""
        entry, path = self._read(name, image)
        with _breakage(path, self.mend):
            entry.check()
        return entry

    def _read(self, name: str, image: "Tensor | str | None") -> tuple[Entry, Path]:
        path = self._files.get(name) or self._refreshed().get(name)
        if path is None:
            raise DataError(f"{self.folder}: there are no proposals of picture '{name}'.", self.mend)
        entry = entries.parse(self._bytes(path), str(path), self.mend)
        self._require_picture(entry, name, image, path)
        return entry, path

    def find(self, image: "Tensor") -> "Proposals":
        """Read the proposals of a picture whose name is not known, by its pixels.

        Args:
            image: (3, H, W) uint8, as the data set holds it.

        Raises:
            DataError: No entry is of this picture, or it is broken.
        """
        digest = image_digest(image)
        if not self._files or digest[:16] not in self._by_image:
            self._refreshed()
        name = self._by_image.get(digest[:16])
        if name is None:
            height, width = image.shape[-2:]
            raise DataError(
                f"{self.folder}: there are no proposals of this picture ({width} x {height} pixels).", self.mend
            )
        return self.read(name, digest)

    def is_whole(self, name: str) -> bool:
        """Whether a picture has an entry with the right checksum, however lately it was written; masks stay encoded."""
        path = self._listed.get(name) if self._listed is not None else None
        found = [path] if path else self._entries_of(name)
        try:
            return len(found) == 1 and entries.is_whole(found[0].read_bytes())
        except OSError:
            return False

    def clear(self) -> None:
        """Remove all entries and the manifest, the manifest first: what is left is then no cache."""
        try:
            (self.folder / MANIFEST).unlink(missing_ok=True)
            for path in self._entry_files():
                path.unlink(missing_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.folder) from error
        self._listed = None

    def sweep(self) -> None:
        """Remove the temporary files that a killed process left; only while no other process writes here."""
        for path in (self.folder / "entries").glob("*/.*.part"):
            path.unlink(missing_ok=True)

    def _path(self, name: str, image: str) -> Path:
        return self._shard(name) / f"{_stem(name)}~{image[:16]}{SUFFIX}"

    def _entries_of(self, name: str) -> list[Path]:
        """Files of a picture as they are on the disk now: one, or none; two after a kill while it was replaced."""
        return list(self._shard(name).glob(f"{_glob(_stem(name))}~*{SUFFIX}"))

    def _shard(self, name: str) -> Path:
        return self.folder / "entries" / hashlib.sha256(name.encode("utf-8")).hexdigest()[:2]

    def _bytes(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: this entry cannot be read ({error.strerror}).", self.mend) from error

    def _require_picture(self, entry: Entry, name: str, image: "Tensor | str | None", path: Path) -> None:
        if entry.name != name:
            raise DataError(f"{path}: this entry is of picture '{entry.name}', not of '{name}'.", self.mend)
        if image is None:
            return
        digest = image
        if not isinstance(image, str):
            height, width = image.shape[-2:]
            if entry.size != (height, width):
                have = f"{entry.size[0]} x {entry.size[1]}"
                raise DataError(f"{path} holds masks of {have}, the image is {height} x {width}.", self.mend)
            digest = image_digest(image)
        if entry.image != digest:
            raise DataError(f"{path}: these proposals are of another picture than the '{name}' given.", self.mend)

    @property
    def _files(self) -> dict[str, Path]:
        """Picture → file, listed once."""
        if self._listed is None:
            found: dict[str, Path] = {}
            self._by_image = {}
            for path in self._entry_files():
                stem = path.name.removesuffix(SUFFIX).rpartition("~")[0]
                self._add(found, path, unquote(stem) if not stem.startswith("%%") else _name_inside(path))
            self._listed = found
        return self._listed

    def _add(self, listed: dict[str, Path], path: Path, name: str) -> None:
        listed[name] = path
        self._by_image[path.name.removesuffix(SUFFIX).rpartition("~")[2]] = name

    def _refreshed(self) -> dict[str, Path]:
        """List the folder again: another process may have written since."""
        self._listed = None
        return self._files

    def _entry_files(self) -> Iterator[Path]:
        try:
            shards = sorted(os.scandir(self.folder / "entries"), key=lambda shard: shard.name)
        except FileNotFoundError:
            return
        for shard in shards:
            if shard.is_dir():
                for file in os.scandir(shard.path):
                    if file.name.endswith(SUFFIX) and not file.name.startswith("."):
                        yield Path(file.path)


def _stem(name: str) -> str:
    """Return a picture's name as a file may be called; of a long one its hash, and the name is read from the file."""
    stem = quote(name, safe=" !#$&'()+,;=@[]{}^`").replace("~", "%7E")
    if stem.startswith(".") or len(stem.encode("utf-8")) > _LONGEST_STEM:
        return f"%%{hashlib.sha256(name.encode('utf-8')).hexdigest()[:40]}"
    return stem


def _glob(stem: str) -> str:
    return "".join(f"[{c}]" if c in "[]*?" else c for c in stem)


def _name_inside(path: Path) -> str:
    with open(path, "rb") as stream:
        return str(entries.header_of(stream.read(4096)).get("name"))


@contextlib.contextmanager
def _breakage(path: Path, mend: str) -> Iterator[None]:
    try:
        yield
    except RleError as error:
        raise DataError(f"{path}: this entry is broken: {error}.", mend) from error


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
