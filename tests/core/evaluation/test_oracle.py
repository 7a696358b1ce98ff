"""The four rungs of the oracle ladder, worked by hand; right names of right masks give the label map back."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.mask_naming import MaskNamer
from ovseg_cli.core.evaluation.mask_sources import TruthMasks
from ovseg_cli.core.evaluation.oracle import RUNGS, climb, maps_of_masks, maps_of_method, rename_pieces, right_names
from ovseg_cli.core.evaluation.oracle_results import OracleResult
from ovseg_cli.core.types import DensePrediction, MaskPrediction, Readout, Sample, TextFeatures

IGNORED = 255
LABEL = np.array([[0, 0, 1, 1], [0, 0, 1, IGNORED]])


class Method:
    """Names every mask with one class, and predicts what it was given."""

    def __init__(self, name, prediction=None, classes=2):
        self.name, self.prediction, self.classes = name, prediction, classes

    def classify_masks(self, image, masks, text):
        return torch.eye(self.classes)[self.name].expand(len(masks), -1) * 5

    def predict(self, images, text):
        return [self.prediction]


def sample_of(label):
    return Sample("p", torch.zeros(3, *label.shape, dtype=torch.uint8), torch.from_numpy(label).long())


def ladder(label, method, masks=None, classes=2, candidates=None):
    sample, text = sample_of(label), TextFeatures.of_classes(torch.eye(classes))
    namer = MaskNamer(method, text, candidates)
    own = maps_of_method(method, text, Readout()) if masks is None else maps_of_masks(masks, namer)
    return climb(sample, TruthMasks(IGNORED).masks(sample), namer, own, IGNORED)


def result_of(*pictures, classes=2, unseen=()):
    names = [f"p{i}" for i in range(len(pictures))]
    counts = {rung: CountTable.of(names, [picture[rung] for picture in pictures], classes + 1) for rung in RUNGS}
    return OracleResult(
        method="m",
        data="d",
        subset="val",
        class_names=tuple("abcdefg"[:classes]),
        unseen=tuple(i in unseen for i in range(classes)),
        masks={"source": "own"},
        counts=counts,
    )


def dense(label_map):
    """A prediction whose label map is this one."""
    hot = torch.nn.functional.one_hot(torch.from_numpy(label_map), 2).permute(2, 0, 1).float()
    return DensePrediction(hot, label_map.shape)


def test_ladder_of_a_method_that_scores_pixels_is_as_worked_by_hand():
    own = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])  # one piece of 0 over class 1, one of 1 with 4 of 0 and 1 of 1
    result = result_of(ladder(LABEL, Method(0, dense(own))))
    assert [result.scores(rung)["pAcc"] for rung in RUNGS] == pytest.approx([100 / 7, 400 / 7, 600 / 7, 100], abs=1e-3)
    # right names: the piece of 0 becomes 1 (2 hits), that of 1 becomes 0 (4 hits, one pixel of 1 is lost)
    assert result.scores("right-names")["mIoU"] == pytest.approx(100 * (4 / 5 + 2 / 3) / 2, abs=1e-3)
    # right masks, all named 0: IoU 4 / 7 and 0
    assert result.scores("right-masks")["mIoU"] == pytest.approx(100 * (4 / 7) / 2, abs=1e-3)
    assert result.verdict().startswith(
        "Names hold it back: right names would add 66.2 points of mIoU, right masks 21.4"
    )


def test_ladder_of_a_method_that_scores_masks_weighs_a_mask_by_what_of_it_is_right():
    masks = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 0]], [[0, 0, 1, 1], [0, 0, 1, 1]]]).float()  # 4 of 6; 3 of 3
    prediction = MaskPrediction(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), masks, (2, 4))
    result = result_of(ladder(LABEL, Method(0, prediction)))
    assert result.scores("predicted")["pAcc"] == 0 or result.scores("predicted")["pAcc"] < 50
    assert result.scores("right-names")["pAcc"] == 100  # where both lie, the purer one wins


def test_pixel_without_any_mask_has_no_class():
    masks = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]]).float()
    result = result_of(ladder(LABEL, Method(0, MaskPrediction(torch.tensor([[0.0, 1.0]]), masks, (2, 4)))))
    matrix = result.counts["right-names"].matrix()
    assert matrix.tolist() == [[0, 0, 4], [0, 3, 0], [0, 0, 0]]
    nothing = MaskPrediction(torch.zeros(0, 2), torch.zeros(0, 2, 4), (2, 4))
    assert result_of(ladder(LABEL, Method(0, nothing))).scores("right-names")["mIoU"] == 0


def test_given_masks_are_named_and_painted():
    masks = np.array([[[1, 1, 1, 1], [1, 1, 1, 1]], [[0, 0, 1, 1], [0, 0, 1, 0]], np.zeros((2, 4))], bool)
    result = result_of(ladder(LABEL, Method(1), masks))
    assert [result.scores(rung)["pAcc"] for rung in RUNGS] == pytest.approx([300 / 7, 300 / 7, 100, 100], abs=1e-3)
    assert "Names hold it back" in result.verdict()
    wide = result_of(ladder(LABEL, Method(1), masks[:1]))
    assert wide.scores("right-names")["pAcc"] == pytest.approx(400 / 7, abs=1e-3)
    none = result_of(ladder(LABEL, Method(1), masks[2:]))
    assert none.scores("predicted")["mIoU"] == none.scores("right-names")["mIoU"] == 0


def test_only_candidates_are_named():
    result = result_of(ladder(LABEL, Method(1), np.ones((1, 2, 4), bool), candidates=[0]))
    assert result.counts["predicted"].matrix()[:, 0].sum() == 7


@given(
    arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.sampled_from([0, 1, 2, IGNORED])),
    st.integers(0, 2),
)
def test_ground_truth_of_both_gives_the_label_map_back(label, name):
    method = Method(name, MaskPrediction(torch.zeros(0, 3), torch.zeros(0, 1, 1), label.shape), 3)
    matrix = result_of(ladder(label, method, classes=3), classes=3).counts["both"].matrix()
    known = label[label != IGNORED]
    assert matrix.tolist() == np.diag([*np.bincount(known, minlength=3), 0]).tolist()


@given(arrays(np.int64, (5, 6), elements=st.integers(0, 2)), arrays(np.int64, (5, 6), elements=st.integers(0, 3)))
def test_pieces_are_named_as_masks_of_them_would_be(own, label):
    found = rename_pieces(own, label, 3)
    expected = np.full(own.shape, 3)
    for name in range(3):
        pieces, count = ndimage.label(own == name, structure=np.ones((3, 3)))
        for number in range(1, count + 1):
            piece = pieces == number
            expected[piece] = right_names(piece[None], label, 3)[0][0]
    assert np.array_equal(found, expected)
    assert np.array_equal(rename_pieces(own, own, 3), own)


def test_nothing_to_compare_and_ties_are_said():
    empty = result_of(ladder(np.full((2, 4), IGNORED), Method(0, dense(LABEL % 2))))
    assert empty.verdict("all", "present").startswith("Nothing to compare")
    perfect = result_of(ladder(np.zeros((2, 4), int), Method(0, dense(np.zeros((2, 4), int)))))
    assert perfect.verdict().startswith("Neither masks nor names")


def test_classes_that_are_predicted_alone_leave_nothing_to_compare(tmp_path):
    """Everything is class 0 and is called 1: class 1 scores 0 as predicted, and right names are never 1."""
    absent = result_of(ladder(np.zeros((2, 4), int), Method(0, dense(np.ones((2, 4), int)))), unseen=(1,))
    assert absent.scores("predicted", "unseen")["mIoU"] == 0
    assert absent.verdict("unseen").startswith("Nothing to compare")
    absent.save(tmp_path / "a.json")


def test_ladder_comes_back_from_its_file(tmp_path):
    result = result_of(ladder(LABEL, Method(0, dense(LABEL % 2))), unseen=(1,))
    path = tmp_path / "a.json"
    result.save(path)
    again = OracleResult.load(path)
    assert again.document() == result.document()
    for breakage in (
        lambda t: t.replace('"kind": "ovseg-oracle"', '"kind": "x"'),
        lambda t: t.replace('"counts"', '"c"'),
    ):
        (tmp_path / "b.json").write_text(breakage(path.read_text()))
        with pytest.raises(DataError, match="b.json"):
            OracleResult.load(tmp_path / "b.json")


def test_scores_of_a_split_are_those_of_its_classes():
    result = result_of(ladder(LABEL, Method(0, dense(np.zeros((2, 4), int)))), unseen=(1,))
    assert result.scores("predicted", "seen")["mIoU"] == pytest.approx(400 / 7, abs=1e-3)
    assert result.scores("predicted", "unseen")["mIoU"] == 0
    assert replace(result, unseen=(False, False)).scores("predicted")["hIoU"] is None


def test_method_without_masks_is_asked_for_its_label_map_once():
    calls = []
    method = SimpleNamespace(
        classify_masks=lambda i, m, t: torch.zeros(len(m), 2),
        predict=lambda images, text: calls.append(len(images)) or [dense(LABEL % 2)],
    )
    ladder(LABEL, method)
    assert calls == [1]
