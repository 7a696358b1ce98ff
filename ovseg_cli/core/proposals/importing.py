"""How masks that were made elsewhere come into the cache, checked one by one against the pictures.

The cache is named as the user names the masks, and its key holds a fingerprint of what was imported. An interrupted
import begins anew, since a file may return to a picture at any time.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovseg_cli.core.data.dataset import PreparedData
from ovseg_cli.core.errors import DataError, UsageError, unknown_name
from ovseg_cli.core.files import digest_of, sha256_file
from ovseg_cli.core.proposals.caches import cache_folder
from ovseg_cli.core.proposals.entry import Entry, image_digest
from ovseg_cli.core.proposals.filling import Filled
from ovseg_cli.core.proposals.formats import Mask, check, read_coco, read_sa1b
from ovseg_cli.core.proposals.locks import Locks
from ovseg_cli.core.proposals.request import ProposeRequest, choose_data
from ovseg_cli.core.proposals.session import Proposed
from ovseg_cli.core.proposals.store import MANIFEST, ProposalStore
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    from ovseg_cli.core.data.dataset import SegmentationData
    from ovseg_cli.core.data.specs import DataChoice

_FORMS = {"coco": "a COCO result file", "sa-1b": "a folder of SA-1B files"}


@dataclass(frozen=True)
class ImportPlan:
    """An import whose names all exist.

    Attributes:
        name: What the masks are called.
        data: The data set.
        subset: Its subset.
        source: File or folder.
        form: "coco" or "sa-1b".
        allow_missing: How many pictures may be without masks in the source.
        images: Pictures of the subset.
    """

    name: str
    data: "DataChoice"
    subset: str
    source: Path
    form: str
    allow_missing: int
    images: int

    @property
    def command(self) -> str:
        """What the user types to import them."""
        where = f"--data {self.data.spec.name} --subset {self.subset}"
        return f"ovseg propose {self.name} {where} --import {self.source} --format {self.form}"

    def document(self, folders: Folders) -> dict[str, Any]:
        """The plan for `--dry-run`."""
        return {
            "schema": 1,
            "generator": self.name,
            "data": self.data.label,
            "subset": self.subset,
            "folder": str(cache_folder(folders, self.data.spec.name, self.name, "KEY8", self.subset)),
            "import": str(self.source),
            "format": self.form,
            "images": self.images,
        }


def resolve(
    request: ProposeRequest, source: Path, form: str, allow_missing: int, folders: Folders, reporter: Reporter
) -> ImportPlan:
    """Check every name of an import.

    Raises:
        UsageError: A name that no folder can have, an option that has no meaning here, or no such source.
        DataError: The data set is not prepared.
    """
    name = request.generator
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise UsageError(f"'{name}': a name for imported masks has letters, digits, - and _ only.")
    if request.settings or request.limit or request.workers or request.gpus:
        raise UsageError("--set, --config, --limit, --workers and --gpus have no meaning with --import.")
    if not source.exists():
        raise UsageError(f"--import {source}: there is no such {'folder' if form == 'sa-1b' else 'file'}.")
    if source.is_dir() != (form == "sa-1b"):
        what = "a folder" if source.is_dir() else "a file"
        raise UsageError(f"--import {source}: this is {what}, --format {form} needs {_FORMS[form]}.")
    data = choose_data(request.data, request.unseen, folders, reporter)
    prepared = PreparedData.open(data.spec, folders)
    if request.subset not in prepared.subsets:
        raise unknown_name(f"subset of {data.spec.name}", request.subset, prepared.subsets)
    return ImportPlan(name, data, request.subset, source, form, allow_missing, prepared.subsets[request.subset])


def import_masks(plan: ImportPlan, folders: Folders, reporter: Reporter) -> Proposed:
    """Import masks into the cache.

    Raises:
        DataError: The source is broken, its masks have another size than their picture, or too many pictures have none.
        MachineError: The disk is full, or another process writes the same cache.
    """
    started = time.monotonic()
    pictures = PreparedData.open(plan.data.spec, folders).subset(plan.subset)
    content = _content_digest(plan.source)
    folder = cache_folder(folders, plan.data.spec.name, plan.name, digest_of([plan.form, content]), plan.subset)
    with Locks(folder) as locks:
        locks.require_alone("importing")
        if (folder / MANIFEST).exists():
            ProposalStore(folder, {}).clear()
        store = ProposalStore.create(folder, _key(plan, pictures, content))
        store.sweep()
        groups = _coco_groups(plan.source) if plan.form == "coco" else _sa1b_groups(plan.source)
        filled = _Importer(store, pictures).take(reporter.track(groups, f"import of {plan.source.name}"), reporter)
        filled = _without_masks(store, pictures, plan, filled, reporter)
    return Proposed(ProposalStore.open(folder), filled, time.monotonic() - started)


def _key(plan: ImportPlan, pictures: "SegmentationData", content: str) -> dict[str, Any]:
    return {
        "generator": plan.name,
        "version": 1,
        "settings": {"imported": plan.form, "content": content},
        "weights": None,
        "vocabulary": None,
        "labels": None,
        "data": plan.data.spec.name,
        "subset": plan.subset,
        "data_fingerprint": pictures.fingerprint,
        "images": len(pictures),
        "command": plan.command,
    }


def _content_digest(source: Path) -> str:
    """Fingerprint of what is imported: of a file its bytes, of a folder names, sizes and times of its files."""
    if source.is_file():
        return sha256_file(source)
    facts = ((path, path.stat()) for path in sorted(source.rglob("*.json")))
    return digest_of(f"{path.relative_to(source)} {stat.st_size} {stat.st_mtime_ns}" for path, stat in facts)


Group = tuple[tuple[str, ...], list[Mask]]


def _coco_groups(source: Path) -> Iterator[Group]:
    """Yield neighboring records of one picture together, with the names that its id may mean."""
    for image_id, records in groupby(read_coco(source), key=lambda pair: pair[0]):
        yield (image_id, Path(image_id).stem), [mask for _, mask in records]


def _sa1b_groups(source: Path) -> Iterator[Group]:
    for path in sorted(source.rglob("*.json")):
        yield read_sa1b(path)


class _Importer:
    """Writes groups of masks to the pictures that they belong to."""

    def __init__(self, store: ProposalStore, pictures: "SegmentationData"):
        self.store, self.pictures = store, pictures
        self.places = {entry.stem: index for index, entry in enumerate(pictures.entries)}
        self.by_number = _by_number(self.places)
        self.written: set[str] = set()

    def take(self, groups: Iterable[Group], reporter: Reporter) -> Filled:
        """Write all groups; those of pictures that the subset does not have are left out, and that is said."""
        masks, strange = 0, 0
        for names, found in groups:
            index = next((i for i in map(self._place, names) if i is not None), None)
            if index is None:
                strange += 1
                continue
            self._write(index, found)
            masks += len(found)
        if strange:
            reporter.warn(f"masks of {strange} pictures that subset '{self.pictures.name}' does not have are left out")
        return Filled(len(self.written), 0, masks)

    def _place(self, name: str) -> int | None:
        index = self.places.get(name)
        return self.by_number.get(int(name)) if index is None and name.isdecimal() else index

    def _write(self, index: int, masks: list[Mask]) -> None:
        """Write the masks of a picture, with those of it that came before in the same source; best score first."""
        picture = self.pictures.entries[index]
        size = (picture.height, picture.width)
        check(masks, size, f"picture '{picture.stem}'")
        codes, scores = [mask.code for mask in masks], [mask.score for mask in masks]
        if picture.stem in self.written:
            before = self.store.read_entry(picture.stem)
            codes, scores = [*(before.codes or ()), *codes], [*before.scores.tolist(), *scores]
        confidence = np.array(scores, np.float32)
        order = np.argsort(-confidence, kind="stable")
        digest = image_digest(self.pictures.image(index).transpose(2, 0, 1))
        ranked = tuple(codes[i] for i in order)
        self.store.write_entry(Entry(picture.stem, digest, size, confidence[order], ranked))
        self.written.add(picture.stem)


def _by_number(places: Mapping[str, int]) -> dict[int, int]:
    """Number → place, for names that are numbers and where no two are the same one, as COCO's file names are."""
    numbers = [(int(name), index) for name, index in places.items() if name.isdecimal()]
    return dict(numbers) if len({number for number, _ in numbers}) == len(numbers) else {}


def _without_masks(
    store: ProposalStore, pictures: "SegmentationData", plan: ImportPlan, filled: Filled, reporter: Reporter
) -> Filled:
    """Give pictures that the source does not mention an entry without masks, as far as that is allowed."""
    there = set(store.names())
    missing = [index for index, entry in enumerate(pictures.entries) if entry.stem not in there]
    if len(missing) > plan.allow_missing:
        name = pictures.entries[missing[0]].stem
        raise DataError(
            f"{plan.source}: {len(missing)} of {len(pictures)} pictures have no masks in it, the first is '{name}'.",
            f"If that is right, add: --allow-missing {len(missing)}",
        )
    for index in missing:
        picture = pictures.entries[index]
        digest = image_digest(pictures.image(index).transpose(2, 0, 1))
        size = (picture.height, picture.width)
        store.write_entry(Entry(picture.stem, digest, size, np.zeros(0, np.float32), ()))
    if missing:
        reporter.warn(f"{len(missing)} pictures have no masks in {plan.source.name}: they get none")
    return Filled(filled.made + len(missing), 0, filled.masks)
