"""Masks that have names become the scores that their definitions give, worked by hand and by independent code."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as independent

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation import mask_records
from ovseg_cli.core.evaluation.calibration import calibration_of
from ovseg_cli.core.evaluation.mask_records import MaskRecord, class_pixels, is_known, paint, record_picture
from ovseg_cli.core.evaluation.mask_scores import (
    NamedMasks,
    class_scores,
    group_scores,
    painting_areas,
    size_scores,
)
from ovseg_cli.core.evaluation.metrics import ClassSets

IGNORED = 255
# Two classes in 2 x 5 pixels: left 0, right 1, one pixel without class.
LABEL = np.array([[0, 0, 1, 1, 1], [0, 0, 1, 1, IGNORED]])
MASKS = np.array(
    [
        [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0]],  # class 0, 4 pixels
        [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1]],  # class 1, 6 pixels, one without class
        [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0]],  # one pixel of each: the lower id, 2 pixels
    ],
    bool,
)
NAMED = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])  # right, wrong, wrong


def record_of(masks, probabilities, label=LABEL, classes=2):
    pixels = class_pixels(masks, label, classes, IGNORED)
    kept = is_known(masks.sum((1, 2)), pixels)
    return record_picture(masks[kept], pixels[kept], probabilities[kept], label, IGNORED, int((~kept).sum()))


def scores_of(records, classes=2, unseen=(), rule="union"):
    sets = ClassSets.of_flags([i in unseen for i in range(classes)])
    masks, areas = NamedMasks.of(records), painting_areas(records, classes)
    return {name: group_scores(masks, areas, sets, ids, rule) for name, ids in sets.named().items()}


def test_three_masks_of_two_classes_are_as_worked_by_hand():
    record = record_of(MASKS, NAMED)
    assert record.truth().tolist() == [0, 1, 0] and record.areas.tolist() == [4, 6, 2]
    assert record.tops.reshape(3, 2).tolist() == [[0, 1], [0, 1], [1, 0]] and record.picture.tolist() == [10, 0]
    scores = scores_of([record], unseen=(1,))
    every = scores["all"]
    assert (every["masks"], every["classes"], every["top5"]) == (3, 2, 1)
    assert every["top1"] == pytest.approx(1 / 3)
    assert every["class-top1"] == pytest.approx((1 / 2 + 0) / 2)
    assert every["area-top1"] == pytest.approx(4 / 12)
    # painted: the large mask says 0 on the right, the next 0 on the left, the small one 1 on two pixels of the top row
    # class 0: 3 hits, 4 true, 8 - 1 + ... of the 9 labelled pixels 7 are painted 0, 2 are painted 1 (one rightly)
    assert every["mIoU"] == pytest.approx((3 / (4 + 7 - 3) + 1 / (5 + 2 - 1)) / 2)
    assert every["pAcc"] == pytest.approx(4 / 9)
    assert (scores["seen"]["top1"], scores["unseen"]["top1"], every["hTop1"]) == (1 / 2, 0, 0)
    assert every["hIoU"] == pytest.approx(2 * (3 / 8) * (1 / 6) / (3 / 8 + 1 / 6))
    # three bins of 15: |1 - .9|, |0 - .7|, |0 - .8|, a third each
    assert every["ECE"] == pytest.approx((0.1 + 0.7 + 0.8) / 3) and every["confidence"] == pytest.approx(0.8)


def test_smaller_masks_lie_on_larger_ones_and_uncovered_pixels_are_missed():
    canvas = paint(MASKS[[2, 1]], np.array([1, 0]), nothing=9)
    assert canvas.tolist() == [[9, 1, 1, 0, 0], [9, 9, 0, 0, 0]]
    scores = scores_of([record_of(MASKS[:1], np.array([[1.0, 0.0]]))])["all"]
    assert (scores["top1"], scores["mIoU"], scores["pAcc"]) == (1, 0.5, pytest.approx(4 / 9))


def test_masks_with_less_than_half_known_pixels_and_empty_ones_are_left_out():
    label = np.array([[0, 0, IGNORED, IGNORED, IGNORED]])
    masks = np.array([[[0, 1, 1, 0, 0]], [[0, 1, 1, 1, 0]], [[0, 0, 0, 0, 1]], [[0, 0, 0, 0, 0]]], bool)
    record = record_of(masks, np.tile([0.5, 0.5], (4, 1)), label)
    assert record.areas.tolist() == [2] and record.picture[1] == 3


def test_nothing_at_all_has_no_scores():
    nothing = record_of(MASKS[:0], NAMED[:0])
    for records in ([], [nothing], [record_of(MASKS[:0], NAMED[:0], np.full((2, 5), IGNORED))]):
        scores = scores_of(records)["all"]
        assert scores["masks"] == 0 and math.isnan(scores["top1"]) and math.isnan(scores["ECE"])
    assert scores_of([nothing])["all"]["mIoU"] == 0  # two classes are there, and nobody found them
    assert math.isnan(scores_of([])["all"]["mIoU"])
    with_others = [nothing, record_of(MASKS, NAMED)]
    assert scores_of(with_others)["all"]["top1"] == pytest.approx(1 / 3)
    assert [part["masks"] for part in size_scores(NamedMasks.of([nothing]))] == [0, 0, 0]


def test_one_class_is_always_named_rightly():
    label = np.zeros((2, 5), int)
    scores = scores_of([record_of(MASKS, np.ones((3, 1)), label, 1)], 1)["all"]
    assert (scores["top1"], scores["class-top1"], scores["mIoU"], scores["ECE"]) == (1, 1, 1, 0)


def test_sizes_are_shares_of_the_picture():
    label = np.zeros((10, 20), int)
    masks = np.zeros((4, 10, 20), bool)
    masks[0, 0, 0] = masks[1, 0, :2] = masks[2, 0, :20] = masks[3] = True  # 0.5 %, 1 %, 10 %, 100 %
    named = np.array([[0.6, 0.4], [0.4, 0.6], [0.6, 0.4], [0.6, 0.4]])
    small, medium, large = size_scores(NamedMasks.of([record_of(masks, named, label)]))
    assert [(p["size"], p["masks"], p["top1"]) for p in (small, medium, large)] == [
        ("small", 1, 1),
        ("medium", 1, 0),
        ("large", 2, 1),
    ]


def test_label_outside_the_classes_is_refused_by_name():
    with pytest.raises(DataError, match="p7: .* 2 classes"):
        class_pixels(MASKS, np.full((2, 5), 3), 2, IGNORED, "p7")


# --- beside independent code ---------------------------------------------------------------------------------------


@st.composite
def drawn(draw, classes=7):
    """A few pictures: labels, masks, probabilities with distinct values."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    pictures = []
    for _ in range(draw(st.integers(1, 3))):
        label = rng.integers(0, classes, (6, 7))
        label[rng.random((6, 7)) < 0.2] = IGNORED
        masks = rng.random((draw(st.integers(0, 5)), 6, 7)) < rng.random()
        logits = rng.normal(0, 2, (len(masks), classes))
        pictures.append((label, masks, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)))
    return pictures


def plain_error(probabilities, right, bins=15):
    """ECE as one would write it down, bin by bin."""
    total = 0.0
    for b in range(bins):
        inside = [i for i, p in enumerate(probabilities) if b / bins < p <= (b + 1) / bins or (b == 0 and p == 0)]
        if inside:
            confidence = sum(probabilities[i] for i in inside) / len(inside)
            total += len(inside) * abs(sum(right[i] for i in inside) / len(inside) - confidence)
    return total / len(probabilities)


@given(drawn())
def test_accuracies_are_scikit_learn_s_and_the_calibration_error_is_the_plain_one(pictures):
    truth, scores, areas = [], [], []
    for label, masks, named in pictures:
        for mask, row in zip(masks, named, strict=True):
            inside = label[mask]
            known = inside[inside != IGNORED]
            if len(known) and 2 * len(known) >= len(inside):
                truth.append(int(np.bincount(known).argmax()))
                scores.append(np.round(row, 6))
                areas.append(len(inside))
    found = scores_of([record_of(masks, named, label, 7) for label, masks, named in pictures], 7)["all"]
    assert found["masks"] == len(truth)
    if not truth:
        return
    scores = np.array(scores)
    best = scores.argmax(1)
    assert found["top1"] == pytest.approx(independent.accuracy_score(truth, best))
    assert found["top5"] == pytest.approx(independent.top_k_accuracy_score(truth, scores, k=5, labels=range(7)))
    assert found["area-top1"] == pytest.approx(independent.accuracy_score(truth, best, sample_weight=areas))
    recalls = independent.recall_score(truth, best, labels=sorted(set(truth)), average="macro", zero_division=0)
    assert found["class-top1"] == pytest.approx(recalls)
    assert found["ECE"] == pytest.approx(plain_error(scores.max(1), best == truth))


@given(drawn(), st.integers(0, 99))
def test_order_of_masks_and_pictures_changes_nothing(pictures, seed):
    rng = np.random.default_rng(seed)
    before = [record_of(masks, named, label, 7) for label, masks, named in pictures]
    after = []
    for label, masks, named in [pictures[i] for i in rng.permutation(len(pictures))]:
        order = rng.permutation(len(masks))
        after.append(record_of(masks[order], named[order], label, 7))
    for rule in ("union", "present"):
        own, other = scores_of(before, 7, (1, 2), rule), scores_of(after, 7, (1, 2), rule)
        for group in own:
            assert own[group] == pytest.approx(other[group], nan_ok=True)


@given(drawn())
def test_right_and_certain_answers_to_ground_truth_masks_score_one_hundred_and_no_calibration_error(pictures):
    records = []
    for label, _, _ in pictures:
        ids = np.unique(label[label != IGNORED])
        masks = np.stack([label == i for i in ids])
        records.append(record_of(masks, np.eye(7)[ids], label, 7))
    scores = scores_of(records, 7)["all"]
    assert all(scores[name] == 1 for name in ("top1", "top5", "class-top1", "area-top1", "mIoU", "pAcc"))
    assert scores["ECE"] == 0
    assert all(part["top1"] == 1 for part in class_scores(NamedMasks.of(records), 7))


@given(drawn())
def test_record_comes_back_from_json_as_it_was(pictures):
    for label, masks, named in pictures:
        record = record_of(masks, named, label, 7)
        again = MaskRecord.of_plain(json.loads(json.dumps(record.plain())))
        assert again.plain() == record.plain()


def test_arrays_that_do_not_fit_together_are_refused():
    plain = record_of(MASKS, NAMED).plain()
    for name in mask_records.ARRAYS:
        with pytest.raises(ValueError, match="fit together"):
            MaskRecord.of_plain({**plain, name: plain[name][:-1]})


def test_calibration_of_halves_is_as_worked_by_hand():
    # .5 belongs to (7/15, 8/15]; 1 to the last bin, 0 to the first
    found = calibration_of([0.5, 0.5, 1.0, 0.0], [True, False, True, False])
    assert found.error == 0 and [part.masks for part in found.bins] == [1, 2, 1]
    assert [part.low for part in found.bins] == [0, 7 / 15, 14 / 15]
    assert calibration_of([0.2, 0.2], [True, False], bins=5).bins[0].low == 0  # (0, .2]
    assert calibration_of([1.0] * 4, [True, False, False, False]).error == 0.75
