"""A cache of proposals that holds none: it reads the masks of a data set where they lie, as if they were cached.

Its folder has a manifest like any other, so that a training, an export, `ovseg list proposals` find it; each picture's
entry is its JSON file in SA-1B's form, in a folder or inside a tar file.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ovseg_cli.core.data.archive import DataFile
from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.proposals.entry import Entry
from ovseg_cli.core.proposals.formats import check, read_sa1b
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.types import Proposals


class OriginalMasks(ProposalStore):
    """The masks of a data set's own files, picture by picture."""

    def __len__(self) -> int:
        return int(self.manifest.get("images") or 0)

    @property
    def complete(self) -> bool:
        """Whether every picture has masks: preparing has seen to that."""
        return True

    @property
    def mend(self) -> str:
        """What the user does about masks that are missing or broken."""
        return f"Download that archive or file again, then: ovseg prepare {self.manifest.get('data')}"

    def names(self) -> list[str]:
        """Names of the pictures, in the data set's order."""
        return list(self._places)

    def read(self, name: str, image: "Tensor | str | None" = None) -> "Proposals":
        """Read the masks of a picture; see `read_entry`."""
        return self.read_entry(name, image).proposals()

    def read_entry(self, name: str, image: "Tensor | str | None" = None) -> Entry:
        """Read and check the masks of a picture without decoding them, best `predicted_iou` first.

        Args:
            name: Its name in the subset.
            image: Kept in the entry where it is a digest; masks and picture belong together by their name.

        Raises:
            DataError: There is no such picture, or its masks are broken or of another size than the picture.
        """
        if name not in self._places:
            raise DataError(f"{self.folder}: there are no masks of picture '{name}'.", self.mend)
        file, size = self._places[name]
        masks = read_sa1b(file)[1]
        check(masks, size, f"picture '{name}'", "Download it again.")
        scores = np.array([mask.score for mask in masks], np.float32)
        order = np.argsort(-scores, kind="stable")[: self.manifest["settings"].get("max_masks")]
        digest = image if isinstance(image, str) else ""
        return Entry(name, digest, size, scores[order], tuple(masks[i].code for i in order))

    def write_entry(self, entry: Entry) -> None:
        """Refuse: originals are never written.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{self.folder}: these masks are the data set's own, they are only read.")

    def find(self, image: "Tensor") -> "Proposals":
        """Refuse: nobody has read all pictures, so pixels alone do not say which one it is.

        Raises:
            DataError: Always.
        """
        raise DataError(
            f"{self.folder}: a data set's own masks are found by the pictures' names, not by their pixels.",
            "Write them into a cache: --export FILE, then ovseg propose NAME --import FILE",
        )

    def is_whole(self, name: str) -> bool:
        """Whether there is such a picture."""
        return name in self._places

    @cached_property
    def _places(self) -> dict[str, tuple[DataFile, tuple[int, int]]]:
        """Picture → where its masks are, and its size."""
        data, subset = str(self.manifest.get("data")), str(self.manifest.get("subset"))
        root = self.folder.absolute().parents[2]
        prepared = PreparedData.open_name(data, Folders(data=root.parent, runs=root))
        pictures = prepared.subset(subset, labels=False)
        if prepared.subset_fingerprint(subset) != self.manifest.get("data_fingerprint"):
            what = f"{data} has been prepared anew since these masks were opened"
            raise DataError(f"{self.folder}: {what}.", f"Open them again: {self.command}")
        files: dict[str, tuple[DataFile, tuple[int, int]]] = {}
        for entry in pictures.entries:
            file = entry.masks_file(prepared.root)
            assert file is not None, "a manifest of this kind is only written where all pictures have masks"
            files[entry.stem] = (file, (entry.height, entry.width))
        return files
