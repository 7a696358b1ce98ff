"""Where do the masks of a figure come from? Those that a run learned from: read from a cache, else made."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.proposals.base import ProposalGenerator
from ovseg_cli.core.proposals.caches import caches, find_cache
from ovseg_cli.core.proposals.entry import Entry, image_digest
from ovseg_cli.core.proposals.filling import read_picture
from ovseg_cli.core.proposals.request import ProposePlan, ProposeRequest, generator_of, resolve
from ovseg_cli.core.proposals.session import propose
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.report.figure_inputs import FigureRequest
from ovseg_cli.core.report.prompt_models import PromptModel
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import CONFIG, LIVE, is_run_path
from ovseg_cli.core.runtime import Folders, open_runtime

LIVE_GENERATOR = "dino"
"""What makes the masks of each training crop anew, where a training says `live`."""


class CachedMasks:
    """Masks of one cache, which must have those of each picture."""

    def __init__(self, store: ProposalStore):
        self.store, self.name = store, store.generator

    def entry(self, data: SegmentationData, place: int) -> Entry:
        """Return the masks of a picture of `data`.

        Raises:
            DataError: The cache has none of it, or they are broken.
        """
        image, _ = read_picture(data, place, False)
        return self.store.read_entry(data.names[place], image)

    def has_all(self, data: SegmentationData) -> bool:
        """Whether the cache has the masks of every picture."""
        return all(self.store.is_whole(name) for name in data.names)


class GeneratedMasks:
    """Masks of a generator: read where a cache of these very settings has them, else made and not kept.

    Args:
        plan: What `ovseg propose` would do.
        folders: Where data and caches lie.
        reporter: Told what is loaded.
    """

    def __init__(self, plan: ProposePlan, folders: Folders, reporter: Reporter):
        self.plan, self.folders, self.reporter = plan, folders, reporter
        self.name = plan.name

    @cached_property
    def _store(self) -> ProposalStore | None:
        subset, data = self.plan.request.subset, self.plan.data.spec.name
        key: dict[str, Any] = {
            "settings": self.plan.config.model_dump(mode="json"),
            "labels": self.plan.labels,
            "version": self.plan.generator_class.version,
            "data_fingerprint": self._pictures.data.subset_fingerprint(subset),
        }
        if self.plan.model is not None:
            key |= {"weights": self._generator.weights, "vocabulary": self._generator.vocabulary}
        for store in caches(self.folders, data, subset):
            if store.generator == self.name and all(store.manifest.get(name) == value for name, value in key.items()):
                return store
        return None

    @cached_property
    def _pictures(self) -> SegmentationData:
        return self.plan.pictures(self.folders)

    @cached_property
    def _generator(self) -> ProposalGenerator:
        device = "cpu"
        if self.plan.generator_class.needs_weights:
            device = str(open_runtime(self.plan.request.gpus).device)
        return generator_of(self.plan, self.folders, self.reporter)(device)

    def entry(self, data: SegmentationData, place: int) -> Entry:
        """Return the masks of a picture of `data`, which is a part of the subset.

        Raises:
            MachineError: The generator's weights are missing.
        """
        name = data.names[place]
        if self._store is not None and self._store.is_whole(name):
            return self._store.read_entry(name, read_picture(data, place, False)[0])
        own = self._pictures.names.index(name)
        image, label = read_picture(self._pictures, own, self._generator.needs_labels)
        return Entry.of(name, image_digest(image), self._generator.generate(image, label))

    def has_all(self, data: SegmentationData) -> bool:
        """Whether a cache has the masks of every picture, so that none need be made."""
        store = self._store
        return store is not None and all(store.is_whole(name) for name in data.names)


MaskSource = CachedMasks | GeneratedMasks


def mask_source(
    request: FigureRequest, model: PromptModel, data: SegmentationData, folders: Folders, reporter: Reporter
) -> MaskSource:
    """Find the masks that a request names, else those that a run learned from.

    Args:
        request: The request.
        model: The run's model.
        data: Pictures of the subset that masks are wanted of.
        folders: Where data and runs lie.
        reporter: Told what is loaded.

    Raises:
        UsageError: There is no such generator, run or setting.
        DataError: There is no such cache, or it is of other data.
    """
    proposals, settings = _named(request, model.training)
    if is_run_path(proposals) and not (Path(proposals) / CONFIG).is_file():
        return CachedMasks(find_cache(proposals, data.spec.name, data.name, folders))
    label, unseen = (request.data, None) if request.data else model.run.data
    plan = resolve(
        ProposeRequest(proposals, label, data.name, unseen, dict(settings), gpus=request.gpus), folders, reporter
    )
    if plan.generator_class.reads_originals:
        return CachedMasks(propose(plan, folders, reporter).store)
    return GeneratedMasks(plan, folders, reporter)


def _named(request: FigureRequest, training: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the masks' source and its settings."""
    if request.proposals:
        return request.proposals, {}
    return (LIVE_GENERATOR if training.proposals == LIVE else training.proposals), training.proposal_settings
