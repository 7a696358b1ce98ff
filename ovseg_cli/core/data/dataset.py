"""How prepared data is opened and read, picture by picture. Imports no torch until a picture is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovseg_cli.core.data import originals
from ovseg_cli.core.data.archive import DataFile
from ovseg_cli.core.data.commands import prepare_command
from ovseg_cli.core.data.images import load_image, load_label
from ovseg_cli.core.data.index import Entry, fingerprint, read_index
from ovseg_cli.core.data.labels import hide
from ovseg_cli.core.data.manifest import (
    SPEC,
    DataSummary,
    data_root,
    describe,
    last_prepared,
    prepared_names,
    read_manifest,
    total_fingerprint,
)
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_models import ClassSplit
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.errors import DataError, UsageError, unknown_name
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    from ovseg_cli.core.types import Sample

__all__ = ["DataSummary", "PreparedData", "SegmentationData", "describe", "last_prepared", "prepared_names"]


@dataclass(frozen=True)
class PreparedData:
    """A prepared data set.

    Attributes:
        spec: Its spec.
        root: Its folder.
        manifest: What `prepare` recorded about the whole.
    """

    spec: Spec
    root: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, spec: Spec, folders: Folders) -> "PreparedData":
        """Open a prepared data set.

        Raises:
            DataError: It is not prepared, only half, or its spec has changed since.
        """
        root = data_root(folders, spec.name)
        manifest = read_manifest(root, spec.name, prepare_command(spec))
        again = f"Prepare it again: {_again(spec, manifest)}"
        if manifest.get("spec_digest") != spec.digest():
            raise DataError(
                f"{root}: the spec of '{spec.name}' has changed since this was prepared (its classes, raw values or "
                "encoding).",
                again,
            )
        marks = {name: str(facts.get("fingerprint")) for name, facts in manifest["subsets"].items()}
        if total_fingerprint(marks) != manifest.get("fingerprint"):
            raise DataError(f"{root}: the manifest contradicts itself.", again)
        return cls(spec, root, manifest)

    @classmethod
    def open_name(cls, name: str, folders: Folders) -> "PreparedData":
        """Open a prepared data set by name, a user's own ones too, with the spec that it was prepared with."""
        root = data_root(folders, name)
        read_manifest(root, name)
        return cls.open(load_spec(root / SPEC).typed_as(name), folders)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all pictures and labels."""
        return str(self.manifest["fingerprint"])

    def subset_fingerprint(self, name: str) -> str:
        """Fingerprint of the pictures and labels of a subset, as they were prepared."""
        return str(self.manifest["subsets"][name]["fingerprint"])

    @property
    def subsets(self) -> dict[str, int]:
        """Subset → number of pictures."""
        return {name: int(facts["images"]) for name, facts in self.manifest["subsets"].items()}

    @property
    def shortfall(self) -> dict[str, tuple[int, int]]:
        """Subset → (pictures, official count) where there are fewer than the official ones."""
        facts = self.manifest["subsets"].items()
        return {n: (f["images"], f["expected"]) for n, f in facts if f.get("expected") and f["images"] < f["expected"]}

    def subset(self, name: str, split: ClassSplit | None = None, labels: bool = True) -> "SegmentationData":
        """Open a subset.

        Args:
            name: For instance "train" or "val".
            split: Give one only for training: the labels then hold seen classes alone, unseen and held-out pixels are
                `ignore_label`. Splits of the spec come from their own files; for any other the labels are masked when
                they are read.
            labels: False opens the pictures alone: no label is read or looked for, and the fingerprint knows of none.

        Raises:
            UsageError: There is no such subset, or no such class.
            DataError: A file is missing, or the index does not belong to the manifest.
        """
        if name not in self.subsets:
            raise unknown_name(f"subset of {self.spec.name}", name, self.subsets)
        entries = list(read_index(self.root, name).values())
        if fingerprint(entries) != self.subset_fingerprint(name):
            raise DataError(f"{self.root}: the index of subset '{name}' does not belong to the manifest.", self.mend)
        if not labels:
            entries, split = [entry.without_label() for entry in entries], None
        folder, hidden = "labels", tuple(self.spec.hidden_ids(split))
        if split is not None and all(entry.seen.get(split.id) == split.digest() for entry in entries):
            folder, hidden = f"labels-{split.id}", ()
        data = SegmentationData(self, name, tuple(entries), folder, hidden)
        data.require_files()
        return data

    @property
    def mend(self) -> str:
        """What a user does about missing or changed files."""
        return f"Prepare it again: {_again(self.spec.typed_as(self.spec.name), self.manifest)}"


def _again(spec: Spec, manifest: dict[str, Any]) -> str:
    return prepare_command(spec, known=isinstance(manifest.get("source"), str))


@dataclass(frozen=True)
class SegmentationData:
    """The pictures of one subset: `len`, indexing and iteration give `Sample`; works as a map-style torch data set.

    Attributes:
        data: The data set it belongs to.
        name: Name of the subset.
        entries: What is known about each picture without reading it (size, pixels of each class, caption).
        folder: Folder of the labels that are read, "labels" or "labels-SPLIT".
        hidden: Train ids that become `ignore_label` when a label is read.
    """

    data: PreparedData
    name: str
    entries: tuple[Entry, ...]
    folder: str = "labels"
    hidden: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> "Sample":
        """Read a picture.

        Returns:
            image (3, H, W) uint8 RGB, label (H, W) int64 or None.

        Raises:
            DataError: A file is missing, broken, or not of the recorded size.
        """
        import torch

        from ovseg_cli.core.types import Sample

        entry = self.entries[index]
        image, label = self.image(index), self.label(index)
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
        return Sample(entry.stem, pixels, None if label is None else torch.from_numpy(label.astype(np.int64)))

    def image(self, index: int) -> np.ndarray:
        """Read a picture alone, (H, W, 3) uint8 RGB."""
        entry = self.entries[index]
        picture = load_image(entry.image_file(self.data.root), upright=entry.upright)
        return self._sized(picture, entry, entry.image_file(self.data.root))

    def label(self, index: int) -> np.ndarray | None:
        """Read a label alone, (H, W) uint8 or uint16; None where the subset has none."""
        entry = self.entries[index]
        path = self.label_path(entry)
        if path is None:
            return None
        label = self._sized(load_label(path), entry, path)
        return hide(label, self.hidden, self.ignore_label)

    @property
    def names(self) -> list[str]:
        """Name of each picture, in order."""
        return [entry.stem for entry in self.entries]

    @property
    def captions(self) -> list[str | None]:
        """Caption of each picture; None where there is none."""
        return [entry.caption for entry in self.entries]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each picture."""
        return [(entry.height, entry.width) for entry in self.entries]

    @property
    def spec(self) -> Spec:
        """The label space."""
        return self.data.spec

    @property
    def ignore_label(self) -> int:
        """Value of pixels without a class."""
        return 255 if self.spec.ignore_label is None else self.spec.ignore_label

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the pictures and labels of this subset (of these pictures, after `select`)."""
        return fingerprint(self.entries)

    @property
    def has_labels(self) -> bool:
        """Whether every picture has a label."""
        return all(entry.label is not None for entry in self.entries)

    @property
    def has_masks(self) -> bool:
        """Whether every picture comes with masks without classes."""
        return bool(self.entries) and all(entry.masks is not None for entry in self.entries)

    def label_path(self, entry: Entry) -> Path | None:
        """File of a picture's label."""
        if entry.label is None:
            return None
        return self.data.root / self.folder / Path(entry.label).relative_to("labels")

    def select(self, indices: Sequence[int]) -> "SegmentationData":
        """Return the same subset with some pictures only."""
        if any(not -len(self) <= i < len(self) for i in indices):
            raise UsageError(f"subset '{self.name}' of {self.spec.name} has {len(self)} pictures.", "Choose fewer.")
        chosen = tuple(self.entries[i] for i in indices)
        return SegmentationData(self.data, self.name, chosen, self.folder, self.hidden)

    def require_files(self) -> None:
        """Check that every file is there and every label has its recorded bytes, without reading any.

        Raises:
            DataError: The first file that is missing or changed.
        """
        mend = self.data.mend
        originals.require_archives(self.entries, self.data.root, mend)
        for entry in self.entries:
            if entry.image_at is not None:
                continue
            image, label = self.data.root / entry.image, self.label_path(entry)
            if not image.exists():
                gone = f" (a link to {image.readlink()}, which is gone)" if image.is_symlink() else ""
                raise DataError(f"{image}: this picture is missing{gone}.", mend)
            if label is not None:
                self._require_label(label, entry, mend)

    def _require_label(self, path: Path, entry: Entry, mend: str) -> None:
        recorded = entry.files.get(str(path.relative_to(self.data.root).as_posix()))
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: this label is missing.", mend) from error
        if recorded and size != recorded[0]:
            raise DataError(f"{path}: this label has changed since it was prepared.", mend)

    def _sized(self, values: np.ndarray, entry: Entry, file: DataFile) -> np.ndarray:
        if values.shape[:2] != (entry.height, entry.width):
            raise DataError(
                f"{file}: {values.shape[1]} x {values.shape[0]} pixels, but {entry.width} x "
                f"{entry.height} when it was prepared.",
                self.data.mend,
            )
        return values
