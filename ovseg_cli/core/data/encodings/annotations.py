"""Which records of an annotation file belong to which picture: COCO's instances and panoptic, PASCAL in Detail."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ovseg_cli.core.data.encodings.json_lists import read_records, records
from ovseg_cli.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one picture: where they lie in their file, and what the file says about the picture.

    Attributes:
        file: Path of the JSON.
        places: First byte and end of each record, in the file's order.
        size: Height and width; None where the file does not say.
    """

    file: str
    places: tuple[tuple[int, int], ...] = ()
    size: tuple[int, int] | None = None

    def read(self) -> list[Any]:
        """Read them. Raises DataError where the file is gone or has changed."""
        return read_records(Path(self.file), self.places)


@dataclass
class Annotations:
    """What an annotation file holds.

    Attributes:
        pictures: Stem → records of the picture.
        phases: Stem → the subset that the file says it belongs to.
        strays: How many records belong to no picture of the file.
        twice: Stems that two pictures have.
    """

    pictures: dict[str, Records] = field(default_factory=dict)
    phases: dict[str, str] = field(default_factory=dict)
    strays: int = 0
    twice: list[str] = field(default_factory=list)


def read_annotations(path: Path, key: str | None) -> Annotations:
    """List the pictures of an annotation file and where their records lie.

    Args:
        path: JSON with a list `images` (`id` or `image_id`, `file_name`, optionally `height`, `width`, `phase`) and a
            list of records, each with the `image_id` that it belongs to.
        key: Name of that list; None reads `images` alone.

    Raises:
        DataError: The file cannot be read, or lacks one of the lists or what a record needs.
    """
    state = path.stat() if path.exists() else None
    return _read(str(path), key, state and (state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=2)  # train and validation may share a file
def _read(path: str, key: str | None, _state: object) -> Annotations:
    images: dict[Any, tuple[str, tuple[int, int] | None, Any]] = {}
    places: dict[Any, list[tuple[int, int]]] = {}
    lists = set()
    for name, start, end, record in records(Path(path)):
        if start == end:
            lists.add(name)
        elif name == "images":
            number = _need(path, name, record, ("image_id", "id"))
            images[number] = (_stem(path, record), _size(path, record), record.get("phase"))
        elif name == key:
            places.setdefault(_need(path, name, record, ("image_id",)), []).append((start, end))
    for name in filter(None, ("images", key)):
        if name not in lists:
            there = f"it holds {', '.join(sorted(lists)[:6])}" if lists else "it holds none"
            raise DataError(f"{path}: there is no list '{name}' in it ({there}).", "Is it the right file?")
    return _joined(path, images, places)


def _joined(path: str, images: dict[Any, Any], places: dict[Any, list[tuple[int, int]]]) -> Annotations:
    found = Annotations(strays=sum(len(own) for number, own in places.items() if number not in images))
    for number, (stem, size, phase) in images.items():
        if stem in found.pictures:
            found.twice.append(stem)
        found.pictures[stem] = Records(path, tuple(places.get(number, ())), size)
        if isinstance(phase, str):
            found.phases[stem] = phase
    return found


def _need(path: str, name: str, record: Any, keys: tuple[str, ...]) -> Any:
    """Return the value of the first key that a record has; it must be able to name a picture."""
    value = next((record[key] for key in keys if key in record), None) if isinstance(record, dict) else None
    if not isinstance(value, int | str) or isinstance(value, bool):
        wanted = " or ".join(f"'{key}'" for key in keys)
        raise DataError(f"{path}: a record of '{name}' has no {wanted}.", "Is it the right file?")
    return value


def _stem(path: str, record: dict[str, Any]) -> str:
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: a record of 'images' has no 'file_name'.", "Is it the right file?")
    return PurePosixPath(_as_utf8(name)).stem


def _as_utf8(text: str) -> str:
    """Read bytes as UTF-8 that were taken for Latin-1; names that were written with escapes stay as they are."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _size(path: str, record: dict[str, Any]) -> tuple[int, int] | None:
    size = (record.get("height"), record.get("width"))
    if size == (None, None):
        return None
    height, width = size
    for side in size:
        if not isinstance(side, int) or isinstance(side, bool) or side < 1:
            what = f"picture '{record.get('file_name')}' is {width} x {height}, which is no size"
            raise DataError(f"{path}: {what}.", "Is it the right file?")
    assert isinstance(height, int) and isinstance(width, int)
    return height, width
