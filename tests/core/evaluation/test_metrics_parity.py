"""Every number that the official evaluators gave for the recorded label maps, reproduced from our counts.

The numbers come from detectron2, the evaluators of zsseg / FreeSeg / MAFT and of ZegFormer, mmsegmentation, ZegCLIP and
torchmetrics, run unchanged. What is only a quirk of one of them is written here, beside its number.
"""

import json
import math

import numpy as np
import pytest
import torch

from ovseg_cli.core.evaluation import metrics as m
from ovseg_cli.core.evaluation.confusion import add, count

EXACT = {"rel": 1e-9, "abs": 1e-9, "nan_ok": True}
FLOAT32 = {"rel": 1e-5, "abs": 1e-6, "nan_ok": True}


@pytest.fixture(scope="module")
def cases(parity):
    folder = parity / "metrics"
    if not (folder / "manifest.json").is_file():
        pytest.skip(f"{folder / 'manifest.json'} is absent")
    names = json.loads((folder / "manifest.json").read_text())["cases"]
    return [Case(folder / name) for name in names]


class Case:
    def __init__(self, folder):
        from PIL import Image

        document = json.loads((folder / "expected.json").read_text())
        case, self.expected = document["case"], document["expected"]
        self.name, self.num_classes = case["name"], case["num_classes"]
        self.seen, self.unseen = case["seen"], case["unseen"]
        self.maps = []
        for i in range(case["num_images"]):
            pair = [np.asarray(Image.open(folder / f"{kind}_{i:03d}.png")) for kind in ("pred", "gt")]
            prediction, label = (torch.from_numpy(array.astype(np.int64)) for array in pair)
            # CAT-Seg's VOCbEvaluator: with more names than classes, every id from the background on is background
            self.maps.append((prediction.clamp_max(self.num_classes - 1), label))
        ignore = case["ignore_value"]
        self.counts = [count(prediction, label, self.num_classes, ignore) for prediction, label in self.maps]
        self.matrix = add(self.counts, self.num_classes)
        self.areas = m.Areas.of(self.matrix)

    def evaluator(self, name):
        return self.expected.get(name)


def numbers(values):
    return [math.nan if v is None else v for v in values]


def number(value):
    return math.nan if value is None else value


def percent(score):
    return 100 * float(score)


def with_evaluator(cases, name, key=None):
    """Cases that record an evaluator, and that value of it where a key is given; the test is skipped without one."""
    found = [(case, case.evaluator(name)) for case in cases if case.evaluator(name) is not None]
    if key:
        found = [(case, expected[key]) for case, expected in found if expected.get(key) is not None]
    if not found:
        pytest.skip(f"no case of these fixtures records {name}{f' {key}' if key else ''}")
    return found


def test_areas_are_exact(cases):
    for case, areas in with_evaluator(cases, "mmseg_areas"):
        assert case.areas.hits.tolist() == areas["intersect"], case.name
        assert case.areas.union.tolist() == areas["union"], case.name
        assert case.areas.predicted.tolist() == areas["pred"], case.name
        assert case.areas.truth.tolist() == areas["label"], case.name


def test_matrix_is_exact(cases):
    for case, matrix in with_evaluator(cases, "confusion_pred_rows_gt_cols"):
        assert case.matrix.T.tolist() == [row[:-1] for row in matrix[:-1]], case.name


def test_detectron2(cases):
    rule = m.EVALUATOR_RULES["detectron2 SemSegEvaluator"]
    for case, expected in with_evaluator(cases, "detectron2_sem_seg"):
        assert percent(m.mean_iou(case.areas, rule)) == pytest.approx(number(expected["mIoU"]), **EXACT), case.name
        check_four(case, expected)
        # IoU is filled only where there is ground truth
        iou = np.where(case.areas.truth > 0, m.class_iou(case.areas), np.nan)
        assert 100 * iou == pytest.approx(np.array(numbers(expected["IoU"])), **EXACT), case.name
        accuracy = 100 * m.class_accuracy(case.areas)
        assert accuracy == pytest.approx(np.array(numbers(expected["ACC"])), **EXACT), case.name


def check_four(case, expected):
    assert percent(m.frequency_weighted_iou(case.areas)) == pytest.approx(number(expected["fwIoU"]), **EXACT), case.name
    assert percent(m.mean_accuracy(case.areas)) == pytest.approx(number(expected["mACC"]), **EXACT), case.name
    assert percent(m.pixel_accuracy(case.areas)) == pytest.approx(number(expected["pACC"]), **EXACT), case.name


def test_generalized_evaluator_of_zsseg_freeseg_and_maft(cases):
    rule = m.EVALUATOR_RULES["GeneralizedSemSegEvaluator (zsseg, FreeSeg, MAFT)"]
    for case, expected in with_evaluator(cases, "generalized_sem_seg"):
        check_four(case, expected)
        assert percent(m.mean_iou(case.areas, rule)) == pytest.approx(number(expected["mIoU"]), **EXACT), case.name
        if case.seen is None:
            continue
        found = {
            "mIoU-base": m.mean_iou(case.areas, rule, case.seen),
            "mIoU-unbase": m.mean_iou(case.areas, rule, case.unseen),
            "pAcc-base": m.pixel_accuracy(case.areas, case.seen),
            "pAcc-unbase": m.pixel_accuracy(case.areas, case.unseen),
            "hIoU-base": m.harmonic_iou(case.areas, case.seen, case.unseen, rule),
        }
        for key, value in found.items():
            assert percent(value) == pytest.approx(number(expected[key]), **EXACT), (case.name, key)


def zegformer_set_mean(areas, ids):
    """A plain sum over the set divided by its size: one class without ground truth makes it NaN."""
    return np.where(areas.truth > 0, m.class_iou(areas), np.nan)[ids].mean() if ids else math.nan


def test_zegformer_evaluator(cases):
    rule = m.EVALUATOR_RULES["SemSegGzeroEvaluator (ZegFormer)"]
    for case, expected in with_evaluator(cases, "zegformer_gzero"):
        check_four(case, expected)
        assert percent(m.mean_iou(case.areas, rule)) == pytest.approx(number(expected["mIoU"]), **EXACT), case.name
        for name, ids in (("seen", case.seen), ("unseen", case.unseen)):
            mean = percent(zegformer_set_mean(case.areas, ids))
            assert mean == pytest.approx(number(expected[f"{name}_IoU"]), **EXACT), case.name
            assert mean == pytest.approx(number(expected[f"{name}_acc"]), **EXACT), case.name  # IoU, not accuracy


def test_mmsegmentation(cases):
    for case, expected in with_evaluator(cases, "mmseg"):
        areas = case.areas
        accuracy, precision = m.class_accuracy(areas), m.class_precision(areas)
        with np.errstate(invalid="ignore"):
            f_score = 2 * precision * accuracy / (precision + accuracy)  # NaN where either is, unlike Dice
        of_class = {
            "IoU": m.class_iou(areas), "Acc": accuracy, "Recall": accuracy, "Prec": precision, "Precision": precision,
            "Dice": m.class_dice(areas), "Fscore": f_score,
        }  # fmt: skip
        for key, values in of_class.items():
            assert values == pytest.approx(np.array(numbers(expected[key])), **FLOAT32), (case.name, key)
        means = {
            "aAcc": m.pixel_accuracy(areas), "mIoU": m.mean_iou(areas, "union"), "mAcc": m.mean_accuracy(areas),
            "mDice": m.mean_dice(areas), "mFscore": np.nanmean(f_score),
        }  # fmt: skip
        for key, value in means.items():
            assert float(value) == pytest.approx(number(expected[key]), **EXACT), (case.name, key)
        for key, value in expected["summary_rounded_percent"].items():
            assert percent(means[key]) == pytest.approx(number(value), abs=0.00501, nan_ok=True), (case.name, key)


def test_zegclip_tables(cases):
    for case, expected in with_evaluator(cases, "zegclip_tables_percent"):
        for name, ids in (("all", None), ("seen", case.seen), ("unseen", case.unseen)):
            found = {
                "aAcc": m.pixel_accuracy(case.areas),  # the overall one in all three tables, as is mPrec
                "mPrec": m.mean_precision(case.areas),
                "mIoU": m.mean_iou(case.areas, "union", ids),
                "mAcc": m.mean_accuracy(case.areas, ids),
            }
            for key, value in found.items():
                rounded = pytest.approx(number(expected[name][key]), abs=0.00501, nan_ok=True)
                assert percent(value) == rounded, (case.name, name, key)


def test_torchmetrics(cases):
    for case, expected in with_evaluator(cases, "torchmetrics"):
        areas = case.areas
        recall = np.nan_to_num(m.class_accuracy(areas))
        counted = areas.truth + areas.predicted > 0  # its macro accuracy takes predicted classes as well: not mAcc
        found = {
            "jaccard_macro": m.mean_iou(areas, "union"),
            "jaccard_micro": m.micro_iou(areas),
            "jaccard_weighted": m.frequency_weighted_iou(areas),
            "accuracy_micro": m.pixel_accuracy(areas),
            "accuracy_macro": recall[counted].mean(),
        }
        for key, value in found.items():
            assert float(value) == pytest.approx(number(expected[key]), **FLOAT32), (case.name, key)
        none = np.nan_to_num(m.class_iou(areas))
        assert none == pytest.approx(np.array(expected["jaccard_none"]), **FLOAT32), case.name


def test_torchmetrics_mean_of_images_is_another_number(cases):
    for case, expected in with_evaluator(cases, "torchmetrics", "segmentation_mean_iou"):
        pictures = [m.class_iou(m.Areas.of(part.matrix())) for part in case.counts]
        assert np.nanmean(pictures) == pytest.approx(expected, **FLOAT32), case.name
        if np.nanmax(np.ptp(pictures, axis=0)) > 0.01:  # else, or with one picture, both are the same
            assert float(m.mean_iou(case.areas)) != pytest.approx(expected, **FLOAT32), case.name


def eroded(labels, steps):
    """Gray erosion by a 3 x 3 square, with one ring of zeros around the map."""
    labels = np.pad(labels, 1)
    for _ in range(steps):
        wide = np.pad(labels, 1, constant_values=255)
        labels = np.min([wide[i : i + len(labels), j : j + labels.shape[1]] for i in range(3) for j in range(3)], 0)
    return labels[1:-1, 1:-1]


def detectron2_boundary(labels):
    """Label minus its local minimum, in uint8: not the boundary of a class, but what that evaluator counts."""
    labels = labels.astype(np.uint8)
    return labels - eroded(labels, max(1, round(0.02 * float(np.hypot(*labels.shape)))))


def test_detectron2_boundary_iou_quirk(cases):
    for case, expected in with_evaluator(cases, "detectron2_sem_seg", "BoundaryIoU"):
        size = case.num_classes + 1
        matrix = np.zeros(size * size, dtype=np.int64)
        for prediction, label in case.maps:
            truth = detectron2_boundary(label.clamp_max(case.num_classes).numpy())
            cell = np.uint8(size) * detectron2_boundary(prediction.numpy()) + truth  # wraps at 256 since numpy 2
            matrix += np.bincount(cell.ravel(), minlength=size * size)[: size * size]
        areas = m.Areas.of(matrix.reshape(size, size)[:-1, :-1])
        assert 100 * m.class_iou(areas) == pytest.approx(np.array(numbers(expected)), **EXACT), case.name
