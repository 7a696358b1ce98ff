"""Which conventions follow from the counts of a result: what a mean of IoU takes, how sets and pixels are read.

What each published evaluator does was read in its code or measured by running it; see evaluation/metrics.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ovseg_cli.core.evaluation import metrics
from ovseg_cli.core.evaluation.metrics import Areas, Floats, Score
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report import explain_words as words
from ovseg_cli.core.report.explain_gaps import Reading

USUAL = "as ovseg prints it"
_UNION = "mmsegmentation (ZegCLIP, SCLIP family), evaluator of zsseg and FreeSeg, MAFT's log, torchmetrics macro"
_PRESENT = "detectron2 today (SAN, FC-CLIP, CAT-Seg, PixelCLIP, MAFT+)"


@dataclass(frozen=True)
class Row:
    """One convention.

    Attributes:
        key: Short name, for CSV and JSON.
        convention: What is done.
        used_by: Papers and code that do it.
        readings: Score by name of its column; none where the model has to be asked first.
        why: The reason for the gap, or what is to be done for the numbers.
        command: The command that makes the numbers, where they are missing.
    """

    key: str
    convention: str
    used_by: str
    readings: Mapping[str, Reading]
    why: str
    command: str | None = field(default=None)


def mean_rows(result: Result) -> list[Row]:
    """Return what else is printed as "mIoU"; the usual one first."""

    def row(key: str, convention: str, used_by: str, score: Score, why: str, by_picture: bool = False) -> Row:
        return Row(key, convention, used_by, {"mIoU": Reading(result, score, by_picture)}, why)

    return [
        row("union", f"{USUAL}: union", _UNION, metrics.mean_iou, words.of_default(result)),
        row("present", "classes with ground truth", _PRESENT, _present(None), words.of_present(result)),
        row("all-classes", "divided by K", "no evaluator that was read", over_all, words.of_all_classes(result)),
        row(
            "by-picture", "mean of pictures", "torchmetrics segmentation.MeanIoU",
            metrics.mean_iou, words.of_pictures(result), by_picture=True,
        ),
        row("micro", "all TP over all unions", "torchmetrics micro", metrics.micro_iou, words.of_micro(result)),
        row(
            "frequency-weighted", "weighted by pixels (fwIoU)", "detectron2, torchmetrics weighted",
            metrics.frequency_weighted_iou, words.of_pixels(result),
        ),
        row("dice", "Dice (mDice)", "mmsegmentation", metrics.mean_dice, words.of_dice(result)),
    ]  # fmt: skip


def set_rows(result: Result) -> list[Row]:
    """Return what else is printed as score of the seen and of the unseen classes, and as their harmonic mean."""
    present, plain = (sets_of(result, rule) for rule in ("present", "plain"))
    usual = sets_of(result, "union")
    rounded = partial(rounded_harmonic, usual["sIoU"].score, usual["uIoU"].score)
    return [
        Row("union", f"{USUAL}: union", "ZegCLIP, zsseg, FreeSeg", usual, words.of_default(result)),
        Row("present", "classes with ground truth", _PRESENT, present, words.of_present(result)),
        Row("plain-sum", "sum over set size", "ZegFormer (it prints no hIoU)", plain, words.of_plain_sums(result)),
        Row(
            "rounded", "hIoU of rounded means", "published tables, in places",
            {"hIoU": Reading(result, rounded)}, words.of_rounding(result),
        ),
    ]  # fmt: skip


def pixel_rows(result: Result) -> list[Row]:
    """Return what else is printed as accuracy."""
    row = partial(_accuracy, result)
    everywhere = "detectron2 pACC, mmsegmentation aAcc, torchmetrics micro"
    rows = [
        row("pAcc", f"{USUAL}: pAcc", everywhere, metrics.pixel_accuracy, words.of_accuracy(result)),
        row(
            "mAcc", "mean over classes with ground truth", "detectron2 mACC, mmsegmentation mAcc",
            metrics.mean_accuracy, words.of_mean_accuracy(result),
        ),
        row(
            "macro", "mean over classes in label or prediction", "torchmetrics macro accuracy",
            macro_accuracy, words.of_macro_accuracy(result),
        ),
        row("precision", "precision (mPrec)", "ZegCLIP's tables", metrics.mean_precision, words.of_precision(result)),
    ]  # fmt: skip
    if any(result.unseen):
        rows += _set_accuracies(result)
    return rows


def _set_accuracies(result: Result) -> list[Row]:
    sets, row = result.class_sets, partial(_accuracy, result)
    seen, unseen = (partial(metrics.pixel_accuracy, classes=ids) for ids in (sets.seen, sets.unseen))
    return [
        row(
            "pAcc-seen", "pixels of seen classes", "zsseg, FreeSeg: pAcc-base",
            seen, words.of_set_accuracy(result, False),
        ),
        row(
            "pAcc-unseen", "pixels of unseen classes", "zsseg, FreeSeg: pAcc-unbase",
            unseen, words.of_set_accuracy(result, True),
        ),
        row(
            "aAcc-of-tables", "aAcc below the unseen classes", "ZegCLIP, TagCLIP",
            metrics.pixel_accuracy, words.of_overall_in_tables(result),
        ),
        row(
            "unseen_acc", "unseen_acc", "ZegFormer",
            sets_of(result, "plain")["uIoU"].score, words.of_iou_as_accuracy(result),
        ),
    ]  # fmt: skip


def _accuracy(result: Result, key: str, convention: str, used_by: str, score: Score, why: str) -> Row:
    return Row(key, convention, used_by, {"accuracy": Reading(result, score)}, why)


def sets_of(result: Result, rule: str) -> dict[str, Reading]:
    """Return sIoU, uIoU and hIoU under a rule: "union", "present", or "plain" sums, which are NaN without a class."""
    sets, score_of = result.class_sets, {"union": _union, "present": _present, "plain": _plain}[rule]
    seen, unseen = score_of(sets.seen), score_of(sets.unseen)

    def harmonic(areas: Areas) -> Floats:
        return metrics.harmonic_mean(seen(areas), unseen(areas))

    return {name: Reading(result, score) for name, score in (("sIoU", seen), ("uIoU", unseen), ("hIoU", harmonic))}


def over_all(areas: Areas) -> Floats:
    """Sum of IoU over K: what is neither in label nor in prediction counts 0."""
    return np.asarray(np.nan_to_num(metrics.class_iou(areas)).mean(-1))


def macro_accuracy(areas: Areas) -> Floats:
    """Mean of TP / G over the classes in label or prediction: without ground truth it is 0."""
    flags = metrics.averaged(areas, "union")
    accuracy = np.where(flags, np.nan_to_num(metrics.class_accuracy(areas)), 0.0).sum(-1)
    number = flags.sum(-1)
    return np.asarray(np.divide(accuracy, number, out=np.full(np.shape(number), np.nan), where=number > 0))


def rounded_harmonic(seen: Score, unseen: Score, areas: Areas) -> Floats:
    """Harmonic mean of two scores that are rounded to a tenth of a percent."""
    return metrics.harmonic_mean(np.round(seen(areas), 3), np.round(unseen(areas), 3))


def _union(classes: tuple[int, ...] | None) -> Score:
    return partial(metrics.mean_iou, rule="union", classes=classes)


def _present(classes: tuple[int, ...] | None) -> Score:
    return partial(metrics.mean_iou, rule="present", classes=classes)


def _plain(classes: tuple[int, ...]) -> Score:
    """Sum over the classes by their number; NaN where one has no ground truth, NaN of no class."""

    def score(areas: Areas) -> Floats:
        own = np.where(areas.truth > 0, metrics.class_iou(areas), np.nan)[..., list(classes)]
        return np.asarray(own.sum(-1) / max(1, len(classes))) if classes else np.full(own.shape[:-1], np.nan)

    return score
