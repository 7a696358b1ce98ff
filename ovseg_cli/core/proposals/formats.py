"""The two ways in which mask proposals travel: COCO result files, and SA-1B's one file a picture.

COCO result: one JSON list of `{"image_id", "category_id", "segmentation": {"size": [h, w], "counts": …}, "score"}`,
read piece by piece, so that a file of several gigabytes needs no such memory. SA-1B: one JSON object a picture,
`{"image": {…}, "annotations": [{"segmentation", "bbox", "area", "predicted_iou", …}]}`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ovseg_cli.core.data import rle
from ovseg_cli.core.data.archive import DataFile
from ovseg_cli.core.data.originals import read_masks
from ovseg_cli.core.data.rle import RleError
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.proposals.entry import Entry

_BLOCK = 1 << 20
_SEPARATORS = re.compile(r"[,\s]*")
_LONGEST_RECORD = 64 << 20  # characters; no mask needs a fraction of it


@dataclass(frozen=True)
class Mask:
    """One mask as it came: COCO code, size, score, and where in the file it stood."""

    code: bytes
    size: tuple[int, int]
    score: float
    where: str


def read_coco(path: Path) -> Iterator[tuple[str, Mask]]:
    """Yield the masks of a COCO result file with their `image_id`, as text, one after the other, not yet checked.

    Raises:
        UsageError: The file is missing.
        DataError: It is no JSON list of such records, or is cut off.
    """
    for number, record in enumerate(_records(path)):
        where = f"{path}: record {number + 1}"
        if not isinstance(record, dict) or "image_id" not in record:
            raise DataError(f"{where} is no result with an image_id.", "Give a COCO result file.")
        yield str(record["image_id"]), _mask(record, "score", where)


def read_sa1b(path: DataFile) -> tuple[tuple[str, ...], list[Mask]]:
    """Read one file of SA-1B, also out of an archive.

    Returns:
        Names under which the picture may be known (the stems of the file and of the picture that it names), and its
        masks, not yet checked.

    Raises:
        DataError: It is no such file, or is cut off.
    """
    image, annotations = read_masks(path)
    names = dict.fromkeys([path.stem, Path(str(image.get("file_name", path.stem))).stem])
    places = ((record, f"{path}: annotation {number}") for number, record in enumerate(annotations, 1))
    masks = [_mask(record, "predicted_iou", where) for record, where in places]
    return tuple(names), masks


def check(masks: Sequence[Mask], size: tuple[int, int], picture: str, mend: str = "Write it anew.") -> None:
    """Check that masks have the size of their picture and fill it, decoding nothing.

    Args:
        masks: The masks.
        size: (H, W) of the picture.
        picture: What a message calls it.
        mend: What the user does about a mask that is none.

    Raises:
        DataError: The first that does not.
    """
    for mask in masks:
        if mask.size != size:
            have, said = (f"{h} x {w}" for h, w in (mask.size, size))
            raise DataError(
                f"{mask.where}: the mask is {have}, {picture} is {said}.", "Make the masks at the pictures' own size."
            )
    try:
        rle.check([mask.code for mask in masks], size)
    except RleError as error:
        raise DataError(f"{masks[error.number].where}: the mask {error.reason}.", mend) from error


def _mask(record: Any, score: str, where: str) -> Mask:
    try:
        segmentation = record["segmentation"]
        value = float(record.get(score, 1.0))
        if isinstance(segmentation, list):
            raise DataError(f"{where}: the mask is a polygon.", "Convert it to RLE, which has no rounding left to do.")
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        if height < 1 or width < 1 or value != value:
            raise ValueError(f"size {height} x {width}, score {value}")
        code = rle.encode_runs(counts, (height, width)) if isinstance(counts, list) else _text(counts)
    except RleError as error:
        raise DataError(f"{where}: the mask {error.reason}.", "Write it anew.") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: this is no mask ({error!r}).", "A mask needs size and counts.") from error
    return Mask(code, (height, width), value, where)


def _text(counts: Any) -> bytes:
    if not isinstance(counts, str):
        raise TypeError("counts is neither a text nor a list")
    return counts.encode("utf-8")


def _records(path: Path) -> Iterator[Any]:
    """Yield the items of a JSON list in a file without reading it whole."""
    try:
        with open(path, encoding="utf-8") as stream:
            yield from _items(stream, path)
    except FileNotFoundError as error:
        raise UsageError(f"--import {path}: there is no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error


def _items(stream: TextIO, path: Path) -> Iterator[Any]:
    decoder, text, at, opened, done = json.JSONDecoder(), "", 0, False, False
    while True:
        at = _SEPARATORS.match(text, at).end()  # type: ignore[union-attr]
        if not opened and at < len(text):
            _require_list(text[at], path)
            opened, at = True, at + 1
            continue
        if text[at : at + 1] == "]":
            return
        try:
            item, end = decoder.raw_decode(text, at)
            is_whole = end < len(text)  # a number at the very end of a block could go on
        except json.JSONDecodeError:
            is_whole = False
        if is_whole:
            yield item
            at = end
            continue
        if done or len(text) - at > _LONGEST_RECORD:
            rest = text[at : at + 60]
            raise DataError(f"{path}: the file is cut off or no JSON, after '{rest}'.", "Write it anew.")
        block = stream.read(_BLOCK)
        done, text, at = not block, text[at:] + block, 0


def _require_list(character: str, path: Path) -> None:
    if character != "[":
        raise DataError(
            f"{path}: this is no COCO result file, which is one JSON list.",
            "A file with images and annotations is a data set; write its masks as results.",
        )


def coco_records(entry: Entry, image_id: int | str) -> list[dict[str, Any]]:
    """Return the results of one picture; soft masks are cut at one half."""
    codes, boxes = _codes(entry)
    return [
        {
            "image_id": image_id,
            "category_id": 1,
            "bbox": box,
            "segmentation": {"size": list(entry.size), "counts": code.decode("ascii")},
            "score": round(float(score), 6),
        }
        for code, box, score in zip(codes, boxes, entry.scores, strict=True)
    ]


def sa1b_document(entry: Entry, image_id: int, file_name: str) -> dict[str, Any]:
    """Return the file of one picture, with the keys that are known; soft masks are cut at one half."""
    codes, boxes = _codes(entry)
    height, width = entry.size
    areas = rle.areas(codes, entry.size).tolist()
    annotations = [
        {
            "id": number,
            "segmentation": {"size": [height, width], "counts": code.decode("ascii")},
            "bbox": box,
            "area": area,
            "predicted_iou": round(float(score), 6),
            "crop_box": [0.0, 0.0, float(width), float(height)],
        }
        for number, (code, box, area, score) in enumerate(zip(codes, boxes, areas, entry.scores, strict=True))
    ]
    image = {"image_id": image_id, "width": width, "height": height, "file_name": file_name}
    return {"image": image, "annotations": annotations}


def binary_codes(entry: Entry) -> tuple[bytes, ...]:
    """Return the binary masks of an entry as COCO codes; soft ones are cut at one half, at the picture's size."""
    return entry.codes if entry.codes is not None else tuple(rle.encode(_upsampled(entry) >= 127.5))


def _codes(entry: Entry) -> tuple[Sequence[bytes], list[list[float]]]:
    """Return the binary masks of an entry as codes, and their boxes as left, top, width, height."""
    from pycocotools import mask as coco

    codes = binary_codes(entry)
    if not codes:
        return (), []
    boxes = coco.toBbox([{"size": list(entry.size), "counts": code} for code in codes])
    return codes, np.asarray(boxes).tolist()


def _upsampled(entry: Entry) -> np.ndarray:
    """Bring soft masks to the picture's size, (N, H, W) float32 of 0 to 255, bilinear."""
    import torch
    from torch.nn.functional import interpolate

    soft = torch.from_numpy(np.asarray(entry.soft)).float()
    if not len(soft):
        return np.zeros((0, *entry.size), np.float32)
    return interpolate(soft[:, None], entry.size, mode="bilinear", align_corners=False)[:, 0].numpy()
