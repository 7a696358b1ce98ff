"""What does naming masks leave behind? The record of each picture, from which every score follows without the model.

Readable without us: `scores` (percent), `sizes`, `classes`, `calibration`. `records` packs the arrays of `MaskRecord`,
each with its lengths by picture, in the order of `images`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ovseg_cli.core.evaluation.mask_records import ARRAYS, MaskRecord
from ovseg_cli.core.evaluation.mask_scores import NamedMasks, class_scores, group_scores, painting_areas, size_scores
from ovseg_cli.core.evaluation.masks_file import MasksFile
from ovseg_cli.core.evaluation.metrics import BOTH_RULES, Areas, ClassSets, Rule
from ovseg_cli.core.evaluation.result_files import pack, unpack

_COUNTS = ("masks", "classes", "averaged", "id", "low", "high")


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskResult(MasksFile):
    """Masks of many pictures and the names that a model gave them.

    Attributes:
        records: The record of each picture, by name.
    """

    kind = "ovseg-mask-classification"
    folder = "masks"
    what = "mask classification"
    mend = "Name the masks again: ovseg eval --task masks"

    records: Mapping[str, MaskRecord]

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

    def summary(self) -> dict[str, Any]:
        """Return scores, sizes, classes and calibration as JSON values."""
        classes = [
            {"class": self.class_names[row["id"]], "unseen": self.unseen[row["id"]], **percent(row)}
            for row in class_scores(self.named, len(self.class_names))
        ]
        return {
            "pictures": len(self.records),
            "left_out": self.left_out,
            "scores": {rule: {name: self.scores(name, rule) for name in self.groups} for rule in BOTH_RULES},
            "sizes": [percent(row) for row in size_scores(self.named)],
            "calibration": {name: _plain(asdict(self.of_classes(name).calibration())) for name in self.groups},
            "classes": classes,
        }

    def of_classes(self, split: str) -> NamedMasks:
        """Return the masks of all, of seen or of unseen classes."""
        return self.named.of_classes(ClassSets.of_flags(self.unseen).named()[split])

    def packed(self) -> dict[str, Any]:
        """Return the arrays of the records."""
        return {"images": list(self.records), "records": _packed(list(self.records.values()))}

    @classmethod
    def unpacked(cls, document: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
        """Return the records."""
        return {"records": _unpacked(document, num_classes)}


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
