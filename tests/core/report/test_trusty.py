"""Means of trusty maps, which pictures are drawn, and the figure, from maps made by hand."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.report.seen import UNSEEN, SeenClasses
from ovseg_cli.core.report.trusty import means_of, telling, trusty_table
from ovseg_cli.core.report.trusty_figure import PANEL, Scene, draw_trusty_maps, means_text
from ovseg_cli.core.report.trusty_results import PARTS, Mean, PictureMeans, TrustyMaps

SEEN = (True, False, True)  # of three classes
LABEL = np.array([[0, 0, 1], [2, 255, -1]])
TRUSTY = np.array([[1.0, 0.5, 0.25], [0.0, 0.75, 0.25]], np.float32)


def picture(seen: int, unseen: int, unlabelled: int, name: str = "p") -> PictureMeans:
    return PictureMeans(name, Mean(seen, 0.9), Mean(unseen, 0.1), Mean(unlabelled, 0.5))


def test_means_of_a_hand_made_map():
    # seen: 1, 0.5 and 0 of class 2; unseen: 0.25; neither 255 nor -1 is a class
    means = PictureMeans.of("p", TRUSTY, LABEL, SEEN)
    assert (means.seen, means.unseen, means.unlabelled) == (Mean(3, 0.5), Mean(1, 0.25), Mean(2, 0.5))
    assert means_text(means) == "p   map: seen 0.50, unseen 0.25, not labelled 0.50"


def test_a_part_without_pixels_has_no_mean():
    means = PictureMeans.of("p", TRUSTY, np.zeros((2, 3), np.int64), SEEN)
    assert means.unseen.pixels == 0 and math.isnan(means.unseen.mean) and "unseen" not in means_text(means)
    whole = Mean.of([means.unseen, Mean(4, 0.25), Mean(12, 0.75)])
    assert whole == Mean(16, 0.625), "weighted by pixels; what is empty does not count"
    assert math.isnan(Mean.of([]).mean)


SIDES = st.tuples(st.integers(1, 8), st.integers(1, 8))


@given(SIDES.flatmap(lambda s: arrays.arrays(np.int64, s, elements=st.sampled_from([-2, -1, 0, 1, 2, 3, 255]))))
def test_parts_share_out_all_pixels_and_their_means_make_the_whole(label):
    trusty = np.random.default_rng(0).random(label.shape, np.float32)
    means = PictureMeans.of("p", trusty, label, SEEN)
    parts = [getattr(means, part) for part in PARTS]
    assert sum(part.pixels for part in parts) == label.size
    assert Mean.of(parts).mean == pytest.approx(trusty.mean(dtype=np.float64), abs=2e-6)


def test_measurement_comes_back_and_holds_its_means_for_others(tmp_path):
    pictures = (picture(10, 30, 0), PictureMeans("q", Mean(30, 0.5), Mean(0, math.nan), Mean(0, math.nan)))
    maps = TrustyMaps("tagclip", "toy:combo", "val", pictures, {"weights": "w"}, {"run": "r"})
    maps.save(tmp_path / "a.json")
    found = TrustyMaps.load(tmp_path / "a.json")
    assert repr(found) == repr(maps)  # NaN is not equal to itself
    means = json.loads((tmp_path / "a.json").read_text())["means"]
    assert means["seen"] == {"pixels": 40, "mean": pytest.approx(0.6)} and means["unlabelled"]["mean"] is None
    assert means_of(maps).startswith("0.60 on pixels of seen classes, 0.10 on pixels of unseen classes, - on pixels")


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "ovseg-trusty-map"}', '{"kind": "x", "schema": 1}'])
def test_broken_measurements_say_how_they_are_mended(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError) as caught:
        TrustyMaps.load(tmp_path / "a.json")
    assert "a.json" in caught.value.message and "--figures trusty-map" in str(caught.value.mend)


def test_pictures_are_chosen_by_their_labels_those_with_both_kinds_first():
    pictures = [picture(100, 0, 0), picture(90, 10, 0), picture(99, 1, 0), picture(50, 50, 0), picture(0, 100, 0)]
    assert telling(pictures, most=2) == [1, 3]
    assert telling(pictures, most=3) == [0, 1, 3] and telling(pictures[:1]) == [0]


def test_table_has_a_row_for_each_part():
    maps = TrustyMaps("tagclip", "toy:combo", "val", (picture(10, 30, 0),))
    table = trusty_table([("TagCLIP", maps, True)], "toy:combo val, 1 pictures")
    assert [[row["classes"], row["pixels"], row["mean"]] for row in table.records()] == [
        ["seen", 10, 0.9], ["unseen", 30, 0.1], ["without a class", 0, None],
    ]  # fmt: skip
    assert not any("another data set" in note for note in table.notes)
    assert any("another data set" in note for note in trusty_table([("TagCLIP", maps, False)], "x").notes)


def test_figure_shows_the_map_bright_and_dark_and_outlines_what_is_unseen(tmp_path):
    side = 96
    label, trusty = np.zeros((side, side), np.int64), np.ones((side, side), np.float32)
    label[32:64, 32:64], trusty[32:64, 32:64] = 1, 0.0
    image = np.full((side, side, 3), 120, np.uint8)
    scene = Scene(image, label, trusty, label, label, PictureMeans.of("p", trusty, label, SEEN))
    colors = np.array([[60, 160, 60], [60, 60, 160], [160, 160, 60]], np.uint8)
    seen = SeenClasses(SEEN, "in training")
    draw_trusty_maps([scene], ("a", "b", "c"), colors, seen, 255, tmp_path / "a.png", "title", ["below"])
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert drawn.shape[1] > 5 * PANEL
    red = (drawn == UNSEEN).all(-1).any(0)  # columns with red
    column = drawn.shape[1] // 2  # the map is the third of five panels
    middle = drawn[:, column]
    assert (middle == 0).all(-1).sum() >= PANEL // 3 - 6, "dark where nothing is trusted"
    assert red[column - PANEL // 6 - 3 : column - PANEL // 6 + 4].any(), "and outlined"
    corner = drawn[:, column - PANEL // 2 + 5]
    assert (corner == 255).all(-1).sum() >= PANEL - 4, "bright where all is trusted"
