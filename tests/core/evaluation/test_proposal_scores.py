"""Named proposals of a picture: how much they differ, what is false; worked by hand and against plain loops."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.bootstrap import mean_difference
from ovseg_cli.core.evaluation.proposal_scores import PictureScores, summarise, trade_off
from ovseg_cli.core.evaluation.proposal_sensitivity import picture_scores
from ovseg_cli.core.evaluation.sensitivity_results import FILE, MaskSensitivity
from ovseg_cli.core.types import Sample

IGNORED = 255
# two pixels of class 0, three of class 1, one that nobody knows
LABEL = np.array([[0, 0, 1], [1, 1, IGNORED]])
MASKS = np.array([[[1, 1, 0], [0, 0, 0]], [[0, 1, 1], [1, 1, 0]], [[0, 0, 0], [0, 0, 1]]], bool)
PROBABILITIES = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.4, 0.0, 0.6]], dtype=torch.float64)


def scores(masks=MASKS, named=PROBABILITIES):
    label = torch.from_numpy(LABEL)
    return picture_scores(Sample("p", torch.zeros(3, 2, 3, dtype=torch.uint8), label), masks, named, IGNORED)


def test_scores_of_a_small_picture_are_as_worked_by_hand():
    found = scores()
    # distances of the pairs: .7 between the first two, .6 and .8 to the third
    assert found.distance == pytest.approx((0.7 + 0.6 + 0.8) / 3)
    assert (found.masks, found.present, found.names) == (3, (0, 1), (0, 1)), "the third one lies on unlabelled pixels"
    assert found.probabilities == pytest.approx((0.9, 0.8))
    assert found.ious == found.best_ious == pytest.approx((1.0, 3 / 4))  # of four pixels three are class 1, all of it
    assert (found.false_positives(), found.true_positives(), found.found()) == (0, 2, {0, 1})
    assert found.found(0.85) == {0}


def test_confident_name_of_the_wrong_class_or_of_a_bad_mask_is_false():
    swapped = scores(named=PROBABILITIES[:, [1, 0, 2]])
    assert swapped.ious == pytest.approx((0.0, 1 / 5)) and swapped.best_ious == pytest.approx((1.0, 3 / 4))
    assert (swapped.false_positives(), swapped.true_positives(), swapped.found()) == (2, 0, set())
    absent = scores(named=PROBABILITIES[:, [2, 1, 0]])  # the first is named a class that the picture does not hold
    assert absent.ious[0] == 0 and absent.false_positives() == 1
    assert replace(absent, probabilities=(0.49, 0.8)).false_positives() == 0, "it is not confident"


def test_single_proposal_differs_from_none():
    assert scores(MASKS[:1], PROBABILITIES[:1]).distance == 0
    unknown = scores(MASKS[2:], PROBABILITIES[2:])
    assert (unknown.masks, unknown.names, unknown.best_ious) == (1, (), ())


def one(name, present, *claims):
    """A picture of claims (class, probability, IoU)."""
    names, probabilities, ious = zip(*claims, strict=True) if claims else ((), (), ())
    return PictureScores(name, len(names), 0.5, tuple(present), names, probabilities, ious, ious)


PICTURES = (
    one("a", (0, 1), (0, 0.9, 1.0), (0, 0.7, 0.6), (2, 0.8, 0.0), (1, 0.4, 0.9)),
    replace(one("b", (3,), (3, 0.6, 0.2)), distance=0.1),
)


def test_summary_is_as_worked_by_hand():
    found = summarise(PICTURES)
    assert (found.pictures, found.masks, found.distance) == (2, 2.5, pytest.approx(0.3))
    assert (found.false_positives, found.true_positives) == (1.0, 1.0)
    assert found.found == pytest.approx(1 / 3) and found.confidence == pytest.approx((0.8 + 0.6) / 2)
    nothing = summarise(())
    assert nothing.pictures == 0 and math.isnan(nothing.distance) and math.isnan(nothing.found)


def test_trade_off_is_as_worked_by_hand():
    false_positives, found = trade_off(PICTURES)  # at .9 class 0; .8 false; .7 class 0 again; .6 false; .4 class 1
    assert false_positives.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    assert found.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 1 / 3, 2 / 3])
    assert [values.tolist() for values in trade_off(())] == [[0], [0]]


claim = st.tuples(st.integers(0, 3), st.sampled_from([0.2, 0.5, 0.5, 0.7, 1.0]), st.sampled_from([0.0, 0.4, 0.5, 1.0]))


@given(st.lists(st.lists(claim, max_size=6), min_size=1, max_size=4))
def test_trade_off_goes_through_the_summary_of_every_threshold(drawn):
    pictures = [one(str(i), (0, 1, 2, 3), *claims) for i, claims in enumerate(drawn)]
    false_positives, found = trade_off(pictures)
    points = set(zip(false_positives.round(9), found.round(9), strict=True))
    for threshold in {p for picture in pictures for p in picture.probabilities}:
        summary = summarise(pictures, threshold)
        assert (round(summary.false_positives, 9), round(summary.found, 9)) in points
    assert (np.diff(false_positives) >= 0).all() and (np.diff(found) >= 0).all()


def test_mean_difference_is_paired():
    values, base = [3.0, 5.0, 9.0, 1.0], [2.0, 4.0, 8.0, 0.0]
    found = mean_difference(values, base, resamples=50)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    wide = mean_difference(values, base[::-1], resamples=200)
    assert wide.value == 1.0 and wide.low < 0 < wide.high and not wide.excludes_zero
    assert math.isnan(mean_difference([], []).value) and math.isnan(mean_difference(values, base, 0).low)


def measurement():
    return MaskSensitivity("m", "d", "val", tuple("abcd"), (False,) * 4, (), {"data": "x"}, {"run": "y"}, PICTURES)


def test_saved_pictures_are_read_back_whole_and_summed_up_for_readers_without_us(tmp_path):
    measurement().save(tmp_path / "a.json")
    assert MaskSensitivity.load(tmp_path / "a.json") == measurement()
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["summary"]["proposals"]["false_positives"] == 1.0 and document["summary"]["all"]["distance"] is None


@pytest.mark.parametrize(
    "change", [{"names": [9, 0, 2, 1]}, {"ious": [1.0]}, {"masks": 1}, {"present": None}, {"distance": "far"}]
)
def test_changed_picture_is_refused_with_its_file(tmp_path, change):
    measurement().save(tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    document["pictures"][0] |= change
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="a.json: is broken"):
        MaskSensitivity.load(tmp_path / "a.json")


def test_measurement_file_has_a_line_for_each_key_and_record(tmp_path):
    FILE.save(tmp_path / "a.json", {"x": float("nan"), "y": [{"z": 1}, {"z": 2}]}, ["y"])
    assert (tmp_path / "a.json").read_text().splitlines()[3:] == [
        '"x": null,', '"y": [', '{"z": 1},', '{"z": 2}', "]", "}",
    ]  # fmt: skip
    assert FILE.load(tmp_path / "a.json", lambda document: document["y"][1]["z"]) == 2
