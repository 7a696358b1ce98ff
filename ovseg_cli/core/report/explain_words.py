"""The reason for a gap between two conventions, in one sentence with the result's own numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.evaluation import metrics
from ovseg_cli.core.evaluation.results import Result

_NAMED = 3  # classes that a sentence names


def absent(result: Result) -> list[int]:
    """Classes that are predicted in these pictures and never occur there."""
    areas = result.areas
    return [int(i) for i in np.flatnonzero((areas.truth == 0) & (areas.predicted > 0))]


def missing(result: Result, classes: Sequence[int] | None = None) -> list[int]:
    """Classes, of those given, without a pixel of ground truth."""
    classes = range(result.num_classes) if classes is None else classes
    return [i for i in classes if result.areas.truth[i] == 0]


def of_default(result: Result) -> str:
    """What the usual score is made of."""
    number = result.num_averaged("union")
    return f"The mean over {number} of {result.num_classes} classes; counts of {pictures(result)} added up first."


def of_present(result: Result) -> str:
    """Classes that are absent from the ground truth and predicted."""
    found, number = absent(result), result.num_averaged("present")
    if not found:
        return f"Every class that is predicted also occurs: both rules take the same {number} classes."
    return (
        f"Predicted but in no label here: {counted(len(found), 'class')} ({named(result, found)}). "
        f"The usual mean counts each with IoU 0, this one leaves them out and takes {number} classes."
    )


def of_all_classes(result: Result) -> str:
    """Classes that neither occur nor are predicted."""
    unused = np.flatnonzero(result.areas.union == 0).tolist()
    if not unused:
        return f"All {result.num_classes} classes occur or are predicted: the usual mean takes them all, too."
    return (
        f"Neither in a label nor predicted: {counted(len(unused), 'class')} ({named(result, unused)}). The usual mean "
        f"leaves them out, here each counts 0."
    )


def of_pictures(result: Result) -> str:
    """Few classes are in one picture."""
    in_picture = (result.counts.areas().union > 0).sum(1)
    return (
        f"A picture has {in_picture.mean():.1f} of the {result.num_averaged()} classes in label or prediction; a class "
        "counts once for each picture that it is in, however few its pixels."
    )


def of_pixels(result: Result) -> str:
    """The most frequent class weighs most."""
    truth = result.areas.truth
    top, iou = int(truth.argmax()), metrics.class_iou(result.areas)
    return (
        f"Classes weigh by their pixels: '{result.class_names[top]}' has {percent(truth[top], truth.sum())} of them "
        f"and an IoU of {100 * iou[top]:.1f}."
    )


def of_micro(result: Result) -> str:
    """A wrong pixel is in the union of two classes."""
    areas = result.areas
    hits, unions = int(areas.hits.sum()), int(areas.union.sum())
    return f"{hits:,} right pixels over {unions:,} in all unions: each wrong pixel stands in two, a right one in one."


def of_dice(result: Result) -> str:
    """Dice against IoU."""
    return "The same overlaps as 2 TP / (G + P) instead of TP / (G + P − TP): never below the IoU."


def of_rounding(result: Result) -> str:
    """HIoU of numbers as a table prints them."""
    scores = result.metrics()
    seen, unseen = (100 * scores[name] for name in ("sIoU", "uIoU"))
    return f"Made of {seen:.1f} and {unseen:.1f}, as a table prints them, instead of {seen:.3f} and {unseen:.3f}."


def of_plain_sums(result: Result) -> str:
    """A class without ground truth makes a plain sum NaN."""
    sets = result.class_sets
    parts = [(name, missing(result, ids)) for name, ids in (("seen", sets.seen), ("unseen", sets.unseen))]
    found = [f"{name}: {named(result, ids)}" for name, ids in parts if ids]
    if not found:
        return "Every class occurs in these pictures, so a plain sum over the set divided by its size is the mean."
    return f"Classes without a pixel here ({'; '.join(found)}) have no IoU, and with them the plain sum is NaN."


def of_background_out(result: Result) -> str:
    """The background is one class among K."""
    place = _background(result)
    iou = 100 * float(metrics.class_iou(result.areas)[place])
    return f"'{result.class_names[place]}' has an IoU of {iou:.1f} and is no part of the mean; its pixels still count."


def of_background_ignored(result: Result) -> str:
    """What is predicted on background is no error any more."""
    place = _background(result)
    row = result.matrix[place]
    return (
        f"{percent(row.sum(), result.matrix.sum())} of the pixels are '{result.class_names[place]}' and are left out: "
        f"{percent(row.sum() - row[place], row.sum())} of them had got another name, an error no more."
    )


def of_accuracy(result: Result) -> str:
    """What the usual accuracy is made of."""
    right, all_pixels = int(result.areas.hits.sum()), int(result.areas.truth.sum())
    return f"{right:,} of {all_pixels:,} labelled pixels are right."


def of_mean_accuracy(result: Result) -> str:
    """Every class weighs the same."""
    accuracy, whole = metrics.class_accuracy(result.areas), float(metrics.pixel_accuracy(result.areas))
    below = int((accuracy < whole).sum())
    return (
        f"Each class weighs the same; {below} of {int((~np.isnan(accuracy)).sum())} lie below the accuracy over pixels."
    )


def of_macro_accuracy(result: Result) -> str:
    """Classes that are predicted alone have an accuracy of 0."""
    found = absent(result)
    if not found:
        return "As mAcc: every class that is predicted also occurs."
    return f"As mAcc, but {counted(len(found), 'class')} that never occur ({named(result, found)}) count 0."


def of_precision(result: Result) -> str:
    """Of what is predicted, not of what is there."""
    number = int((result.areas.predicted > 0).sum())
    return f"How much of what gets a name has that name, mean over the {number} classes that are predicted."


def of_set_accuracy(result: Result, unseen: bool) -> str:
    """Errors towards the other set count."""
    own, other, article = ("unseen", "seen", "a") if unseen else ("seen", "unseen", "an")
    share = percent(pixels_of(result, unseen), result.areas.truth.sum())
    return f"{share} of the pixels are {own}; {taken(result, unseen)} of these get {article} {other} name: an error."


def of_names(result: Result, unseen: bool) -> str:
    """The names of one set alone: its pixels gain, all others must get one of them."""
    own, other, article = ("unseen", "seen", "a") if unseen else ("seen", "unseen", "an")
    share = percent(pixels_of(result, not unseen), result.areas.truth.sum())
    return (
        f"{taken(result, unseen)} of the {own} pixels had {article} {other} name, which does not compete here; but all "
        f"{other} pixels, {share}, now get the name of a class that is {own}."
    )


def of_overall_in_tables(result: Result) -> str:
    """ZegCLIP prints one number three times."""
    scores = result.metrics()
    seen, unseen = (f"{100 * scores[name]:.1f}" for name in ("pAcc_seen", "pAcc_unseen"))
    return f"Its tables of seen and of unseen classes both print the overall accuracy; their own are {seen}, {unseen}."


def of_iou_as_accuracy(result: Result) -> str:
    """ZegFormer's key holds another number."""
    own = f"the accuracy of unseen pixels is {100 * result.metrics()['pAcc_unseen']:.1f}"
    lacking = missing(result, result.class_sets.unseen)
    nan = (
        f", here NaN, since {named(result, lacking)} {'have' if len(lacking) > 1 else 'has'} no pixel"
        if lacking
        else ""
    )
    return f"The key holds the mean IoU{nan}; {own}."


def taken(result: Result, unseen: bool) -> str:
    """Which share of the pixels of one set got a name of the other."""
    flags = np.array(result.unseen) == unseen
    wrong = result.matrix[flags][:, ~flags].sum()
    return percent(wrong, pixels_of(result, unseen))


def pixels_of(result: Result, unseen: bool) -> int:
    """Labelled pixels of the seen or of the unseen classes."""
    return int(result.areas.truth[np.array(result.unseen) == unseen].sum())


def named(result: Result, classes: Sequence[int]) -> str:
    """Name a few classes, and say how many more there are."""
    names = [f"'{result.class_names[i]}'" for i in classes[:_NAMED]]
    more = len(classes) - _NAMED
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def counted(number: int, what: str) -> str:
    """Return "1 class", "3 classes"."""
    return f"{number} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


def pictures(result: Result) -> str:
    """Return how many pictures there are, in words."""
    return counted(len(result.images), "picture")


def percent(part: int | float | NDArray[np.int64], whole: int | float | NDArray[np.int64]) -> str:
    """Return a share as "12.3 %"; of nothing it is "0 %"."""
    return f"{100 * float(part) / float(whole):.1f} %" if float(whole) else "0 %"


def _background(result: Result) -> int:
    assert result.background is not None
    return result.background
