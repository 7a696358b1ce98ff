"""How well were masks named? Scores of the records of many pictures; fractions, 0 to 1, NaN where there is none.

- *top1*, *top5*: share of masks whose true class is the best, or among the best five.
- *class-top1*: mean over classes that have masks of the top1 of their masks.
- *area-top1*: top1 with each mask counted as often as it has pixels.
- *mIoU*: of the painting (mask_records.py), by either rule for classes that are painted but not there.
- *hTop1*, *hIoU*: harmonic means of the seen and the unseen classes' top1 and mIoU.
- *ECE*: calibration.py, of the best class's probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.evaluation.calibration import Calibration, calibration_of
from ovseg_cli.core.evaluation.mask_records import UNIT, Ints, MaskRecord, painting_matrix
from ovseg_cli.core.evaluation.metrics import (
    Areas,
    ClassSets,
    Rule,
    averaged,
    harmonic_mean,
    mean_iou,
    pixel_accuracy,
)

SIZES = (("small", 0.0, 0.01), ("medium", 0.01, 0.1), ("large", 0.1, 1.0))
"""Name, lower and upper bound of a mask's share of its picture: [low, high), the last with 1."""
METRICS = ("top1", "top5", "class-top1", "area-top1", "mIoU", "pAcc", "hTop1", "hIoU")
"""Scores of which more is better."""


@dataclass(frozen=True, eq=False)
class NamedMasks:
    """The masks of all pictures, (n,) each.

    Attributes:
        truth: True class.
        areas: Pixels.
        shares: Pixels over those of the picture.
        best: Probability of the best class.
        is_right: Whether the best class is the true one.
        is_near: Whether the true class is among the best five.
    """

    truth: Ints
    areas: Ints
    shares: NDArray[np.float64]
    best: NDArray[np.float64]
    is_right: NDArray[np.bool_]
    is_near: NDArray[np.bool_]

    @classmethod
    def of(cls, records: Sequence[MaskRecord]) -> "NamedMasks":
        """Put the masks of pictures one behind the other."""
        records = [record for record in records if len(record.areas)]
        empty = np.zeros(0, np.int64)
        truth = np.concatenate([empty, *(record.truth() for record in records)])
        areas = np.concatenate([empty, *(record.areas for record in records)])
        shares = np.concatenate([empty.astype(float), *(record.areas / record.picture[0] for record in records)])
        width = len(records[0].tops) // len(records[0].areas) if records else 1
        tops = np.concatenate([empty, *(record.tops for record in records)]).reshape(-1, width)
        best = np.concatenate([empty, *(record.probabilities for record in records)]).reshape(-1, width)[:, 0] / UNIT
        return cls(truth, areas, shares, best, tops[:, 0] == truth, (tops == truth[:, None]).any(1))

    def __len__(self) -> int:
        return len(self.truth)

    def where(self, flags: NDArray[np.bool_]) -> "NamedMasks":
        """Return some of them."""
        return NamedMasks(*(getattr(self, name)[flags] for name in self.__dataclass_fields__))

    def of_classes(self, ids: Sequence[int]) -> "NamedMasks":
        """Return those whose true class is one of `ids`."""
        return self.where(np.isin(self.truth, list(ids)))

    def of_size(self, low: float, high: float) -> "NamedMasks":
        """Return those whose share of the picture lies in [low, high), with 1 where that is the upper bound."""
        return self.where((self.shares >= low) & ((self.shares < high) | (high >= 1)))

    def calibration(self) -> Calibration:
        """Compare the probabilities of the best classes with what came true."""
        return calibration_of(self.best, self.is_right)

    def accuracies(self) -> dict[str, float]:
        """Return top1, top5, class-top1, area-top1."""
        ids = np.unique(self.truth)
        by_class = [self.is_right[self.truth == i].mean() for i in ids]
        return {
            "top1": _share(self.is_right),
            "top5": _share(self.is_near),
            "class-top1": _share(np.array(by_class)),
            "area-top1": _share(self.is_right, self.areas),
        }


def painting_areas(records: Sequence[MaskRecord], num_classes: int) -> Areas:
    """Return what scores of the paintings are made of; pixels without a mask are missed, and predicted as nothing."""
    return areas_of(painting_matrix(records, num_classes))


def areas_of(matrix: Ints) -> Areas:
    """Read a (K + 1, K + 1) matrix whose last column holds pixels that were given no class."""
    whole = Areas.of(matrix)
    return Areas(whole.hits[:-1], whole.truth[:-1], whole.predicted[:-1])


def group_scores(
    masks: NamedMasks, areas: Areas, sets: ClassSets, ids: Sequence[int], rule: Rule
) -> dict[str, float | int]:
    """Return the scores of masks whose true class is one of `ids`, with their number and that of their classes.

    The harmonic means do not depend on `ids`; they are NaN without unseen classes.
    """
    own = masks.of_classes(ids)
    tops = [masks.of_classes(group).accuracies()["top1"] for group in (sets.seen, sets.unseen)]
    ious = [mean_iou(areas, rule, group) for group in (sets.seen, sets.unseen)]
    calibration = own.calibration()
    return {
        "masks": len(own),
        "classes": len(np.unique(own.truth)),
        **own.accuracies(),
        "mIoU": float(mean_iou(areas, rule, ids)),
        "pAcc": float(pixel_accuracy(areas, ids)),
        "hTop1": float(harmonic_mean(*tops)),
        "hIoU": float(harmonic_mean(*ious)),
        "ECE": calibration.error,
        "confidence": calibration.confidence,
        "averaged": int(averaged(areas, rule, ids).sum()),
    }


def size_scores(masks: NamedMasks) -> list[dict[str, Any]]:
    """Return accuracies by the share of the picture that a mask covers, one entry for each of `SIZES`."""
    parts = [(name, low, high, masks.of_size(low, high)) for name, low, high in SIZES]
    return [
        {"size": name, "low": low, "high": high, "masks": len(own), **own.accuracies()}
        for name, low, high, own in parts
    ]


def class_scores(masks: NamedMasks, num_classes: int) -> list[dict[str, Any]]:
    """Return masks, top1 and top5 of each class that has masks."""
    parts = [(i, masks.of_classes([i])) for i in range(num_classes)]
    return [
        {"id": i, "masks": len(own), "top1": _share(own.is_right), "top5": _share(own.is_near)}
        for i, own in parts
        if len(own)
    ]


def _share(flags: NDArray[Any], weights: NDArray[Any] | None = None) -> float:
    """Mean, weighted; NaN of nothing."""
    return float(np.average(flags, weights=weights)) if len(flags) else float("nan")
