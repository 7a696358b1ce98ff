"""Masks that were made before are read, not made again, when a method is scored on the pictures that they are of."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.methods.build import ModelChoice
from ovseg_cli.core.methods.sources import GeneratorSource, StoreSource
from ovseg_cli.core.proposals.base import ProposalGenerator
from ovseg_cli.core.proposals.caches import caches
from ovseg_cli.core.proposals.store import MANIFEST, ProposalStore
from ovseg_cli.core.registry import METHODS
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders


def without_source(choice: ModelChoice) -> ModelChoice:
    """The same model with a generator that is never asked: masks are given, so a lost cache or host is no matter."""
    if "proposals" not in METHODS[choice.method].load().Config.model_fields:
        return choice
    return replace(choice, settings={**choice.settings, "proposals": "superpixels", "proposal_settings": {}})


@contextmanager
def cached_masks(method: Any, data: SegmentationData, folders: Folders, reporter: Reporter) -> Iterator[None]:
    """While the block runs, a method whose masks come from a generator reads them from a whole cache, if there is one.

    A method that learned from the cache of a training subset reads that of the scored subset, which lies beside it.

    Args:
        method: Any method; one without a generator is left as it is.
        data: The pictures that are scored.
        folders: Where caches lie.
        reporter: Told which cache is read.

    Raises:
        DataError: There are masks of other subsets only.
    """
    source = getattr(method, "source", None)
    store = _cache_of(source.generator, data, folders) if isinstance(source, GeneratorSource) else None
    if isinstance(source, StoreSource):
        store = _beside(source.stores, data)
    if store is None:
        yield
        return
    reporter.say(f"masks are read from {store.folder}")
    method.set_source(StoreSource([store]))
    try:
        yield
    finally:
        method.set_source(source)


def _beside(stores: Sequence[ProposalStore], data: SegmentationData) -> ProposalStore | None:
    """The cache of the scored subset: one of those given, or one in the folder above."""
    subsets = [store.manifest.get("subset") for store in stores]
    if data.name in subsets or None in subsets:
        return None
    for store in stores:
        folder = store.folder.parent / data.name
        if (folder / MANIFEST).is_file():
            return ProposalStore.open(folder)
    store = stores[0]
    raise DataError(
        f"{store.folder}: these are masks of subset '{subsets[0]}', not of '{data.name}'.",
        f"Make those: {_for_subset(store.command, str(subsets[0]), data.name)}   or name others: --proposals GENERATOR",
    )


def _for_subset(command: str, old: str, new: str) -> str:
    """The command that made a cache, for another subset."""
    return command.replace(f"--subset {old}", f"--subset {new}")


def _cache_of(generator: ProposalGenerator, data: SegmentationData, folders: Folders) -> ProposalStore | None:
    key = {
        "generator": generator.name,
        "settings": generator.config.model_dump(mode="json"),
        "weights": generator.weights,
        "version": generator.version,
        "data_fingerprint": data.fingerprint,
    }
    for store in caches(folders, data.spec.name, data.name):
        if store.complete and all(store.manifest.get(name) == value for name, value in key.items()):
            return store
    return None
