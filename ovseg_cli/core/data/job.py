"""What a preparation will do: which pictures, from where, made by what, and how much of it is left.

Nothing is written here; `prepare` and `--dry-run` share it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ovseg_cli.core.data.archive_list import Listing, list_archive
from ovseg_cli.core.data.check import is_training
from ovseg_cli.core.data.commands import download_command, prepare_command
from ovseg_cli.core.data.convert import Converter, Drawer, Maker
from ovseg_cli.core.data.encodings.read import LabelReader
from ovseg_cli.core.data.images import encode_png
from ovseg_cli.core.data.index import index_path
from ovseg_cli.core.data.labels import SeenLabels
from ovseg_cli.core.data.layout import (
    Found,
    downloads,
    find_layout,
    holds_masks,
    mark_of,
)
from ovseg_cli.core.data.manifest import data_root, read_manifest
from ovseg_cli.core.data.originals import Recorder
from ovseg_cli.core.data.pairing import Item, pair
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.data.records import Records, read_records
from ovseg_cli.core.data.source_tree import place_of
from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.specs import aliases, load_spec, spec_names
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.registry import GENERATORS, lookup
from ovseg_cli.core.reporter import Reporter, Silent
from ovseg_cli.core.runtime import Folders


@dataclass
class Job:
    """A preparation, planned.

    Attributes:
        spec: The label space.
        root: Folder that is written.
        key: Fingerprint of what makes the labels; entries of another key are made again.
        makers: Subset → what prepares one picture.
        items: Subset → its pictures.
        problems: Pictures that are broken already (no label, not there, listed twice).
        warnings: What is worth knowing.
        source: Folder that the pictures come from; None for drawn ones.
        layout: Id of the layout found there.
        generator_digest: Fingerprint of the generator.
        listings: What lies in the archives of the source.
    """

    spec: Spec
    root: Path
    key: str
    makers: dict[str, Maker] = field(default_factory=dict)
    items: dict[str, list[Item]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    source: Path | None = None
    layout: str | None = None
    generator_digest: str | None = None
    listings: list[Listing] = field(default_factory=list)

    def finished(self, subset: str) -> Records:
        """Records of earlier runs that still hold, in the order of the pictures."""
        maker, items = self.makers[subset], {item.stem: item for item in self.items[subset]}
        try:
            recorded = read_records(self.root, subset, self.key)
            hold = {e.stem for e in recorded if e.stem in items and maker.is_done(items[e.stem], e)}
        except DataError:  # a damaged index means that nothing is known; everything is made again
            return Records(index_path(self.root, subset))
        return recorded.only(stem for stem in items if stem in hold)


def make_job(
    spec: Spec,
    folders: Folders,
    source: Path | None = None,
    write: bool = True,
    link: bool = True,
    reporter: Reporter | None = None,
) -> Job:
    """Plan a preparation.

    Args:
        spec: The label space.
        folders: Where prepared data lies.
        source: Folder of the original files, or an archive of them; None takes that of the last preparation. Drawn data
            has none.
        write: False only judges.
        link: Link pictures to their source; False copies them.
        reporter: Shows that archives are read.

    Raises:
        DataError: No source is known, it is missing, no known layout is in it, or its archives are not unpacked.
        UsageError: The source is the prepared folder itself, or a spec of the user's own has the name of a shipped one
            and means something else.
    """
    require_own_name(spec)
    if spec.generator is not None:
        return _drawn(spec, folders, source, write)
    root = data_root(folders, spec.name)
    source = source or recorded_source(spec, folders)
    if source is None:
        raise _no_source(spec)
    if source.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            f"--source {source} lies inside {root}, which ovseg writes; originals are never overwritten.",
            "Move the originals to a folder of their own.",
        )
    found = find_layout(spec, place_of(spec, folders, source))
    found = replace(found, base=found.base.absolute())  # records hold paths: however the folder is typed, they agree
    return _converted(spec, root, source, found, write, link, reporter or Silent())


def estimate_bytes(job: Job, todo: dict[str, list[Item]]) -> int:
    """Estimate what the pictures that are left will take on disk: labels, seen-only labels, images unless linked."""
    return sum(size * len(items) for items, size in _samples(job, todo))


def _samples(job: Job, todo: dict[str, list[Item]]) -> Iterator[tuple[list[Item], int]]:
    """Yield a subset's items and the mean bytes of one, measured on a few of them."""
    for subset, items in todo.items():
        maker, some = job.makers[subset], items[:: max(1, len(items) // 8)][:8]
        sizes = [_bytes_of(maker, item) for item in some]
        yield items, sum(sizes) // max(1, len(sizes))


def _bytes_of(maker: Maker, item: Item) -> int:
    if isinstance(maker, Recorder):
        return 0
    copies = 1 + len(maker.seen)
    if isinstance(maker, Drawer):
        image, label, _ = maker.generator.scene(maker.subset, item.index)
        return len(encode_png(image)) + copies * len(encode_png(label))
    sizes = [Path(path).stat().st_size if path and Path(path).exists() else 0 for path in (item.image, item.label)]
    if item.records is not None and item.records.file == item.label:  # the file holds the labels of many
        sizes[1] = sum(end - start for start, end in item.records.places)
    copied = isinstance(maker, Converter) and not maker.link
    return sizes[0] * copied + sizes[1] * copies


def _seen_labels(spec: Spec, subset: str) -> tuple[SeenLabels, ...]:
    if not is_training(subset):
        return ()
    return tuple(SeenLabels(s.id, s.digest(), tuple(spec.hidden_ids(s))) for s in spec.class_splits)


def _drawn(spec: Spec, folders: Folders, source: Path | None, write: bool) -> Job:
    if source is not None:
        raise UsageError(f"--source {source}: {spec.name} is drawn by the program.", "Leave --source out.")
    generator = lookup(GENERATORS, "generator", str(spec.generator)).load()()
    digest = generator.digest()
    root = data_root(folders, spec.name)
    job = Job(spec, root, digest_of(["key-1", spec.digest(), digest]), generator_digest=digest)
    for subset, count in generator.subsets.items():
        job.items[subset] = [Item(f"{index:05d}", index=index) for index in range(count)]
        job.makers[subset] = Drawer(
            root, subset, _ignore_label(spec), _dtype(spec), spec.num_classes, _seen_labels(spec, subset), write,
            generator, digest,
        )  # fmt: skip
    return job


def _converted(spec: Spec, root: Path, source: Path, found: Found, write: bool, link: bool, reporter: Reporter) -> Job:
    key = digest_of(["key-1", spec.digest(), found.layout.id])
    job = Job(spec, root, key, source=source.absolute(), layout=found.layout.id)
    for subset in found.subsets:
        listings = _listings(found, subset, root, reporter)
        pairing = pair(found, subset, listings, spec)
        job.listings.extend(listings)
        job.problems.extend(pairing.problems)
        job.warnings.extend(pairing.warnings)
        job.items[subset] = pairing.items
        job.makers[subset] = _maker(spec, root, subset, found, write, link)
    absent = [name for name in found.layout.subsets if name not in (*found.subsets, *spec.subsets)]
    job.warnings.extend(f"{spec.name}: {_mark(found, name)} is not there, so no subset '{name}'." for name in absent)
    return job


def _listings(found: Found, subset: str, root: Path, reporter: Reporter) -> list[Listing]:
    pattern = found.layout.subsets[subset].archives
    archives = sorted(found.base.glob(pattern)) if pattern else []
    tracked = reporter.track(archives, f"archives of {subset}", len(archives)) if archives else ()
    return [list_archive(path, root) for path in tracked]


def _maker(spec: Spec, root: Path, subset: str, found: Found, write: bool, link: bool) -> Maker:
    common = (root, subset, _ignore_label(spec), _dtype(spec), spec.num_classes, _seen_labels(spec, subset), write)
    if holds_masks(spec):
        return Recorder(*common)
    encoding = spec.encoding_of(found.layout)
    return Converter(*common, spec.raw_table(found.layout), LabelReader(encoding), spec.name, link)


def _mark(found: Found, subset: str) -> Path:
    return found.base / mark_of(found.layout.subsets[subset])


def _ignore_label(spec: Spec) -> int:
    return 255 if spec.ignore_label is None else spec.ignore_label


def _dtype(spec: Spec) -> str:
    return spec.label_dtype or "uint8"


def require_own_name(spec: Spec) -> None:
    """Keep `datasets/NAME` and every table that says NAME for what the shipped spec of that name means."""
    if spec.typed == spec.name or spec.name not in {*spec_names(), *aliases()}:
        return
    shipped = load_spec(spec.name)
    if shipped.name != spec.name or shipped.digest() != spec.digest():
        what = f"{spec.typed}: '{spec.name}' is the name of a shipped data set, and this spec differs from it"
        raise UsageError(
            f"{what} (classes, raw values, ignore label or encodings).",
            f'Give yours a name of its own, for instance name = "{spec.name}-mine".',
        )


def recorded_source(spec: Spec, folders: Folders) -> Path | None:
    """Folder of the original files in the last preparation of a data set; None where there was none."""
    try:
        recorded = read_manifest(data_root(folders, spec.name)).get("source")
    except DataError:
        return None
    return Path(recorded) if isinstance(recorded, str) else None


def _no_source(spec: Spec) -> DataError:
    pages = downloads(spec)
    fetched = any(not part.is_manual for part in spec.downloads)
    itself = f"Let it fetch them: {download_command(spec)}. Or fetch them" if fetched else "Fetch them"
    return DataError(
        f"{spec.name}: {'no folder of original files was given' if pages else 'the folder of its files is not known'}.",
        f"{f'{itself} ({pages}), then run' if pages else 'Run'}: {prepare_command(spec)}",
    )
