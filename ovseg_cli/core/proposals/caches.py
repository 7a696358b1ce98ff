"""Which caches of proposals are there, and which one is meant? Imports no torch."""

from collections.abc import Iterator
from pathlib import Path

from ovseg_cli.core import registry
from ovseg_cli.core.errors import DataError, UsageError, unknown_name
from ovseg_cli.core.proposals.store import MANIFEST, ProposalStore
from ovseg_cli.core.runs import is_run_path
from ovseg_cli.core.runtime import Folders

FOLDER = "proposals"


def cache_folder(folders: Folders, data: str, generator: str, digest: str, subset: str) -> Path:
    """Return `datasets/DATA/proposals/GENERATOR-KEY8/SUBSET`."""
    return folders.data / data / FOLDER / f"{generator}-{digest[:8]}" / subset


def caches(folders: Folders, data: str | None = None, subset: str | None = None) -> Iterator[ProposalStore]:
    """Yield every readable cache below the data folder, by data set, generator and subset."""
    pattern = f"{data or '*'}/{FOLDER}/*/{subset or '*'}/{MANIFEST}"
    for path in sorted(folders.data.glob(pattern)) if folders.data.is_dir() else ():
        try:
            yield ProposalStore.open(path.parent)
        except DataError:
            continue  # `ovseg propose` says what is wrong with it; the others must not be hidden


def find_cache(text: str, data: str, subset: str, folders: Folders) -> ProposalStore:
    """Find the cache that `--proposals` means, for one subset of a data set.

    Args:
        text: The folder of a cache (with a slash; that of one subset, or the one above, which holds all subsets of one
            generator), or the name of a generator that has one cache for this subset.
        data: Name of the data set.
        subset: Name of the subset.
        folders: Where prepared data lies.

    Raises:
        UsageError: There is no such generator, or it has several caches.
        DataError: There is no such cache, or it is of another data set or subset.
    """
    if is_run_path(text):
        return _cache_at(Path(text), data, subset)
    found = [store for store in caches(folders, data, subset) if store.generator == text]
    if not found:
        known = {store.generator for store in caches(folders, data)} | set(registry.PROPOSALS)
        if text not in known:
            raise unknown_name("generator of proposals", text, known)
        raise DataError(
            f"there are no proposals of {text} for {data}, subset '{subset}'.",
            f"Make them: ovseg propose {text} --data {data} --subset {subset}",
        )
    if len(found) > 1:
        places = ", ".join(str(store.folder) for store in found)
        raise UsageError(f"'{text}' has {len(found)} caches for {data} {subset}: {places}.", "Name the folder of one.")
    return found[0]


def _cache_at(path: Path, data: str, subset: str) -> ProposalStore:
    store = ProposalStore.open(path if (path / MANIFEST).is_file() else path / subset)
    have = store.manifest.get("data"), store.manifest.get("subset")
    if have != (data, subset):
        raise DataError(
            f"{store.folder}: these proposals are of {have[0]}, subset '{have[1]}', not of {data}, subset '{subset}'.",
            "See: ovseg list proposals",
        )
    return store
