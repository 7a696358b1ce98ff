"""What does the oracle ladder leave behind? Counts of every picture under the four rungs, and one sentence.

`ladder` holds the scores in percent, by rule, classes and rung. `counts` packs the counts of each rung as
`result_files` does, of K + 1 classes: the last one is for pixels that were given no class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.mask_results import percent
from ovseg_cli.core.evaluation.mask_scores import areas_of
from ovseg_cli.core.evaluation.masks_file import MasksFile
from ovseg_cli.core.evaluation.metrics import BOTH_RULES, ClassSets, Rule, harmonic_iou, mean_iou, pixel_accuracy
from ovseg_cli.core.evaluation.oracle import RUNGS
from ovseg_cli.core.evaluation.result_files import pack, unpack

_ALIKE = 1.0  # points of mIoU


@dataclass(frozen=True, kw_only=True, eq=False)
class OracleResult(MasksFile):
    """Four label maps of each picture, counted.

    Attributes:
        counts: Counts of K + 1 classes of every picture, by rung.
    """

    kind = "ovseg-oracle"
    folder = "oracle"
    what = "the oracle ladder"
    mend = "Climb the ladder again: ovseg eval --task oracle"

    counts: Mapping[str, CountTable]

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
        if own is None or masks is None or names is None:  # names alone may be of them, and score 0
            return "Nothing to compare: no pixel of these classes is labelled."
        by_masks, by_names = masks - own, names - own
        gains = f"right names would add {by_names:.1f} points of mIoU, right masks {by_masks:.1f}"
        if max(by_masks, by_names) < _ALIKE:
            return f"Neither masks nor names alone hold it back: {gains}."
        if abs(by_masks - by_names) < _ALIKE:
            return f"Masks and names hold it back alike: {gains}."
        return f"{'Names' if by_names > by_masks else 'Masks'} hold it back: {gains}."

    def summary(self) -> dict[str, Any]:
        """Return the ladder and what it says as JSON values."""
        return {
            "pictures": len(self.counts[RUNGS[0]]),
            "ladder": {
                rule: {group: {rung: self.scores(rung, group, rule) for rung in RUNGS} for group in self.groups}
                for rule in BOTH_RULES
            },
            "verdict": {group: self.verdict(group) for group in self.groups},
        }

    def packed(self) -> dict[str, Any]:
        """Return the counts of each rung."""
        counts = {
            rung: {
                "lengths": pack(np.diff(table.starts)),
                "cells": pack(table.cells),
                "pixels": pack(table.pixels),
            }
            for rung, table in self.counts.items()
        }
        return {"images": list(self.counts[RUNGS[0]].names), "counts": counts}

    @classmethod
    def unpacked(cls, document: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
        """Return the counts."""
        return {"counts": {rung: _table(document, rung, num_classes + 1) for rung in RUNGS}}


def _table(document: Mapping[str, Any], rung: str, num_classes: int) -> CountTable:
    packed, names = document["counts"][rung], tuple(str(name) for name in document["images"])
    lengths, cells, pixels = (unpack(packed[name], name) for name in ("lengths", "cells", "pixels"))
    if len(lengths) != len(names) or not lengths.sum() == len(cells) == len(pixels):
        raise ValueError(f"the pictures and their counts of '{rung}' do not fit together")
    if len(cells) and cells.max() >= num_classes**2:
        raise ValueError(f"counts of '{rung}' lie outside its classes")
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return CountTable(names, starts, cells, pixels, num_classes)
