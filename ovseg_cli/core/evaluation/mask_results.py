"""What does naming masks leave behind? One JSON file, from which every score follows without the model.

Schema 1. Readable without us: `scores` (percent), `sizes`, `classes`, `calibration`. `records` packs the arrays of
`MaskRecord`, each with its lengths by picture, in the order of `images`; see `result_files` for the packing.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.mask_records import ARRAYS, MaskRecord
from ovseg_cli.core.evaluation.mask_scores import NamedMasks, class_scores, group_scores, painting_areas, size_scores
from ovseg_cli.core.evaluation.metrics import Areas, ClassSets, Rule
from ovseg_cli.core.evaluation.result_files import pack, unpack
from ovseg_cli.core.evaluation.results import Facts
from ovseg_cli.core.files import read_json, write_text

SCHEMA, KIND, FOLDER = 1, "ovseg-mask-classification", "masks"
"""`FOLDER` lies in a run's `results`: what is in there is no result of label maps."""
_PLAIN = (
    "method", "data", "subset", "run", "class_split", "protocol", "fingerprints", "environment", "seed", "command",
    "notes", "class_names", "unseen", "masks", "timing", "created", "version",
)  # fmt: skip
_TUPLES = ("notes", "class_names", "unseen")
_MEND = "Name the masks again: ovseg eval --task masks"
_COUNTS = ("masks", "classes", "averaged", "id", "low", "high")


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskResult(Facts):
    """Masks of many pictures and the names that a model gave them.

    Attributes:
        class_names: K names in train-id order.
        unseen: K flags.
        masks: Where the masks came from.
        records: The record of each picture, by name.
        timing: Seconds for each stage.
        created: When it ended, ISO 8601, UTC.
        version: Version of ovseg.
    """

    class_names: tuple[str, ...]
    unseen: tuple[bool, ...]
    masks: dict[str, Any]
    records: Mapping[str, MaskRecord]
    timing: dict[str, float] = field(default_factory=dict)
    created: str = ""
    version: str = ""

    @cached_property
    def named(self) -> NamedMasks:
        """The masks of all pictures."""
        return NamedMasks.of(list(self.records.values()))

    @cached_property
    def areas(self) -> Areas:
        """What scores of the paintings are made of."""
        return painting_areas(list(self.records.values()), len(self.class_names))

    @property
    def left_out(self) -> int:
        """Masks that were left out."""
        return int(sum(record.picture[1] for record in self.records.values()))

    def scores(self, split: str = "all", rule: Rule = "union") -> dict[str, Any]:
        """Return the scores of all, of seen or of unseen classes, in percent, None where there is none."""
        sets = ClassSets.of_flags(self.unseen)
        return percent(group_scores(self.named, self.areas, sets, sets.named()[split], rule))

    def document(self) -> dict[str, Any]:
        """Return all that is readable as JSON values."""
        groups = ("all", "seen", "unseen") if any(self.unseen) else ("all",)
        classes = [
            {"class": self.class_names[row["id"]], "unseen": self.unseen[row["id"]], **percent(row)}
            for row in class_scores(self.named, len(self.class_names))
        ]
        return {
            "schema": SCHEMA,
            "kind": KIND,
            **{name: getattr(self, name) for name in _PLAIN},
            "pictures": len(self.records),
            "left_out": self.left_out,
            "scores": {rule: {name: self.scores(name, rule) for name in groups} for rule in ("union", "present")},
            "sizes": [percent(row) for row in size_scores(self.named)],
            "calibration": {name: _plain(asdict(self.of(name).calibration())) for name in groups},
            "classes": classes,
        }

    def of(self, split: str) -> NamedMasks:
        """Return the masks of all, of seen or of unseen classes."""
        return self.named.of_classes(ClassSets.of_flags(self.unseen).named()[split])

    def save(self, path: Path) -> None:
        """Write the result, whole or not at all: one line for each key.

        Raises:
            MachineError: The file cannot be written.
        """
        whole = {**self.document(), "images": list(self.records), "records": _packed(list(self.records.values()))}
        lines = (f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False, allow_nan=False)}" for k, v in whole.items())
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def load(cls, path: Path) -> "MaskResult":
        """Read a result; its scores are computed anew.

        Raises:
            DataError: The file is missing, broken, of another schema or of another kind.
        """
        document = read_json(path, "the result of mask classification", _MEND)
        try:
            if document["kind"] != KIND or document["schema"] != SCHEMA:
                raise DataError(f"{path}: is no result of mask classification of schema {SCHEMA}.", _MEND)
            plain = {name: document[name] for name in _PLAIN}
            plain |= {name: tuple(plain[name]) for name in _TUPLES}
            return cls(**plain, records=_unpacked(document, len(plain["class_names"])))
        except DataError as error:
            raise DataError(f"{path}: {error.message.removeprefix(f'{path}: ')}", error.mend) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: is broken ({type(error).__name__}: {error}).", _MEND) from error


def percent(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return fractions as percent, rounded; counts and bounds as they are; None for NaN."""
    return {k: v if k in _COUNTS or not isinstance(v, float) else _rounded(100 * v) for k, v in scores.items()}


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in value.items()}


def _packed(records: Sequence[MaskRecord]) -> dict[str, Any]:
    empty = np.zeros(0, np.int64)
    return {
        name: {
            "lengths": pack(np.array([len(getattr(record, name)) for record in records], np.int64)),
            "values": pack(np.concatenate([empty, *(getattr(record, name) for record in records)])),
        }
        for name in ARRAYS
    }


def _unpacked(document: Mapping[str, Any], num_classes: int) -> dict[str, MaskRecord]:
    parts = {}
    for name in ARRAYS:
        packed = document["records"][name]
        lengths, values = unpack(packed["lengths"], name), unpack(packed["values"], name)
        if len(lengths) != len(document["images"]) or lengths.sum() != len(values):
            raise ValueError(f"its pictures and their '{name}' do not fit together")
        parts[name] = np.split(values, np.cumsum(lengths)[:-1])
    most = {"classes": num_classes, "tops": num_classes, "cells": (num_classes + 1) ** 2}
    for name, bound in most.items():
        if any(len(part) and part.max() >= bound for part in parts[name]):
            raise ValueError(f"its '{name}' lie outside its {num_classes} classes")
    rows = ({name: parts[name][i] for name in ARRAYS} for i in range(len(document["images"])))
    return {str(name): MaskRecord.of_plain(row) for name, row in zip(document["images"], rows, strict=True)}
