"""Which masks are given to a method to be named? Ground truth, a cache, or those of a generator or run, made as we go.

All become binary masks of their picture's size: soft ones are brought there bilinearly and cut at one half.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.proposals import request as proposing
from ovseg_cli.core.proposals.caches import caches, find_cache
from ovseg_cli.core.proposals.store import MANIFEST, ProposalStore
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import CONFIG, is_run_path
from ovseg_cli.core.runtime import Folders
from ovseg_cli.core.types import Proposals, Sample

if TYPE_CHECKING:
    from ovseg_cli.core.data.dataset import SegmentationData
    from ovseg_cli.core.data.splits import DataChoice
    from ovseg_cli.core.proposals.base import ProposalGenerator

GROUND_TRUTH = "ground-truth"
"""One exact mask for each class of a picture; the generator of this name, which adds noise, goes by its cache."""


class MaskSource(ABC):
    """Where masks come from.

    Attributes:
        name: Short name.
    """

    name: str

    def prepare(self, device: torch.device, reporter: Reporter) -> None:
        """Build what makes the masks; called once before the first picture."""
        del device, reporter

    @property
    @abstractmethod
    def digest(self) -> str:
        """Fingerprint of all that the masks depend on, but the pictures; after `prepare`."""

    @abstractmethod
    def masks(self, sample: Sample) -> NDArray[np.bool_]:
        """Return the masks of a picture, (N, H, W)."""

    def facts(self) -> dict[str, Any]:
        """Return how the masks came about, as JSON values; after `prepare`."""
        return {"source": self.name, "digest": self.digest}

    @property
    def stem(self) -> str:
        """Part of the name of a result file; after `prepare`."""
        return f"{self.name}-{self.digest[:8]}"


class TruthMasks(MaskSource):
    """One mask for each class of the label map, by train id."""

    name = GROUND_TRUTH

    def __init__(self, ignore_label: int):
        self.ignore_label = ignore_label

    @property
    def digest(self) -> str:
        """Always the same: the labels belong to the data."""
        return digest_of(["ground-truth-masks-1"])

    @property
    def stem(self) -> str:
        """The name alone."""
        return self.name

    def masks(self, sample: Sample) -> NDArray[np.bool_]:
        """Return the regions of the classes, none where nothing is labelled."""
        assert sample.label is not None
        label = sample.label.numpy()
        ids = np.unique(label[label != self.ignore_label])
        return np.equal(label[None], ids[:, None, None])


class StoredMasks(MaskSource):
    """Masks of a cache."""

    def __init__(self, store: ProposalStore):
        self.store, self.name = store, store.generator

    @property
    def digest(self) -> str:
        """That of the cache."""
        return self.store.digest

    def facts(self) -> dict[str, Any]:
        """Add the cache's folder."""
        return {**super().facts(), "cache": str(self.store.folder)}

    def masks(self, sample: Sample) -> NDArray[np.bool_]:
        """Read a picture's masks.

        Raises:
            DataError: There is no entry, or one of another size.
        """
        proposals, size = self.store.read(sample.name), _size(sample)
        if tuple(proposals.size) != size:
            have, said = (f"{h} x {w}" for h, w in (proposals.size, size))
            raise DataError(
                f"{self.store.folder}: the masks of '{sample.name}' are {have}, the image is {said}.", self.store.mend
            )
        return binary_masks(proposals, size)


class MadeMasks(MaskSource):
    """Masks of a generator or of a host's run; read where the whole of them lies in the cache, else made as we go."""

    def __init__(self, plan: proposing.ProposePlan, folders: Folders):
        self.plan, self.folders, self.name = plan, folders, plan.name
        self.made: StoredMasks | ProposalGenerator | None = None

    def prepare(self, device: torch.device, reporter: Reporter) -> None:
        """Build the generator, unless its masks are cached."""
        generator = proposing.generator_of(self.plan, self.folders, reporter)(str(device))
        folder = self.plan.folder(self.folders, generator.weights, generator.vocabulary)
        self._digest = self.plan.digest(generator.weights, generator.vocabulary)
        self.made = generator
        if (folder / MANIFEST).is_file():
            store = ProposalStore.open(folder)
            self.made = StoredMasks(store) if store.complete else generator
        if self.made is generator:
            reporter.say(f"masks of {self.name} are made as they are named; to keep them: {self.plan.command()}")

    @property
    def digest(self) -> str:
        """That of the generator: settings, weights, vocabulary."""
        return self._digest

    def masks(self, sample: Sample) -> NDArray[np.bool_]:
        """Make or read a picture's masks."""
        assert self.made is not None, "prepare comes first"
        if isinstance(self.made, StoredMasks):
            return self.made.masks(sample)
        return binary_masks(self.made.generate(sample.image), _size(sample))


def find_source(
    typed: str | None,
    choice: "DataChoice",
    unseen: str | None,
    pictures: "SegmentationData",
    folders: Folders,
    reporter: Reporter,
) -> MaskSource:
    """Find the masks that `--proposals` means.

    Args:
        typed: None or "ground-truth", a cache's folder, a run of a host, or a generator.
        choice: Data set and class split.
        unseen: What `--unseen` said.
        pictures: The pictures that are scored.
        folders: Where caches and runs lie.
        reporter: Told what is taken.

    Raises:
        UsageError: There is no such generator, run or cache, or several caches; a run that makes no masks.
        DataError: A cache of other pictures.
    """
    if typed is None or typed == GROUND_TRUTH:
        return TruthMasks(pictures.ignore_label)
    is_run = is_run_path(typed) and (Path(typed) / CONFIG).is_file()
    cached = {store.generator for store in caches(folders, choice.spec.name, pictures.name)}
    if not is_run and (is_run_path(typed) or typed in cached):
        store = find_cache(typed, choice.spec.name, pictures.name, folders)
        store.require({"data_fingerprint": pictures.fingerprint})
        return StoredMasks(store)
    data = choice.spec.name if unseen else choice.label
    request = proposing.ProposeRequest(typed, data, pictures.name, unseen)
    return MadeMasks(proposing.resolve(request, folders, reporter), folders)


def binary_masks(proposals: Proposals, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return masks of a picture of `size` (H, W), (N, H, W): bilinear, above one half."""
    masks = proposals.probabilities()[:, None]
    if tuple(masks.shape[-2:]) != size:
        masks = torch.nn.functional.interpolate(masks, size, mode="bilinear", align_corners=False)
    return (masks[:, 0] > 0.5).numpy()


def _size(sample: Sample) -> tuple[int, int]:
    return int(sample.image.shape[-2]), int(sample.image.shape[-1])
