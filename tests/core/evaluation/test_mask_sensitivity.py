"""Changed masks run from right to wrong, and what a method says of them is summed up as defined."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation import mask_sensitivity
from ovseg_cli.core.evaluation.mask_sensitivity import mask_probabilities, measure, regions_of, series_of
from ovseg_cli.core.evaluation.mask_series import KINDS, mask_series, overlaps, shifted
from ovseg_cli.core.evaluation.mask_sources import StoredMasks
from ovseg_cli.core.evaluation.proposal_sensitivity import measure_proposals
from ovseg_cli.core.evaluation.sensitivity_results import MaskSensitivity, RegionScores
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.types import Proposals, Sample, TextFeatures

IGNORED = 255


class Pictures:
    """A data set of label maps; each picture shows its label."""

    ignore_label = IGNORED

    def __init__(self, *labels):
        self.labels = [torch.tensor(label, dtype=torch.int64) for label in labels]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        label = self.labels[index]
        return Sample(f"p{index}", label.to(torch.uint8).expand(3, *label.shape).clone(), label)


class Aware:
    """Gives each class half of the mask's IoU with it, and the last class what is left."""

    def classify_masks(self, image, masks, text):
        regions = torch.stack([image[0] == k for k in range(text.num_classes - 1)]).float()
        common = torch.einsum("nhw,khw->nk", masks, regions)
        union = masks.flatten(1).sum(1)[:, None] + regions.flatten(1).sum(1) - common
        own = common / union / 2
        return torch.cat([own, 1 - own.sum(1, keepdim=True)], 1).clamp(min=1e-12).log()


class Blind:
    """Says the same of every mask."""

    def classify_masks(self, image, masks, text):
        return torch.arange(len(text.features)).float().expand(len(masks), -1)


def text_of(classes):
    return TextFeatures.of_classes(torch.eye(classes))


CORNER = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, IGNORED]])


def corner_series(seed=0):
    return mask_series(CORNER == 0, CORNER, CORNER != IGNORED, np.random.default_rng(seed))


def by_kind(series):
    return {kind: [series.masks[i] for i, k in enumerate(series.kinds) if k == kind] for kind in KINDS}


def test_series_of_a_corner_is_as_worked_by_hand():
    found = by_kind(corner_series())
    assert np.array_equal(found["region"], [CORNER == 0])
    assert np.array_equal(found["complement"], [CORNER == 1])
    for mask in found["shrunk"]:  # of four pixels: three, two or one of them
        assert mask.sum() < 4 and not (mask & (CORNER != 0)).any()
    ring = np.array([[0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    for mask in found["grown"]:  # the nearest four pixels come first
        assert mask[:2, :2].all() and (not (mask & ~ring & (CORNER == 1)).any() or mask[ring].all())
    for mask in found["exchanged"]:  # the area stays the same
        assert mask.sum() == 4


def test_series_covers_the_ious_from_one_to_zero():
    label = np.zeros((40, 40), int)
    label[10:30, 5:25] = 1
    series = mask_series(label == 1, label, label < 9, np.random.default_rng(1), steps=5)
    for kind in ("shrunk", "grown", "shifted", "exchanged"):
        ious = sorted(iou for k, iou in zip(series.kinds, series.ious, strict=True) if k == kind)
        steps = {min(4, int(iou * 5 + 0.1)) for iou in ious}
        missing = {0} if kind == "grown" else set()  # the whole picture still has an IoU of one quarter
        assert steps | missing == {0, 1, 2, 3, 4}, (kind, ious)
    assert series.ious[0] == 1 and series.ious[-1] == 0
    smallest = min((m for m, k in zip(series.masks, series.kinds, strict=True) if k == "shrunk"), key=np.sum)
    assert smallest.sum() > 1 and not smallest[[10, 29]].any() and not smallest[:, [5, 24]].any()  # its middle


@given(
    arrays(np.int64, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.sampled_from([0, 1, 2, IGNORED])),
    st.integers(0, 99),
)
def test_series_is_distinct_not_empty_and_never_on_unlabelled_pixels(label, seed):
    valid = label != IGNORED
    for class_id in np.unique(label[valid]):
        region = label == class_id
        series = mask_series(region, label, valid, np.random.default_rng(seed))
        assert len({mask.tobytes() for mask in series.masks}) == len(series.masks) == len(series.kinds)
        assert series.masks.any((1, 2)).all() and not (series.masks & ~valid).any()
        assert np.array_equal(series.masks[0], region) and (series.ious[1:] < 1).all()
        for mask, iou in zip(series.masks, series.ious, strict=True):
            assert iou == (mask & region).sum() / (mask | region).sum()
        again = mask_series(region, label, valid, np.random.default_rng(seed))
        assert np.array_equal(again.masks, series.masks)


def test_shift_moves_and_loses_what_leaves():
    mask = np.eye(3, dtype=bool)
    assert np.array_equal(shifted(mask, 1, 0), [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert np.array_equal(shifted(mask, 0, -1), [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert not shifted(mask, 3, 0).any() and not shifted(mask, 0, -4).any()


def test_overlaps_are_as_worked_by_hand():
    region = np.array([[1, 1, 0, 0]], bool)
    masks = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 0, 1, 1]], [[0, 0, 0, 0]]], bool)
    assert overlaps(masks, region).tolist() == [1, 1 / 3, 0, 0]


def test_correlation_and_distance_are_as_worked_by_hand():
    region = RegionScores("p", 0, ("x",) * 3, (0.0, 0.5, 1.0), (0.1, 0.2, 0.6), 0.25)
    # deviations -.5 0 .5 and -.2 -.1 .3: covariance .25, variances .5 and .14
    assert region.correlation == pytest.approx(0.25 / math.sqrt(0.5 * 0.14))
    same = replace(region, probabilities=(0.3, 0.3, 0.3), distance=0.75)
    measured = MaskSensitivity("m", "d", "val", ("a", "b"), (False, True), (region, same, replace(same, class_id=1)))
    assert same.correlation == 0
    seen, unseen = measured.summary("seen"), measured.summary("unseen")
    assert (seen.regions, seen.masks, seen.distance) == (2, 6, 0.5)
    assert seen.correlation == pytest.approx(region.correlation / 2)
    assert (unseen.regions, unseen.correlation, unseen.distance) == (1, 0, 0.75)
    assert measured.summary().regions == 3


def test_bins_hold_mean_and_quartiles():
    region = RegionScores("p", 0, ("x",) * 6, (0.0, 0.05, 0.1, 0.95, 1.0, 0.9), (0.0, 0.4, 0.7, 0.1, 0.2, 0.6), 0)
    bins = MaskSensitivity("m", "d", "val", ("a",), (False,), (region,)).summary().bins
    assert [(b.low, b.high, b.masks) for b in bins] == [(0, 0.1, 2), (0.1, 0.2, 1), (0.9, 1, 3)]
    assert [b.mean for b in bins] == pytest.approx([0.2, 0.7, 0.3])
    assert bins[2].quartiles == pytest.approx((0.15, 0.4))


def test_distance_is_the_mean_total_variation_of_pairs():
    class Three:
        def classify_masks(self, image, masks, text):
            logits = torch.full((len(masks), 2), -50.0)
            logits[torch.arange(len(masks)), (masks.flatten(1).sum(1) > 2).long()] = 50.0
            return logits

    pictures = Pictures([[0, 0, 0, 0]])
    (scores,) = measure(Three(), pictures, text_of(2), Silent())
    areas = series_of(regions_of(pictures[0], IGNORED)[0], pictures[0]).masks.sum((1, 2))
    large = int((areas > 2).sum())
    pairs = large * (len(areas) - large) / (len(areas) * (len(areas) - 1) / 2)
    assert 0 < pairs < 1 and scores.distance == pytest.approx(pairs, abs=1e-6)


def test_perfectly_aware_method_has_correlation_one():
    found = measure(Aware(), Pictures(CORNER, CORNER.T), text_of(3), Silent())
    assert [(r.picture, r.class_id) for r in found] == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
    for region in found:
        assert region.correlation == pytest.approx(1)
        assert np.allclose(region.probabilities, np.array(region.ious) / 2, atol=1e-5)


def test_blind_method_has_no_sensitivity_and_correlation_zero():
    found = measure(Blind(), Pictures(CORNER), text_of(3), Silent())
    summary = MaskSensitivity("m", "d", "val", ("a", "b", "c"), (False,) * 3, found).summary()
    assert (summary.regions, summary.correlation, summary.distance) == (2, 0, 0)
    assert all(len(set(region.probabilities)) == 1 for region in found)


def test_one_class_alone_is_always_certain():
    (region,) = measure(Blind(), Pictures(np.zeros((4, 4))), text_of(1), Silent())
    assert set(region.probabilities) == {1.0} and region.correlation == 0 and region.distance == 0
    assert "complement" not in region.kinds and max(region.ious) == 1  # the region fills the picture


def test_region_that_has_but_one_mask_is_left_out():
    assert measure(Blind(), Pictures([[0]], [[IGNORED]]), text_of(2), Silent()) == ()


def test_tiny_regions_and_unlabelled_pixels_are_no_regions():
    label = np.zeros((20, 20), int)
    label[0, 0], label[5:7, 5:7], label[19] = 1, 2, IGNORED
    assert [r.class_id for r in regions_of(Pictures(label)[0], IGNORED)] == [0, 2]  # 1 and 4 of 380 pixels
    assert regions_of(Sample("p", torch.zeros(3, 2, 2, dtype=torch.uint8)), IGNORED) == []


def test_best_of_several_names_counts_for_a_class():
    class Names:
        def classify_masks(self, image, masks, text):
            return torch.tensor([[0.0, math.log(3.0), 0.0]]).expand(len(masks), -1)

    text = TextFeatures(torch.eye(3), torch.tensor([0, 0, 1]), 2)
    found = mask_probabilities(Names(), torch.zeros(3, 2, 2, dtype=torch.uint8), np.ones((1, 2, 2), bool), text)
    assert found.numpy() == pytest.approx(np.array([[0.75, 0.25]]))


def test_masks_of_a_cache_are_measured_against_every_region(tmp_path):
    pictures = Pictures(CORNER)
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, :2, :2] = masks[1, :2] = masks[0, 3, 3] = True  # a pixel without a class; the third one is empty
    store = ProposalStore.create(tmp_path / "store", {"generator": "drawn", "settings": {}})
    sample = pictures[0]
    store.write(sample.name, sample.image, Proposals(masks, torch.ones(3), (4, 4)))
    (first, second), (whole,) = measure_proposals(Aware(), pictures, text_of(3), StoredMasks(store), Silent())
    assert first.kinds == ("proposal", "proposal") and first.ious == (1.0, 0.5)
    assert second.ious == pytest.approx((0, 4 / 15), abs=1e-6)
    assert first.correlation == pytest.approx(1)
    assert (whole.picture, whole.masks, whole.present) == ("p0", 2, (0, 1))
    assert whole.distance == first.distance == second.distance
    assert whole.best_ious == (1.0, 0.5)


def test_overlaps_that_are_one_number_in_what_is_kept_tell_nothing(tmp_path, monkeypatch):
    """As one pixel of some millions: the two masks differ in a pixel, their kept IoUs (0 and 0; 1 and 1) do not."""
    monkeypatch.setattr(mask_sensitivity, "DIGITS", 1)
    label = np.repeat([[0] * 4 + [1] * 4], 8, 0)
    masks = torch.from_numpy(np.stack([label == 1, label == 1]))
    masks[1, 0, 0] = True
    store = ProposalStore.create(tmp_path / "store", {"generator": "drawn", "settings": {}})
    pictures = Pictures(label)
    store.write("p0", pictures[0].image, Proposals(masks, torch.ones(2), (8, 8)))
    regions, (whole,) = measure_proposals(Aware(), pictures, text_of(3), StoredMasks(store), Silent())
    assert regions == () and whole.masks == 2


def measurement():
    regions = measure(Aware(), Pictures(CORNER), text_of(3), Silent())
    return MaskSensitivity(
        "aware", "drawn:own", "val", ("a", "b", "c"), (False, False, False), regions, {"data": "x"}, {"run": "y"}
    )


def test_saved_measurement_is_read_back_whole(tmp_path):
    before = measurement()
    before.save(tmp_path / "a.json")
    after = MaskSensitivity.load(tmp_path / "a.json")
    assert after == before and after.summary("seen") == before.summary("seen")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["summary"]["unseen"] == {
        "regions": 0, "masks": 0, "correlation": None, "distance": None, "bins": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"kind": "ovseg-result"},
        {"unseen": [True]},
        {"regions": 5},
        {"regions": [{"picture": "p"}]},
    ],
)
def test_changed_file_is_refused_with_its_name(tmp_path, change):
    path = tmp_path / "a.json"
    measurement().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match="a.json"):
        MaskSensitivity.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_file_without_a_measurement_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match="a.json"):
        MaskSensitivity.load(tmp_path / "a.json")
