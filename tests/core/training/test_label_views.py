"""Which labels reach the weights in each setting: from the files on disk, through `prepare`, to the last bit."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.methods.trained import LabelView
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.training.collate import occurring
from ovseg_cli.core.training.group import ONE, Group
from ovseg_cli.core.training.loop import LoopSettings, fit
from ovseg_cli.core.training.method_data import TrainData, open_train_data, training_pictures
from ovseg_cli.core.training.method_task import MethodTask, loop_settings_of
from ovseg_cli.core.training.processes import open_group
from ovseg_cli.core.training.train_classes import TrainClasses
from ovseg_cli.core.types import TextFeatures
from tests.core.training import forks
from tests.core.training.pictures import ONLY_UNSEEN, SIZES, label_of, make_data
from tests.core.training.viewed_method import Viewed, ViewedTraining

RECIPE = ViewedTraining(
    iterations=8, batch_size=4, learning_rate=0.01, crop_size=10, crop_max_share=0.7, short_sides=(9, 14), workers=0,
    log_every=4, save_every=3, precision="float32",
)  # fmt: skip
INDUCTIVE = RECIPE
HONEST = RECIPE.model_copy(update={"setting": "transductive"})
STARRED = RECIPE.model_copy(update={"setting": "transductive", "self_training": "starred"})
MARKED = RECIPE.model_copy(update={"marks": True})
SUPERVISED = RECIPE.model_copy(update={"setting": "supervised"})
FEATURES = F.normalize(torch.randn(5, 24, generator=torch.Generator().manual_seed(0)), dim=-1)
UNSEEN = torch.tensor([False, True, False, True, False])  # dog and cow


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than the training."""
    monkeypatch.setattr("ovseg_cli.core.training.loop.draw_curves", lambda *_: None)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    return make_data(tmp_path_factory.mktemp("nine"))


def data_of(pictures: SegmentationData, training: ViewedTraining) -> TrainData:
    """Open the data as a training with these settings does."""
    spec = pictures.spec
    split = spec.split("animals")
    classes = TrainClasses.of(spec, split, Viewed.label_view(training))
    return open_train_data(training_pictures(pictures.data, "train", split, classes), classes, training)


def task_of(pictures: SegmentationData, training: ViewedTraining) -> MethodTask:
    data = data_of(pictures, training)
    rows = list(data.classes.names)
    seen = ~UNSEEN[rows] if training.setting != "supervised" else torch.ones(5, dtype=torch.bool)
    text = TextFeatures(FEATURES[rows], torch.arange(len(rows)), len(rows), seen)
    return MethodTask(Viewed(training), data, text)


def trained(
    pictures: SegmentationData, folder: Path, training: ViewedTraining, group: Group = ONE, resume: bool = False
) -> torch.Tensor:
    task = task_of(pictures, training)
    torch.manual_seed(0)
    settings = LoopSettings(**loop_settings_of(training))
    fit(task, settings, folder, Silent(), resume=resume, group=group, identity={"data": task.data.digest})
    return torch.cat([p.detach().flatten() for p in task.module.colors.parameters()])


# What each view makes of a label


def test_labels_of_each_view_by_hand() -> None:
    """Grass, dog, cat, cow, sky, nothing: train ids 0 to 4 and 255; dog and cow are unseen."""
    ids = np.array([0, 1, 2, 3, 4, 255])
    seen, every, unseen = (0, 2, 4), (0, 1, 2, 3, 4), (1, 3)
    for classes, expected in (
        (TrainClasses(seen, seen), [0, -1, 1, -1, 2, -1]),
        (TrainClasses(seen, seen, unseen), [0, -2, 1, -2, 2, -1]),
        (TrainClasses(every, seen), [0, -1, 2, -1, 4, -1]),
        (TrainClasses(every, seen, unseen), [0, -2, 2, -2, 4, -1]),
        (TrainClasses(every, every), [0, 1, 2, 3, 4, -1]),
    ):
        assert classes.table()[ids].tolist() == expected


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (LabelView(), TrainClasses((0, 2, 4), (0, 2, 4))),
        (LabelView(marks_unseen=True), TrainClasses((0, 2, 4), (0, 2, 4), (1, 3))),
        (LabelView("all"), TrainClasses((0, 1, 2, 3, 4), (0, 2, 4))),
        (LabelView("all", "all"), TrainClasses((0, 1, 2, 3, 4), (0, 1, 2, 3, 4))),
        (LabelView("all", "all", True), TrainClasses((0, 1, 2, 3, 4), (0, 1, 2, 3, 4))),
    ],
)
def test_classes_of_each_view(pictures: SegmentationData, view: LabelView, expected: TrainClasses) -> None:
    assert TrainClasses.of(pictures.spec, pictures.spec.split("animals"), view) == expected
    alone = TrainClasses.of(pictures.spec, None, view)
    assert alone == TrainClasses.only((0, 1, 2, 3, 4)), "without a class split nothing is unseen"


def test_classes_set_apart_for_tuning_are_neither_seen_nor_marked(pictures: SegmentationData) -> None:
    split = pictures.spec.split("animals").model_copy(update={"val": ["sky"]})
    classes = TrainClasses.of(pictures.spec, split, LabelView(marks_unseen=True))
    assert classes.table()[[0, 1, 2, 3, 4]].tolist() == [0, -2, 1, -2, -1]


@pytest.mark.parametrize("training", [INDUCTIVE, HONEST, STARRED, MARKED, SUPERVISED])
def test_batches_follow_the_view(pictures: SegmentationData, training: ViewedTraining) -> None:
    whole = training.model_copy(update={"crop_size": 0, "crop_max_share": 1.0, "short_sides": (), "flip": 0.0})
    data = data_of(pictures, whole)
    batch = data[0]
    assert batch["labels"].dtype == torch.int16
    for label, classes, name in zip(batch["labels"], batch["classes"], batch["names"], strict=True):
        height, width = SIZES[int(name[1:])]
        expected = data.classes.table()[label_of(int(name[1:]))]
        assert label[:height, :width].tolist() == expected.tolist()
        assert (label[height:] == -1).all() and (label[:, width:] == -1).all()
        assert classes.tolist() == sorted({*expected[expected >= 0].tolist()})


@given(st.lists(st.integers(-2, 6), min_size=1, max_size=30))
def test_classes_that_occur_are_never_negative(values: list[int]) -> None:
    found = occurring(np.array([values], np.int16))
    assert found.dtype == torch.int64 and found.tolist() == sorted({v for v in values if v >= 0})


def test_pictures_of_unseen_classes_alone_stay_where_there_is_something_to_learn(pictures: SegmentationData) -> None:
    for training, stays in ((INDUCTIVE, False), (HONEST, True), (STARRED, True), (MARKED, True), (SUPERVISED, True)):
        data = data_of(pictures, training)
        assert (f"p{ONLY_UNSEEN}" in data.pictures.names) == stays and data.skipped == (0 if stays else 1)


def test_marks_choose_no_crop(pictures: SegmentationData) -> None:
    """The same step of the same picture is cut alike, whether or not its unseen pixels are known."""
    one, other = data_of(pictures, HONEST), data_of(pictures, STARRED)
    for step in range(4):
        assert torch.equal(one[step]["images"], other[step]["images"])
        assert torch.equal(one[step]["labels"], other[step]["labels"].clamp_min(-1))


def test_fingerprints_of_views_differ(pictures: SegmentationData) -> None:
    digests = {data_of(pictures, t).digest for t in (INDUCTIVE, HONEST, STARRED, MARKED, SUPERVISED)}
    assert len(digests) == 5


def test_true_labels_are_not_opened_unless_a_setting_reads_them(tmp_path: Path) -> None:
    pictures = make_data(tmp_path)
    read = {t: data_of(pictures, t).pictures.folder for t in (INDUCTIVE, HONEST, STARRED, MARKED, SUPERVISED)}
    assert read == {
        INDUCTIVE: "labels-animals", HONEST: "labels-animals", STARRED: "labels", MARKED: "labels", SUPERVISED: "labels"
    }  # fmt: skip
    shutil.rmtree(pictures.data.root / "labels")
    trained(pictures, tmp_path / "run", HONEST)


# What reaches the weights


def swap(label: np.ndarray) -> np.ndarray:
    """Dog (1) becomes cow (3) and cow dog."""
    return np.where(label == 1, 3, np.where(label == 3, 1, label)).astype(np.uint8)


def one_for_all(label: np.ndarray) -> np.ndarray:
    return np.where(label == 3, 1, label).astype(np.uint8)


def forget(label: np.ndarray) -> np.ndarray:
    return np.where((label == 1) | (label == 3), 255, label).astype(np.uint8)


@pytest.mark.parametrize(
    ("training", "blind_to"),
    [
        (INDUCTIVE, {swap, one_for_all, forget}),
        (HONEST, {swap, one_for_all, forget}),
        (STARRED, {swap, one_for_all}),
        (MARKED, {swap, one_for_all}),
        (SUPERVISED, set()),
    ],
    ids=["inductive", "honest", "starred", "marked", "supervised"],
)
def test_what_a_setting_must_not_know_changes_no_weight(
    tmp_path: Path, pictures: SegmentationData, training: ViewedTraining, blind_to: set[Callable]
) -> None:
    reference = trained(pictures, tmp_path / "run", training)
    for change in (swap, one_for_all, forget):
        changed = make_data(tmp_path / change.__name__, relabel=change)
        found = trained(changed, tmp_path / f"run-{change.__name__}", training)
        assert torch.equal(found, reference) == (change in blind_to), change.__name__


# Labels of the method's own


def test_own_labels_are_counted_and_stay_inside_the_pictures(pictures: SegmentationData) -> None:
    task = task_of(pictures, HONEST)
    batch = task.steps(1)[0]
    before = batch["labels"].clone()
    task.before_step([batch], lambda values: values)
    totals = task.normalisers(batch)
    labels = batch["labels"]
    inside = torch.zeros_like(labels, dtype=torch.bool)
    for mask, (height, width) in zip(inside, batch["areas"].tolist(), strict=True):
        mask[:height, :width] = True
    assert labels.dtype == torch.int16 and (labels[~inside] == -1).all()
    assert torch.equal(labels[before >= 0], before[before >= 0])
    made = labels[inside & (before < 0)]
    assert len(made) and {*made.tolist()} <= {1, 3}, "every open pixel gets an unseen class"
    assert [c.tolist() for c in batch["classes"]] == [sorted({*x[x >= 0].tolist()}) for x in labels]
    assert totals == {"pixels": float(inside.sum()), "classes": float(sum(len(c) for c in batch["classes"]))}


def test_starred_labels_fill_the_marked_pixels_alone(pictures: SegmentationData) -> None:
    task = task_of(pictures, STARRED)
    batch = task.steps(1)[0]
    before = batch["labels"].clone()
    task.before_step([batch], lambda values: values)
    assert (before == -2).any() and not (batch["labels"] == -2).any()
    assert torch.equal(batch["labels"][before != -2], before[before != -2])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_labels_are_made_in_the_arithmetic_of_the_step_without_dropout(
    pictures: SegmentationData, tmp_path: Path, precision: str
) -> None:
    training = HONEST.model_copy(update={"precision": precision, "iterations": 2})
    task = task_of(pictures, training)
    fit(task, LoopSettings(**loop_settings_of(training)), tmp_path, Silent())
    autocast = precision == "bfloat16"
    assert task.module.heard == [(autocast, False), (autocast, True)] * 2


def test_labels_of_another_shape_are_refused(pictures: SegmentationData, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(pictures, HONEST)
    monkeypatch.setattr(Viewed, "own_labels", lambda *_: torch.zeros(4, 5, 5, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"own labels \(4, 5, 5\) and labels \(4, 10, 10\) differ"):
        task.before_step([task.steps(1)[0]], lambda values: values)


@pytest.mark.parametrize("training", [HONEST, STARRED, MARKED])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, pictures: SegmentationData, training: ViewedTraining
) -> None:
    straight = trained(pictures, tmp_path / "straight", training)
    shutil.copytree(tmp_path / "straight", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "step-00000008")
    assert torch.equal(trained(pictures, tmp_path / "stopped", training, resume=True), straight)


@pytest.mark.parametrize("training", [HONEST, STARRED])
def test_two_processes_and_micro_batches_change_nothing_but_rounding(
    tmp_path: Path, pictures: SegmentationData, training: ViewedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout is off: each process draws its own random numbers."""
    monkeypatch.setattr(Viewed, "train_mode", lambda self: self.eval())
    whole = trained(pictures, tmp_path / "whole", training)
    parts = trained(pictures, tmp_path / "parts", training.model_copy(update={"accumulate": 3}))

    def act() -> None:
        torch.set_num_threads(1)
        with open_group("cpu") as group:
            torch.save(trained(pictures, tmp_path / "two", training, group), tmp_path / f"end-{group.rank}.pt")

    assert forks.codes(forks.start(act, 2, tmp_path)) == [0, 0]
    for found in (parts, *(torch.load(tmp_path / f"end-{rank}.pt") for rank in range(2))):
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-4)
