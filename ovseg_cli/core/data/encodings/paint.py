"""How records with masks become one map of raw values: painted one over the other, what is impossible refused."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ovseg_cli.core.data import rle
from ovseg_cli.core.data.encodings.annotations import Records
from ovseg_cli.core.data.images import MAX_PIXELS
from ovseg_cli.core.data.rle import RleError
from ovseg_cli.core.errors import DataError

_MEND = "Fetch the annotation file again."


def painted(stem: str, records: Records, large_first: bool) -> np.ndarray:
    """Paint the masks of a picture.

    Args:
        stem: Name of the picture, for messages.
        records: Its records: `category_id`, and `segmentation` as COCO's run lengths (text or list) or as polygons.
        large_first: Smaller masks lie above larger ones; else later records above earlier ones.

    Returns:
        (H, W) int32 category ids; 0 where no mask is.

    Raises:
        DataError: A record has no category or no possible mask, or the picture's size is not known.
    """
    masks = []
    size = records.size
    for number, record in enumerate(records.read(), 1):
        where = f"{records.file}: picture '{stem}', record {number}"
        if not isinstance(record, dict):
            raise DataError(f"{where}: this is no object.", _MEND)
        size = size or _own_size(record)
        masks.append((_category(record, where), _code(record.get("segmentation"), size, where)))
    if size is None:
        raise DataError(f"{records.file}: picture '{stem}': its height and width are not there.", _MEND)
    return _paint(masks, size, large_first, f"{records.file}: picture '{stem}'")


def _paint(masks: list[tuple[int, list[bytes]]], size: tuple[int, int], large_first: bool, where: str) -> np.ndarray:
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{where}: {size[1]} x {size[0]} pixels are more than the limit of {MAX_PIXELS:,}.", _MEND)
    codes = [code for _, own in masks for code in own]
    owner = np.repeat(np.arange(len(masks)), [len(own) for _, own in masks])
    spans, mask_of = _runs(codes, owner, size, where)
    areas = np.bincount(mask_of, spans[:, 1] - spans[:, 0], len(masks))
    order = np.argsort(-areas, kind="stable") if large_first else np.arange(len(masks))
    starts = np.searchsorted(mask_of, np.arange(len(masks) + 1))
    columns = np.zeros(size[0] * size[1], np.int32)  # down the columns, as the runs go
    for mask in order.tolist():
        category = masks[mask][0]
        for start, end in spans[starts[mask] : starts[mask + 1]].tolist():
            columns[start:end] = category
    return np.ascontiguousarray(columns.reshape(size[1], size[0]).T)


def _runs(codes: list[bytes], owner: np.ndarray, size: tuple[int, int], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return first and end of each run of pixels of all codes, (R, 2), and the mask that each belongs to, (R,)."""
    if not codes:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    try:
        counts, place = rle.run_lengths(codes, size)
    except RleError as error:
        record = int(owner[error.number]) + 1
        raise DataError(f"{where}, record {record}: its run lengths are no mask ({error.reason}).", _MEND) from error
    code_of = np.cumsum(place == 0) - 1
    ends = np.cumsum(counts) - code_of * math.prod(size)  # each code begins at the picture's first pixel
    inside = (place & 1).astype(bool) & (counts > 0)
    return np.stack([ends - counts, ends], 1)[inside], owner[code_of[inside]]


def _category(record: dict[str, Any], where: str) -> int:
    category = record.get("category_id")
    if not isinstance(category, int) or isinstance(category, bool) or not 0 <= category < 1 << 31:
        raise DataError(f"{where}: 'category_id' is {category!r}, which is no class id.", _MEND)
    return category


def _own_size(record: dict[str, Any]) -> tuple[int, int] | None:
    segmentation = record.get("segmentation")
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    return _pair(size)


def _pair(size: Any) -> tuple[int, int] | None:
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return None
    return size[0], size[1]


def _code(segmentation: Any, size: tuple[int, int] | None, where: str) -> list[bytes]:
    """Return the COCO codes whose union is the mask."""
    if size is None:
        raise DataError(f"{where}: the height and width of its picture are not there.", _MEND)
    if isinstance(segmentation, list):
        return [_polygon(points, size, where) for points in segmentation] or _nothing(where)
    if not isinstance(segmentation, dict):
        return _nothing(where)
    own, counts = segmentation.get("size"), segmentation.get("counts")
    if _pair(own) != size:
        pair = _pair(own)
        shown = f"{pair[1]} x {pair[0]}" if pair else repr(own)
        what = f"its mask is {shown}, the picture {size[1]} x {size[0]} (width x height)"
        raise DataError(f"{where}: {what}.", _MEND)
    try:
        if isinstance(counts, list):
            return [rle.encode_runs(counts, size)]
        if isinstance(counts, str) and counts:
            return [counts.encode("ascii")]
    except (RleError, UnicodeError) as error:
        reason = error.reason if isinstance(error, RleError) else "other characters than COCO's"
        raise DataError(f"{where}: its run lengths are no mask ({reason}).", _MEND) from error
    return _nothing(where)


def _nothing(where: str) -> list[bytes]:
    raise DataError(f"{where}: 'segmentation' holds neither run lengths nor polygons.", _MEND)


def _polygon(points: Any, size: tuple[int, int], where: str) -> bytes:
    """Return the COCO code of a polygon x1, y1, x2, y2, …, whose corners lie in the picture or near it."""
    from pycocotools import mask as coco

    height, width = size
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2 or not _are_numbers(points):
        count = f"{len(points)} values" if isinstance(points, list) else repr(points)[:40]
        raise DataError(f"{where}: a polygon needs x and y of three corners or more, this one has {count}.", _MEND)
    for x, y in zip(points[::2], points[1::2], strict=True):
        if not (-width <= x <= 2 * width and -height <= y <= 2 * height):
            what = f"a corner of a polygon lies at ({x:g}, {y:g}), far outside its picture of {width} x {height}"
            raise DataError(f"{where}: {what}.", _MEND)
    return bytes(coco.frPyObjects([[float(value) for value in points]], height, width)[0]["counts"])


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)
