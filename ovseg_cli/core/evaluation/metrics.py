"""Which score follows from the counts? Pure functions of a confusion matrix, each as the evaluation notes define it.

M[g, p] is the number of pixels of ground truth g predicted as p, (K, K) int64, summed over the whole data set, ignored
pixels left out. TP = M[c, c], G = row sum, P = column sum, U = G + P − TP. Scores are fractions, 0 to 1; percent is a
matter of printing.

NaN policy: a class whose denominator is zero has no score (NaN) and is left out of means; a mean over no class is NaN.
No mean divides by K. `num_averaged` says over how many classes a mean was taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.errors import ShapeError

Rule = Literal["union", "present"]
BOTH_RULES: tuple[Rule, ...] = ("union", "present")
"""Which classes a mean of IoU takes: "union" those in ground truth or prediction, "present" those in ground truth."""

EVALUATOR_RULES: dict[str, Rule] = {
    "detectron2 SemSegEvaluator": "present",
    "GeneralizedSemSegEvaluator (zsseg, FreeSeg, MAFT)": "union",
    "SemSegGzeroEvaluator (ZegFormer)": "union",
    "mmsegmentation (ZegCLIP, SCLIP and others)": "union",
    "torchmetrics MulticlassJaccardIndex": "union",
}
"""The rule that each published evaluator follows."""

Split = Literal["all", "seen", "unseen"]
"""Which classes are reported; it does not change what was predicted."""

Matrix = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Areas:
    """What all scores are made of, each (..., K) int64; leading axes are resamples or pictures.

    Attributes:
        hits: TP, pixels of the class predicted as such.
        truth: G, pixels of the class.
        predicted: P, pixels predicted as the class.
    """

    hits: NDArray[np.int64]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]

    @classmethod
    def of(cls, matrix: Matrix) -> "Areas":
        """Read a (K, K) matrix.

        Raises:
            ShapeError: It is not square.
        """
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ShapeError(f"a confusion matrix is (K, K), but got {matrix.shape}")
        return cls(np.diagonal(matrix).copy(), matrix.sum(1), matrix.sum(0))

    @property
    def union(self) -> NDArray[np.int64]:
        """U, pixels of the class in ground truth or prediction."""
        return self.truth + self.predicted - self.hits


def class_iou(areas: Areas) -> Floats:
    """IoU = TP / U for each class; NaN where the class is neither in ground truth nor in prediction."""
    return _ratio(areas.hits, areas.union)


def class_accuracy(areas: Areas) -> Floats:
    """Acc = TP / G (recall); NaN without ground truth."""
    return _ratio(areas.hits, areas.truth)


def class_precision(areas: Areas) -> Floats:
    """Precision = TP / P; NaN for a class that is never predicted."""
    return _ratio(areas.hits, areas.predicted)


def class_dice(areas: Areas) -> Floats:
    """Dice = 2 TP / (G + P); NaN where the class is neither in ground truth nor in prediction."""
    return _ratio(2 * areas.hits, areas.truth + areas.predicted)


def averaged(areas: Areas, rule: Rule, classes: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Return (..., K) flags of the classes that a mean of IoU takes under a rule, within `classes` where given."""
    flags = (areas.union if rule == "union" else areas.truth) > 0
    return flags if classes is None else flags & _members(flags.shape[-1], classes)


def mean_iou(areas: Areas, rule: Rule = "union", classes: Sequence[int] | None = None) -> Floats:
    """Mean IoU over the classes of `averaged`; sIoU and uIoU are this with the seen or the unseen classes."""
    return _mean(class_iou(areas), averaged(areas, rule, classes))


def mean_accuracy(areas: Areas, classes: Sequence[int] | None = None) -> Floats:
    """mAcc: mean of Acc over classes with ground truth (the same under both rules)."""
    return _mean(class_accuracy(areas), averaged(areas, "present", classes))


def pixel_accuracy(areas: Areas, classes: Sequence[int] | None = None) -> Floats:
    """pAcc: correct pixels of a set of classes over its pixels; errors towards the other set count as errors."""
    members = _members(areas.truth.shape[-1], classes)
    return _ratio((areas.hits * members).sum(-1), (areas.truth * members).sum(-1))


def frequency_weighted_iou(areas: Areas, classes: Sequence[int] | None = None) -> Floats:
    """fwIoU: mean of IoU weighted by ground-truth pixels."""
    truth = areas.truth * _members(areas.truth.shape[-1], classes)
    return _ratio((truth * np.nan_to_num(class_iou(areas))).sum(-1), truth.sum(-1))


def harmonic_mean(first: Floats | float, second: Floats | float) -> Floats:
    """Harmonic mean 2 s u / (s + u) of two set means: 0 where one is 0, NaN where one is NaN (a set without class)."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    total = first + second
    return np.where(total == 0, 0.0, 2 * first * second / np.where(total == 0, 1.0, total))


def harmonic_iou(areas: Areas, seen: Sequence[int], unseen: Sequence[int], rule: Rule = "union") -> Floats:
    """Harmonic mean of sIoU and uIoU."""
    return harmonic_mean(mean_iou(areas, rule, seen), mean_iou(areas, rule, unseen))


@dataclass(frozen=True)
class ClassSets:
    """The sets of train ids that scores are averaged over.

    Attributes:
        seen: Classes known in training.
        unseen: Classes held out; empty without a class split.
        things: Countable classes, or None where the data set does not say.
    """

    seen: tuple[int, ...]
    unseen: tuple[int, ...] = ()
    things: tuple[int, ...] | None = None

    @classmethod
    def of_flags(cls, unseen: Sequence[bool], is_thing: Sequence[bool] | None = None) -> "ClassSets":
        """Build from flags in train-id order."""
        things = None if is_thing is None else tuple(i for i, flag in enumerate(is_thing) if flag)
        return cls(
            tuple(i for i, flag in enumerate(unseen) if not flag),
            tuple(i for i, flag in enumerate(unseen) if flag),
            things,
        )

    def named(self) -> dict[str, tuple[int, ...]]:
        """Return every set by name: all, seen, unseen, and each of these in stuff and things where known."""
        everything = tuple(sorted((*self.seen, *self.unseen)))
        sets = {"all": everything, "seen": self.seen, "unseen": self.unseen}
        if self.things is not None:
            for name, ids in list(sets.items()):
                sets[f"{name}_stuff"] = tuple(i for i in ids if i not in self.things)
                sets[f"{name}_things"] = tuple(i for i in ids if i in self.things)
        return sets


Score = Callable[[Areas], Floats]
"""A score of areas with any leading axes; it keeps these axes."""


def scores_by_name(sets: ClassSets, rule: Rule, split: Split = "all") -> dict[str, Score]:
    """Return every summary score by name, for one rule.

    pAcc, mAcc, fwIoU and mIoU are those of the split's classes. sIoU, uIoU, hIoU and the pixel and mean accuracy of
    both sets do not depend on the split; they are NaN without unseen classes. Where things are known, mIoU_all_stuff,
    mIoU_unseen_things and so on follow for each set that is not empty.
    """
    named = sets.named()
    ids = named[split]
    scores: dict[str, Score] = {
        "pAcc": partial(pixel_accuracy, classes=ids),
        "mAcc": partial(mean_accuracy, classes=ids),
        "fwIoU": partial(frequency_weighted_iou, classes=ids),
        "mIoU": partial(mean_iou, rule=rule, classes=ids),
        "sIoU": partial(mean_iou, rule=rule, classes=sets.seen),
        "uIoU": partial(mean_iou, rule=rule, classes=sets.unseen),
        "hIoU": partial(harmonic_iou, seen=sets.seen, unseen=sets.unseen, rule=rule),
    }
    for name in ("seen", "unseen"):
        scores[f"pAcc_{name}"] = partial(pixel_accuracy, classes=named[name])
        scores[f"mAcc_{name}"] = partial(mean_accuracy, classes=named[name])
    for name, members in named.items():
        if members and name.endswith(("_stuff", "_things")):
            scores[f"mIoU_{name}"] = partial(mean_iou, rule=rule, classes=members)
    return scores


def micro_iou(areas: Areas) -> Floats:
    """Sum of TP over sum of U: torchmetrics' "micro" Jaccard index, a convention of its own."""
    return _ratio(areas.hits.sum(-1), areas.union.sum(-1))


def mean_dice(areas: Areas) -> Floats:
    """Mean of Dice over classes in ground truth or prediction: mDice of mmsegmentation."""
    return _mean(class_dice(areas), areas.union > 0)


def mean_precision(areas: Areas) -> Floats:
    """Mean of precision over classes that are predicted: mPrec of ZegCLIP's tables."""
    return _mean(class_precision(areas), areas.predicted > 0)


def _ratio(numerator: NDArray, denominator: NDArray) -> Floats:
    """Divide; NaN where the denominator is zero."""
    result = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) > 0)
    return result


def _mean(values: Floats, flags: NDArray[np.bool_]) -> Floats:
    return _ratio(np.where(flags, values, 0.0).sum(-1), flags.sum(-1))


def _members(num_classes: int, classes: Sequence[int] | None) -> NDArray[np.bool_]:
    flags = np.zeros(num_classes, dtype=bool)
    flags[slice(None) if classes is None else list(classes)] = True
    return flags
