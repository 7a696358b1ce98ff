"""The figure, the scene and the table of mask sensitivity, from drawn measurements."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.proposal_scores import PictureScores
from ovseg_cli.core.evaluation.sensitivity_results import MaskSensitivity, RegionScores
from ovseg_cli.core.methods.build import ModelChoice
from ovseg_cli.core.report.drawing import LOOKS
from ovseg_cli.core.report.figure_inputs import captions_of
from ovseg_cli.core.report.proposals_figure import draw_proposals
from ovseg_cli.core.report.sensitivity_figure import draw_figure, panels_of
from ovseg_cli.core.report.sensitivity_scene import MaskScene, draw_scene, find_scene
from ovseg_cli.core.report.sensitivity_tables import pictures_table, proposals_table, sensitivity_table
from ovseg_cli.core.runs import Run
from ovseg_cli.core.types import Sample


def drawn(unseen=(False, True), classes=(0, 1)):
    regions = tuple(RegionScores("p", k, ("region", "grown"), (1.0, 0.05), (0.8, 0.2), 0.6) for k in classes)
    return MaskSensitivity("m", "toy", "val", ("a", "b"), unseen, regions)


def colored(path):
    """Shades that are no grey, with their numbers of pixels."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return Counter(tuple(int(v) for v in p) for p in pixels[np.ptp(pixels, axis=1) > 60])


def as_rgb(color):
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


@pytest.mark.parametrize(
    ("measured", "panels"),
    [
        (drawn(), ["seen", "unseen"]),
        (drawn(unseen=(False, False)), ["all"]),  # a data set without a class split
        (drawn(classes=(0,)), ["seen"]),  # no unseen region in these pictures
        (drawn(classes=(1,)), ["unseen"]),
    ],
)
def test_figure_has_a_panel_for_seen_and_for_unseen_where_there_are_regions(tmp_path, measured, panels):
    assert [split for split, _ in panels_of([measured])] == panels
    draw_figure([("one", measured), ("two", measured)], tmp_path / "a.png", "title")
    assert (Image.open(tmp_path / "a.png").width > 1000) == (len(panels) == 2)
    assert as_rgb(LOOKS[1][0]) in colored(tmp_path / "a.png")


def test_figure_draws_every_model_that_can_be_told_apart_and_no_more(tmp_path):
    models = [(f"model {i}", drawn()) for i in range(len(LOOKS))]
    draw_figure(models, tmp_path / "a.png", "title")
    assert len({look[:2] for look in LOOKS}) == len({look[1] for look in LOOKS}) == len(LOOKS)
    for wrong in ([*models, models[0]], []):
        with pytest.raises(UsageError, match=f"a figure of {len(wrong)} models"):
            draw_figure(wrong, tmp_path / "b.png", "title")
    assert not (tmp_path / "b.png").exists()


def test_table_shows_seen_and_unseen_apart():
    table = sensitivity_table([("one", drawn()), ("two", drawn(classes=(0,)))], "toy val")
    _, rows = table.texts()
    assert rows == [
        ["one", "seen", "1", "2", "1.00", "0.60", "0.80", "0.20"],
        ["one", "unseen", "1", "2", "1.00", "0.60", "0.80", "0.20"],
        ["two", "seen", "1", "2", "1.00", "0.60", "0.80", "0.20"],
    ]
    _, rows = sensitivity_table([("one", drawn(unseen=(False, False)))], "toy val").texts()
    assert [row[1:3] for row in rows] == [["all", "2"]]


def named(distance, probability, iou, pictures=3):
    """The same two proposals in each picture, which holds the classes 0 and 1; the first one is named class 0."""
    own = tuple(
        PictureScores(f"p{i}", 2, distance + 0.1 * i, (0, 1), (0, 1), (probability, 0.2), (iou, 0.9), (iou, 0.9))
        for i in range(pictures)
    )
    return MaskSensitivity("m", "toy", "val", ("a", "b"), (False, True), (), pictures=own)


def test_table_of_proposals_compares_with_the_first_model_picture_by_picture():
    table = proposals_table([("frozen", named(0.2, 0.9, 0.1)), ("tuned", named(0.5, 0.9, 0.8))], "toy val", 50)
    frozen, tuned = table.records()
    assert (frozen["distance"], frozen["false_positives"], frozen["found"]) == (pytest.approx(0.3), 1, 0)
    assert frozen["delta_distance"] is None and frozen["confidence"] == pytest.approx(0.9)
    assert (tuned["delta_distance"], tuned["delta_false_positives"]) == (pytest.approx(0.3), -1)
    assert tuned["delta_distance_low"] == pytest.approx(0.3) and tuned["delta_distance_marked"]
    assert (tuned["true_positives"], tuned["found"], tuned["confidence"]) == (1, 50, None)
    alone = proposals_table([("frozen", named(0.2, 0.9, 0.1))], "toy val")
    assert "Δ" not in " ".join(alone.notes) and "Δ" not in alone.texts()[0]


def test_table_of_pictures_has_a_row_a_model_and_picture():
    rows = pictures_table([("frozen", named(0.2, 0.9, 0.1)), ("tuned", named(0.5, 0.9, 0.8))], "toy val").records()
    assert [(row["model"], row["picture"]) for row in rows[2:4]] == [("frozen", "p2"), ("tuned", "p0")]
    assert rows[0] == {
        "picture": "p0", "model": "frozen", "masks": 2, "labelled": 2, "distance": 0.2, "false_positives": 1,
        "true_positives": 0, "classes": 2, "found": 0,
    }  # fmt: skip


@pytest.mark.parametrize("number", [1, 2, 3])
def test_figure_of_proposals_draws_one_model_two_and_more(tmp_path, number):
    models = [(f"model {i}", named(0.1 + 0.2 * i, 0.9, 0.8)) for i in range(number)]
    draw_proposals(models, tmp_path / "a.png", "title")
    assert as_rgb(LOOKS[number - 1][0]) in colored(tmp_path / "a.png")


class Pictures(list):
    ignore_label = 255


def picture(name, label):
    label = torch.as_tensor(label)
    return Sample(name, torch.zeros(3, *label.shape, dtype=torch.uint8), label)


def square(class_id, top=8, side=10, size=30):
    label = torch.zeros(size, size, dtype=torch.int64)
    label[top : top + side, 8 : 8 + side] = class_id
    return label


def test_scene_is_chosen_by_the_label_unseen_and_whole_first():
    data = Pictures([picture("edge", square(2, top=0)), picture("seen", square(1)), picture("best", square(2))])
    scene = find_scene(data, unseen=[2])
    assert scene is not None and (scene.sample.name, scene.class_id) == ("best", 2)
    assert scene.captions[0] == "the region itself" and scene.captions[-1] == "everything else"
    assert len(scene.masks) == 5 and scene.ious[0] == 1 and scene.ious[-1] == 0
    assert list(scene.ious) == sorted(scene.ious, reverse=True)
    assert find_scene(Pictures([picture("none", torch.full((4, 4), 255))]), []) is None


@pytest.mark.parametrize("label", [np.zeros((4, 4)), [[0, 0, 0, 0, 0, 0, 0, 1]]])
def test_scene_of_a_region_that_fills_the_picture_is_drawn(tmp_path, label):
    scene = find_scene(Pictures([picture("p", np.array(label, dtype=np.int64))]), [])
    answer = torch.full((len(scene.masks), 2), 0.5)
    draw_scene(scene, [("model", answer)], ["a", "b"], tmp_path / "a.png", "title")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_scene_draws_the_probability_of_the_class_as_a_bar(tmp_path):
    mask = np.zeros((1, 8, 8), bool)
    mask[:, 2:5, 2:5] = True
    scene = MaskScene(picture("p", torch.zeros(8, 8, dtype=torch.int64)), 0, mask, ("the region itself",), (1.0,))

    def bar(probability):
        draw_scene(
            scene, [("", torch.tensor([[probability, 1 - probability]]))], ["a", "b"], tmp_path / "a.png", "title"
        )
        return colored(tmp_path / "a.png")[as_rgb(LOOKS[0][0])]

    assert bar(1.0) == pytest.approx(2 * bar(0.5), rel=0.05) and bar(0.0) < 0.1 * bar(1.0)


def test_models_of_one_method_are_told_apart_by_what_they_differ_in(tmp_path):
    def maft(name, host="zsseg", **training):
        return ModelChoice("maft", "toy-clip", None, {"host": host}, Run(tmp_path / name, {"training": training}))

    frozen = ModelChoice("ipclip", "toy-clip", None, {"start_layer": 4, "proposals": "x"})
    assert captions_of([frozen, maft("a")]) == ["IP-CLIP (frozen)", "MAFT"]
    assert captions_of([maft("a"), maft("b", host="freeseg")]) == ["MAFT, host zsseg", "MAFT, host freeseg"]
    early = ModelChoice("ipclip", "toy-clip", None, {"start_layer": 1, "proposals": "y"})
    assert captions_of([frozen, early]) == ["IP-CLIP (frozen), start_layer 4", "IP-CLIP (frozen), start_layer 1"]
    assert captions_of([maft("a", mask_aware=True), maft("b", mask_aware=False)])[1] == "MAFT, mask_aware False"
    assert captions_of([maft("a", seed=0), maft("b", seed=1), maft("c", seed=1)]) == ["MAFT a", "MAFT b", "MAFT c"]
