"""How does a result stand in a file? One JSON document; the counts of single pictures are packed arrays in it.

Schema 1. Readable without us: `counts.total` lists the non-zero cells of the whole matrix in plain numbers (ground
truth, prediction, pixels). `counts.per_image` packs three arrays, each `{dtype, length, data}` with little-endian
numbers, compressed with zlib, in base64: `lengths` (non-zero cells of each picture, in the order of `images`), `cells`
(ground truth × K + prediction) and `pixels`.
"""

import base64
import binascii
import json
import shlex
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.files import read_json, write_text
from ovseg_cli.core.runs import CONFIG, is_run_path

SCHEMA = 1
KIND = "ovseg-result"
OTHER_KINDS = {
    "ovseg-mask-classification": "named masks",
    "ovseg-oracle": "an oracle",
    "ovseg-mask-sensitivity": "mask sensitivity",
    "ovseg-trusty-map": "trusty maps",
    "ovseg-proposal-quality": "the quality of proposals",
}
"""What else lies in the results of a run, in files of other modules."""
_PLAIN = (
    "method", "data", "subset", "run", "class_split", "protocol", "fingerprints", "environment", "seed", "command",
    "notes", "class_names", "unseen", "is_thing", "background", "ignore_label", "timing", "created", "version",
)  # fmt: skip
_TUPLES = ("notes", "class_names", "unseen", "is_thing")
_DTYPES: dict[str, np.dtype[Any]] = {"<u4": np.dtype("<u4"), "<i8": np.dtype("<i8")}
_MAX_ENTRIES = 1 << 28  # numbers in one packed array: more than any data set needs, less than fills a memory
_MEND = "Run the evaluation again: ovseg eval"


def save_result(result: Result, path: Path) -> None:
    """Write a result, whole or not at all: one line for each key, since a line a number would be half a million.

    Raises:
        MachineError: The file cannot be written.
    """
    lines = (f"{json.dumps(key)}: {_plain_json(value)}" for key, value in to_document(result).items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def load_result(path: Path) -> Result:
    """Read a result and check that it is whole.

    Raises:
        DataError: The file is missing, cut off, changed, of another schema or no result at all.
        UsageError: It holds something else that a run keeps: named masks, an oracle.
    """
    again = _again(path)
    document = read_json(path, "the result file", again)
    try:
        return from_document(document)
    except (DataError, UsageError) as error:
        raise type(error)(f"{path}: {error.message}", again if error.mend == _MEND else error.mend) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: this result is broken ({type(error).__name__}: {error}).", again) from error


def _again(path: Path) -> str:
    """The command that makes a result anew: of the run that it lies in, where there is one."""
    run = path.parent.parent
    if not (run / CONFIG).is_file():
        return _MEND
    return f"{_MEND} {shlex.quote(str(run) if is_run_path(str(run)) else f'./{run}')}"


def to_document(result: Result) -> dict[str, Any]:
    """Return a result as plain JSON values."""
    table = result.counts
    cells = np.flatnonzero(result.matrix)
    truth, predicted = np.divmod(cells, result.num_classes)
    plain = {name: getattr(result, name) for name in _PLAIN}
    total = {
        "ground_truth": truth.tolist(),
        "prediction": predicted.tolist(),
        "pixels": result.matrix.ravel()[cells].tolist(),
    }
    packed = {"lengths": pack(np.diff(table.starts)), "cells": pack(table.cells), "pixels": pack(table.pixels)}
    counts = {"num_classes": table.num_classes, "total": total, "per_image": packed}
    return {"schema": SCHEMA, "kind": KIND, **plain, "images": list(table.names), "counts": counts}


def from_document(document: Any) -> Result:
    """Build a result from JSON values; see `load_result`."""
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind in OTHER_KINDS:
        raise UsageError(
            f"this file holds {OTHER_KINDS[kind]}, not scores of label maps.",
            "Report it alone; the page of its run (--format html) and --figures show it, too.",
        )
    if kind != KIND:
        raise DataError("this is not a result of ovseg eval.", "Name a run folder, or a file in its results/ folder.")
    if document.get("schema") != SCHEMA:
        made_by = document.get("version") or "another version"
        raise DataError(
            f"this result has schema {document.get('schema')}, this ovseg reads {SCHEMA}.",
            f"Read it with ovseg {made_by}, or run the evaluation again.",
        )
    plain = {name: document[name] for name in _PLAIN}
    for name in _TUPLES:
        plain[name] = None if plain[name] is None else tuple(plain[name])
    result = Result(**plain, counts=_read_counts(document))
    _check(result, document["counts"]["total"])
    return result


def _read_counts(document: dict[str, Any]) -> CountTable:
    packed, num_classes = document["counts"]["per_image"], int(document["counts"]["num_classes"])
    lengths, cells, pixels = (unpack(packed[name], name) for name in ("lengths", "cells", "pixels"))
    names = tuple(str(name) for name in document["images"])
    if len(set(names)) != len(names) or len(lengths) != len(names) or (lengths < 0).any():
        raise DataError("this result is broken: its pictures and their counts do not fit together.", _MEND)
    if len(cells) != lengths.sum() or len(pixels) != len(cells):
        raise DataError("this result is broken: counts of single pictures are missing.", _MEND)
    if len(cells) and (cells.min() < 0 or cells.max() >= num_classes**2 or pixels.min() < 0):
        raise DataError(f"this result is broken: counts lie outside its {num_classes} classes.", _MEND)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return CountTable(names, starts, cells, pixels, num_classes)


def _check(result: Result, total: dict[str, list[int]]) -> None:
    size = {len(result.class_names), len(result.unseen), result.counts.num_classes}
    if len(size | ({len(result.is_thing)} if result.is_thing is not None else set())) != 1:
        raise DataError("this result is broken: names, flags and counts are of different numbers of classes.", _MEND)
    stored = np.zeros_like(result.matrix)
    stored[np.array(total["ground_truth"], dtype=int), np.array(total["prediction"], dtype=int)] = total["pixels"]
    if not np.array_equal(stored, result.matrix):
        raise DataError("this result was changed: the counts of its pictures do not add up to its total.", _MEND)


def _plain_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def pack(values: NDArray[np.int64]) -> dict[str, Any]:
    """Pack numbers from 0: `{dtype, length, data}`."""
    fits = not len(values) or int(values.max()) < 2**32
    dtype = "<u4" if fits else "<i8"
    data = base64.b64encode(zlib.compress(values.astype(_DTYPES[dtype]).tobytes(), 6)).decode("ascii")
    return {"dtype": dtype, "length": len(values), "data": data}


def unpack(packed: dict[str, Any], name: str) -> NDArray[np.int64]:
    """Unpack an array, never making more bytes than it says it has."""
    dtype, length = _DTYPES[packed["dtype"]], int(packed["length"])
    if not 0 <= length <= _MAX_ENTRIES:
        raise DataError(f"this result is broken: its array '{name}' claims {length} numbers.", _MEND)
    expected = length * dtype.itemsize
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(packed["data"], validate=True), expected + 1)
    except (binascii.Error, zlib.error) as error:
        raise DataError(f"this result is broken: its array '{name}' cannot be unpacked ({error}).", _MEND) from error
    if len(data) != expected:
        raise DataError(f"this result is broken: its array '{name}' is not of the length it says.", _MEND)
    return np.frombuffer(data, dtype=dtype).astype(np.int64)
