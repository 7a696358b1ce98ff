"""How one picture is prepared: read and judged, its label turned into train ids, everything written whole.

`Converter` takes files of a source, `Drawer` takes scenes of a generator. Both are picklable, so that they run in
worker processes, and neither ever writes outside the data set's own folder.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ovseg_cli.core.data.archive import locate
from ovseg_cli.core.data.encodings.read import LabelReader
from ovseg_cli.core.data.encodings.table import UNKNOWN, RawTable
from ovseg_cli.core.data.images import image_size, load_image, write_label, write_png
from ovseg_cli.core.data.index import Entry
from ovseg_cli.core.data.labels import SeenLabels, hide, histogram, label_hash
from ovseg_cli.core.data.pairing import Item
from ovseg_cli.core.data.problems import Problem
from ovseg_cli.core.data.spec_files import Encoding
from ovseg_cli.core.data.upkeep import file_facts, is_unchanged, make_link
from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.files import sha256_file, write_bytes

_IS_IT_RIGHT = "Is it the right file? Otherwise list the value in the spec."
_PLURALS = {"value": "values", "colour": "colours", "category": "categories"}


@dataclass(frozen=True)
class Outcome:
    """What became of a picture: its entry, or the problems that kept it from having one."""

    entry: Entry | None = None
    problems: tuple[Problem, ...] = ()


@dataclass
class Picture:
    """A picture on its way: its (H, W) train ids, and its (H, W, 3) uint8 pixels where they are written here."""

    height: int
    width: int
    image_sha: str
    label: np.ndarray | None
    upright: bool = True
    pixels: Any = None
    caption: str | None = None
    inputs: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Maker(ABC):
    """What both ways share.

    Attributes:
        root: Folder of the data set.
        subset: Name of the subset.
        ignore_label: Value of unlabelled pixels in the labels.
        label_dtype: "uint8" or "uint16".
        seen: Seen-only labels to write.
        num_classes: K.
        write: False only judges.
    """

    root: Path
    subset: str
    ignore_label: int
    label_dtype: str
    num_classes: int
    seen: tuple[SeenLabels, ...] = ()
    write: bool = True

    def __call__(self, item: Item) -> Outcome:
        """Prepare one picture; what is broken about it becomes problems."""
        problems: list[Problem] = []
        picture = self.load(item, problems)
        if picture is None or problems:
            return Outcome(None, tuple(problems))
        return Outcome(self._store(item, picture))

    @abstractmethod
    def load(self, item: Item, problems: list[Problem]) -> Picture | None:
        """Read or draw the picture."""

    def image_path(self, item: Item) -> str:
        """Path of the picture below the data set's folder."""
        return f"images/{self.subset}/{item.stem}{Path(item.image or 'drawn.png').suffix}"

    @abstractmethod
    def store_image(self, item: Item, picture: Picture) -> dict[str, list[int]]:
        """Link, copy or write the picture; return path → bytes and mtime unless it is a link."""

    def is_done(self, item: Item, entry: Entry | None) -> bool:
        """Whether an earlier run left this picture complete and its source has not changed since."""
        if entry is None or entry.inputs != self.inputs(item) or entry.image != self.image_path(item):
            return False
        if any(entry.seen.get(part.split) != part.digest for part in self.seen):
            return False
        complete = set(self._label_paths(item)) <= set(entry.files) if item.label or entry.label else True
        kept = all(is_unchanged(self.root / path, facts) for path, facts in entry.files.items())
        return complete and kept and (self.root / entry.image).exists()

    @abstractmethod
    def inputs(self, item: Item) -> list[list[Any]]:
        """What the picture is made from, as recorded in its entry."""

    def _label_paths(self, item: Item) -> dict[str, tuple[int, ...]]:
        """Path of each label file of a picture → the train ids that it leaves out."""
        paths: dict[str, tuple[int, ...]] = {f"labels/{self.subset}/{item.stem}.png": ()}
        return paths | {f"labels-{part.split}/{self.subset}/{item.stem}.png": part.hidden for part in self.seen}

    def _store(self, item: Item, picture: Picture) -> Entry:
        label = picture.label
        written = self.store_image(item, picture) if self.write else {}
        if self.write and label is not None:
            written |= self._store_labels(item, label)
        return Entry(
            stem=item.stem,
            image=self.image_path(item),
            label=None if label is None else next(iter(self._label_paths(item))),
            height=picture.height,
            width=picture.width,
            image_sha=picture.image_sha,
            label_sha=label_hash(label),
            upright=picture.upright,
            pixels=histogram(label),
            files=written,
            inputs=picture.inputs,
            seen={part.split: part.digest for part in self.seen},
            caption=picture.caption,
        )

    def _store_labels(self, item: Item, label: np.ndarray) -> dict[str, list[int]]:
        written = {}
        for path, hidden in self._label_paths(item).items():
            write_label(self.root / path, hide(label, hidden, self.ignore_label), self.label_dtype, sync=False)
            written[path] = file_facts(self.root / path)
        return written


@dataclass(frozen=True)
class Converter(Maker):
    """Prepares files of a source folder.

    Attributes:
        table: Raw value → train id.
        reader: Files → raw values.
        what: How messages name the label space, for instance "camvid".
        link: Link pictures to the source; False copies them.
    """

    table: RawTable = RawTable({})
    reader: LabelReader = LabelReader(Encoding())
    what: str = ""
    link: bool = True

    def inputs(self, item: Item) -> list[list[Any]]:
        """Path, bytes and mtime of the source files."""
        paths = (item.image, item.label, item.records.file if item.records else None)
        return [[path, *file_facts(Path(path))] for path in dict.fromkeys(paths) if path]

    def load(self, item: Item, problems: list[Problem]) -> Picture | None:
        """Read image and label; check that both can be read, have one size, and hold known values only."""
        try:
            image = Path(item.image or "")
            picture = Picture(0, 0, "", None, inputs=self.inputs(item))
            picture.height, picture.width = load_image(image).shape[:2]
            raw = self.reader(item) if item.label else None
            if raw is not None:
                picture.upright = self._fit_size(image, raw, picture, problems, item)
                picture.label = self._to_train_ids(raw, problems, item)
            picture.image_sha = sha256_file(image)[:32]
        except (OvsegError, OSError) as error:
            problems.append(as_problem(error, item))
            return None
        return picture

    def store_image(self, item: Item, picture: Picture) -> dict[str, list[int]]:
        """Link the picture, or copy it where links are impossible."""
        path, source = self.image_path(item), Path(item.image or "").absolute()
        if self.link:
            make_link(self.root / path, source)
            return {}
        write_bytes(self.root / path, source.read_bytes())
        return {path: file_facts(self.root / path)}

    def _fit_size(self, image: Path, raw: np.ndarray, picture: Picture, problems: list[Problem], item: Item) -> bool:
        """Return whether the EXIF rotation holds: the label decides, since some were drawn without it."""
        if raw.shape == (picture.height, picture.width):
            return True
        if raw.shape == image_size(image):
            picture.height, picture.width = raw.shape
            return False
        what = f"the label is {_size(raw.shape)}, its image {_size((picture.height, picture.width))} (width x height)"
        problems.append(Problem(_label_place(item), what, "Fetch both again, or remove the pair."))
        return True

    def _to_train_ids(self, raw: np.ndarray, problems: list[Problem], item: Item) -> np.ndarray:
        ids = self.table.lookup(raw)
        strange = ids == UNKNOWN
        if strange.any():
            problems.append(Problem(_label_place(item), self._unknown(raw, strange), _IS_IT_RIGHT))
        return ids.astype(self.label_dtype)

    def _unknown(self, raw: np.ndarray, strange: np.ndarray) -> str:
        """Say which values of a label the spec lacks, how many pixels have each, and where the first lies."""
        values, counts = np.unique(raw[strange], return_counts=True)
        named = [f"{self.reader.text(int(v))} ({n} pixels)" for v, n in zip(values[:3], counts[:3], strict=True)]
        more = f" and {len(values) - 3} more" if len(values) > 3 else ""
        word = self.reader.word if len(values) == 1 else _PLURALS[self.reader.word]
        y, x = np.argwhere(strange)[0]
        first = f"the first at x {x}, y {y}"
        return f"the label holds {word} {', '.join(named)}{more}, which {self.what} does not know; {first}"


@dataclass(frozen=True)
class Drawer(Maker):
    """Prepares scenes of a generator.

    Attributes:
        generator: Offers `scene(subset, index)` → image (H, W, 3) uint8, label (H, W), caption.
        digest: Its fingerprint.
    """

    generator: Any = None
    digest: str = ""

    def inputs(self, item: Item) -> list[list[Any]]:
        """The generator's fingerprint and the scene's place."""
        return [["scene", item.index, self.digest[:16]]]

    def load(self, item: Item, problems: list[Problem]) -> Picture | None:
        """Draw the scene and check its label."""
        image, label, caption = self.generator.scene(self.subset, item.index)
        strange = label[(label >= self.num_classes) & (label != self.ignore_label)]
        if strange.size or label.shape != image.shape[:2]:
            problems.append(Problem(f"{self.subset}/{item.stem}", "the generator drew a label that its spec forbids"))
            return None
        sha = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:32]
        height, width = label.shape
        label = label.astype(self.label_dtype)
        return Picture(height, width, sha, label, pixels=image, caption=caption, inputs=self.inputs(item))

    def store_image(self, item: Item, picture: Picture) -> dict[str, list[int]]:
        """Write the drawn picture as PNG."""
        path = self.image_path(item)
        write_png(self.root / path, picture.pixels, sync=False)
        return {path: file_facts(self.root / path)}


def _label_place(item: Item) -> str:
    """Name the label of a picture; a file that holds those of many says nothing by itself."""
    shared = item.records is not None and item.records.file == item.label
    return f"{item.label}, picture '{item.stem}'" if shared else str(item.label)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


def as_problem(error: Exception, item: Item) -> Problem:
    """Return the problem that an error about a picture is."""
    if not isinstance(error, OvsegError):
        return Problem(str(getattr(error, "filename", None) or item.image), str(getattr(error, "strerror", error)))
    places = (
        (item.image, item.image_at),
        (item.label, item.label_at),
        (item.records.file if item.records else None, None),
    )
    files = [str(locate(p, at)) for p, at in places if p]
    file = next((f for f in files if error.message.startswith(f"{f}: ")), files[0])
    return Problem(file, error.message.removeprefix(f"{file}: ").rstrip("."), error.mend or "")
