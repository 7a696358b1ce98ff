"""What does the oracle ladder leave behind? Counts of every picture under the four rungs, and one sentence.

Schema 1. `ladder` holds the scores in percent, by rule, classes and rung. `counts` packs the counts of each rung as
`result_files` does, of K + 1 classes: the last one is for pixels that were given no class.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.mask_results import percent
from ovseg_cli.core.evaluation.mask_scores import areas_of
from ovseg_cli.core.evaluation.metrics import ClassSets, Rule, harmonic_iou, mean_iou, pixel_accuracy
from ovseg_cli.core.evaluation.oracle import RUNGS
from ovseg_cli.core.evaluation.result_files import pack, unpack
from ovseg_cli.core.evaluation.results import Facts
from ovseg_cli.core.files import read_json, write_text

SCHEMA, KIND, FOLDER = 1, "ovseg-oracle", "oracle"
_PLAIN = (
    "method", "data", "subset", "run", "class_split", "protocol", "fingerprints", "environment", "seed", "command",
    "notes", "class_names", "unseen", "masks", "timing", "created", "version",
)  # fmt: skip
_TUPLES = ("notes", "class_names", "unseen")
_MEND = "Climb the ladder again: ovseg eval --task oracle"
_ALIKE = 1.0  # points of mIoU


@dataclass(frozen=True, kw_only=True, eq=False)
class OracleResult(Facts):
    """Four label maps of each picture, counted.

    Attributes:
        class_names: K names in train-id order.
        unseen: K flags.
        masks: What the predicted masks are.
        counts: Counts of K + 1 classes of every picture, by rung.
        timing: Seconds for each stage.
        created: When it ended, ISO 8601, UTC.
        version: Version of ovseg.
    """

    class_names: tuple[str, ...]
    unseen: tuple[bool, ...]
    masks: dict[str, Any]
    counts: Mapping[str, CountTable]
    timing: dict[str, float] = field(default_factory=dict)
    created: str = ""
    version: str = ""

    def scores(self, rung: str, split: str = "all", rule: Rule = "union") -> dict[str, Any]:
        """Return the scores of a rung in percent, None where there is none; hIoU does not depend on the split."""
        sets = ClassSets.of_flags(self.unseen)
        ids, areas = sets.named()[split], areas_of(self.counts[rung].matrix())
        found = {
            "mIoU": float(mean_iou(areas, rule, ids)),
            "pAcc": float(pixel_accuracy(areas, ids)),
            "hIoU": float(harmonic_iou(areas, sets.seen, sets.unseen, rule)),
        }
        return percent(found)

    def verdict(self, split: str = "all", rule: Rule = "union") -> str:
        """Say in one line what holds the method back."""
        own, masks, names = (self.scores(rung, split, rule)["mIoU"] for rung in RUNGS[:3])
        if own is None:
            return "Nothing to compare: no pixel of these classes is labelled."
        by_masks, by_names = masks - own, names - own
        gains = f"right names would add {by_names:.1f} points of mIoU, right masks {by_masks:.1f}"
        if max(by_masks, by_names) < _ALIKE:
            return f"Neither masks nor names alone hold it back: {gains}."
        if abs(by_masks - by_names) < _ALIKE:
            return f"Masks and names hold it back alike: {gains}."
        return f"{'Names' if by_names > by_masks else 'Masks'} hold it back: {gains}."

    def document(self) -> dict[str, Any]:
        """Return all that is readable as JSON values."""
        groups = ("all", "seen", "unseen") if any(self.unseen) else ("all",)
        rules: tuple[Rule, ...] = ("union", "present")
        ladder = {
            rule: {group: {rung: self.scores(rung, group, rule) for rung in RUNGS} for group in groups}
            for rule in rules
        }
        plain = {name: getattr(self, name) for name in _PLAIN}
        pictures = len(self.counts[RUNGS[0]])
        return {
            "schema": SCHEMA,
            "kind": KIND,
            **plain,
            "pictures": pictures,
            "ladder": ladder,
            "verdict": {group: self.verdict(group) for group in groups},
        }

    def save(self, path: Path) -> None:
        """Write the result, whole or not at all: one line for each key.

        Raises:
            MachineError: The file cannot be written.
        """
        images = list(self.counts[RUNGS[0]].names)
        packed = {
            rung: {
                "lengths": pack(np.diff(table.starts)),
                "cells": pack(table.cells),
                "pixels": pack(table.pixels),
            }
            for rung, table in self.counts.items()
        }
        whole = {**self.document(), "images": images, "counts": packed}
        lines = (f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False, allow_nan=False)}" for k, v in whole.items())
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def load(cls, path: Path) -> "OracleResult":
        """Read a result; its scores are computed anew.

        Raises:
            DataError: The file is missing, broken, of another schema or of another kind.
        """
        document = read_json(path, "the result of the oracle ladder", _MEND)
        try:
            if document["kind"] != KIND or document["schema"] != SCHEMA:
                raise DataError(f"{path}: is no oracle ladder of schema {SCHEMA}.", _MEND)
            plain = {name: document[name] for name in _PLAIN}
            plain |= {name: tuple(plain[name]) for name in _TUPLES}
            counts: dict[str, CountTable] = {
                rung: _table(document, rung, len(plain["class_names"]) + 1) for rung in RUNGS
            }
            return cls(**plain, counts=counts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: is broken ({type(error).__name__}: {error}).", _MEND) from error


def _table(document: Mapping[str, Any], rung: str, num_classes: int) -> CountTable:
    packed, names = document["counts"][rung], tuple(str(name) for name in document["images"])
    lengths, cells, pixels = (unpack(packed[name], name) for name in ("lengths", "cells", "pixels"))
    if len(lengths) != len(names) or not lengths.sum() == len(cells) == len(pixels):
        raise ValueError(f"the pictures and their counts of '{rung}' do not fit together")
    if len(cells) and cells.max() >= num_classes**2:
        raise ValueError(f"counts of '{rung}' lie outside its classes")
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return CountTable(names, starts, cells, pixels, num_classes)
