"""COCO's panoptic labels: a picture of segment ids, and the class of each in a JSON."""

from pathlib import Path
from typing import Any

import numpy as np

from ovseg_cli.core.data.encodings.annotations import Records
from ovseg_cli.core.data.encodings.rgb import packed
from ovseg_cli.core.data.encodings.table import UNKNOWN, RawTable
from ovseg_cli.core.errors import DataError

_MEND = "Picture and JSON must be of the same release; fetch both again."


def panoptic(path: Path, records: Records) -> np.ndarray:
    """Read a panoptic label.

    Args:
        path: RGB picture; r + 256 g + 65536 b is the segment, 0 none.
        records: The picture's record: `segments_info`, a list of `id` and `category_id`.

    Returns:
        (H, W) int32 category ids; 0 where no segment is.

    Raises:
        DataError: The picture cannot be read, a segment of it is not in the JSON, or the JSON is not of this form.
    """
    table = RawTable({0: 0, **_categories(path, records)}, UNKNOWN, 1 << 24)
    segments = packed(path)
    categories = table.lookup(segments)
    lost = categories == UNKNOWN
    if lost.any():
        y, x = np.argwhere(lost)[0]
        one = int(segments[y, x])
        more = len(np.unique(segments[lost])) - 1
        others = f" (and {more} more)" if more else ""
        what = f"segment {one}{others}, {int((segments == one).sum())} pixels, first at x {x}, y {y}"
        raise DataError(f"{path}: {what}, is not in {records.file}.", _MEND)
    return categories


def _categories(path: Path, records: Records) -> dict[int, int]:
    """Return segment id → category id."""
    found: dict[int, int] = {}
    for record in records.read():
        for segment in _segments(path, record, records.file):
            number, category = (_number(segment, key, path, records.file) for key in ("id", "category_id"))
            if number in found:
                raise DataError(f"{records.file}: segment {number} of '{path.stem}' stands twice.", _MEND)
            found[number] = category
    return found


def _number(segment: dict[str, Any], key: str, path: Path, file: str) -> int:
    value = segment.get(key)
    if type(value) is not int or not 0 < value < 1 << 24:
        raise DataError(f"{file}: a segment of '{path.stem}' has {key} {value!r}, which is no id.", _MEND)
    return value


def _segments(path: Path, record: Any, file: str) -> list[dict[str, Any]]:
    segments = record.get("segments_info") if isinstance(record, dict) else None
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        raise DataError(f"{file}: the record of '{path.stem}' has no list 'segments_info'.", "Is it the right file?")
    return segments
