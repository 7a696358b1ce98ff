"""Training without labels: none is opened, two views follow each picture, and masks may be missing everywhere."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ovseg_cli.core.data.dataset import PreparedData, SegmentationData
from ovseg_cli.core.data.prepare import prepare
from ovseg_cli.core.data.specs import load_spec
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.methods.pixelclip import PixelClip, PixelClipConfig, PixelClipTraining
from ovseg_cli.core.methods.texts import is_at_home, no_text, seen_rows, training_doubt
from ovseg_cli.core.methods.trained import LabelView, SecondView, TrainedMethod
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.proposals.base import ProposalGenerator
from ovseg_cli.core.proposals.entry import Entry
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.runs import Run
from ovseg_cli.core.training.collate import ready
from ovseg_cli.core.training.group import ONE, Group
from ovseg_cli.core.training.live_clusters import LiveClusters
from ovseg_cli.core.training.loop import LoopSettings, fit
from ovseg_cli.core.training.mask_crops import MaskCrops
from ovseg_cli.core.training.method_data import TrainData, open_train_data, training_pictures
from ovseg_cli.core.training.method_task import MethodTask, loop_settings_of
from ovseg_cli.core.training.processes import open_group
from ovseg_cli.core.training.resuming import check_unchanged, fingerprints_of
from ovseg_cli.core.training.train_classes import TrainClasses
from ovseg_cli.core.training.views import strong_view
from ovseg_cli.core.types import Proposals, Vocabulary
from tests.core.clip.tiny import tiny_clip
from tests.core.data.handmade import folders_of, write_png
from tests.core.training import forks
from tests.core.training.linear_method import Linear
from tests.core.training.pictures import SIZES, SPEC, make_data, make_proposals, masks_of, picture_of
from tests.core.training.unlabelled_method import Unlabelled, UnlabelledTraining

NONE = TrainClasses((), (), reads_labels=False)
RECIPE = UnlabelledTraining(
    iterations=8, batch_size=5, learning_rate=0.01, crop_size=10, short_sides=(9, 14), color_jitter=True, workers=0,
    log_every=4, save_every=3, precision="float32", pad_value=(1, 2, 3), seed=3,
)  # fmt: skip
KEYS = ("images", "strong", "cut_outs", "labels", "areas")


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than the training."""
    monkeypatch.setattr("ovseg_cli.core.training.loop.draw_curves", lambda *_: None)


def data_of(pictures: SegmentationData, store: Any = None, training: TrainingConfig = RECIPE) -> TrainData:
    """Open the data as a training with these settings does."""
    view: Any = Unlabelled.label_view(training)
    classes = TrainClasses.of(pictures.spec, pictures.spec.split("animals"), view)
    opened = training_pictures(pictures.data, "train", pictures.spec.split("animals"), classes)
    return open_train_data(opened, classes, training, store, Unlabelled.second_view(training))


def trained(
    data: TrainData, folder: Path, group: Group = ONE, resume: bool = False, method: TrainedMethod | None = None
) -> torch.Tensor:
    """Train and return the weights."""
    torch.manual_seed(0)
    method = method or Unlabelled()
    task = MethodTask(method, data, no_text(method.clip))
    settings = LoopSettings(**loop_settings_of(data.training))
    fit(task, settings, folder, Silent(), resume=resume, group=group, identity={"data": data.digest})
    return torch.cat([p.detach().flatten() for p in method.trained_state().values()])


def equal(one: dict, other: dict) -> bool:
    tensors = all(torch.equal(one[key], other[key]) for key in KEYS)
    masks = all(torch.equal(a, b) for a, b in zip(one.get("masks", ()), other.get("masks", ()), strict=True))
    return one["names"] == other["names"] and tensors and masks


# What a batch holds


def test_classes_of_views_without_labels(pictures: SegmentationData) -> None:
    spec, split = pictures.spec, pictures.spec.split("animals")
    assert TrainClasses.of(spec, split, LabelView("none", "none")) == NONE
    named = TrainClasses.of(spec, split, LabelView("all", "none"))
    assert named == TrainClasses((0, 1, 2, 3, 4), (), reads_labels=False)
    for classes in (NONE, named):
        assert not classes.has_unlabelled and not classes.needs_full_labels([1, 3])
        assert set(classes.table()[[0, 1, 2, 3, 4, 255]].tolist()) == {-1}
    only_unseen = split.model_copy(update={"unseen": list(spec.class_names)})
    assert TrainClasses.of(spec, only_unseen, LabelView()).reads_labels, "labels are read, though none is of a class"


def test_both_views_of_a_picture_as_it_is(pictures: SegmentationData) -> None:
    """Nothing resized or cut: the weak view is the picture, the strong one what was drawn makes of it."""
    plain = UnlabelledTraining(iterations=2, batch_size=9, flip=0.0, pad_value=(1, 2, 3))
    data = data_of(pictures, training=plain)
    batch = ready(data[0])
    assert batch["images"].shape == batch["strong"].shape == (9, 3, 20, 31)
    assert batch["cut_outs"].shape == (9, 4) and batch["cut_outs"].dtype == torch.int64
    for i, name in enumerate(batch["names"]):
        weak, (height, width) = picture_of(int(name[1:])), SIZES[int(name[1:])]
        found = batch["strong"][i].permute(1, 2, 0).numpy()
        assert np.array_equal(batch["images"][i, :, :height, :width].permute(1, 2, 0), weak)
        assert np.array_equal(found[:height, :width], strong_view(weak, data.drawn_strong(0, i)))
        top, left, rows, columns = batch["cut_outs"][i].tolist()
        assert rows and columns and top + rows <= height and left + columns <= width
        assert not found[top : top + rows, left : left + columns].any()
        assert (found[height:] == (1, 2, 3)).all() and (found[:, width:] == (1, 2, 3)).all()
    assert (batch["labels"] == -1).all() and all(c.shape == (0,) for c in batch["classes"])


def test_without_colours_and_box_both_views_are_one(pictures: SegmentationData) -> None:
    batch = data_of(pictures, training=RECIPE.model_copy(update={"strong_colors": False, "cut_out": False}))[0]
    assert torch.equal(batch["images"], batch["strong"]) and not batch["cut_outs"].any()
    boxed = data_of(pictures, training=RECIPE.model_copy(update={"strong_colors": False}))[0]
    for weak, strong, (top, left, rows, columns) in zip(
        batch["images"], boxed["strong"], boxed["cut_outs"].tolist(), strict=True
    ):
        weak[:, top : top + rows, left : left + columns] = 0
        assert torch.equal(weak, strong)


def test_a_second_view_changes_nothing_of_the_first(pictures: SegmentationData, store: Any) -> None:
    data = data_of(pictures, store)
    once = replace(data, view=None)
    for step in range(3):
        one, two = ready(once[step]), ready(data[step])
        assert "strong" not in one and "cut_outs" not in one
        assert torch.equal(one["images"], two["images"]) and equal({**two, **one}, two)


def test_views_are_drawn_from_numbers_of_their_own(pictures: SegmentationData) -> None:
    """From the numbers of the first view, a picture would be grey exactly where its second number is below 0.2."""
    data = data_of(pictures, training=UnlabelledTraining(iterations=40, batch_size=9, scale_range=(0.001, 1.0)))
    places = [(step, position) for step in range(40) for position in range(9)]
    small = np.array([data.drawn(*where).factor < 0.2 for where in places])
    grey = np.array([data.drawn_strong(*where).grey for where in places])
    assert 0.1 < grey[small].mean() < 0.35 and 0.1 < grey[~small].mean() < 0.35
    assert data.drawn_strong(0, 1) != data.drawn_strong(1, 0) != data.drawn_strong(0, 0)
    other = replace(data, training=data.training.model_copy(update={"seed": 1}))
    assert other.drawn_strong(0, 0) != data.drawn_strong(0, 0)


def test_masks_are_those_of_the_example_not_of_the_box(pictures: SegmentationData, store: Any) -> None:
    plain = UnlabelledTraining(iterations=1, batch_size=9, flip=0.0)
    batch = ready(data_of(pictures, store, plain)[0])
    for found, (height, width), name in zip(batch["masks"], batch["areas"].tolist(), batch["names"], strict=True):
        expected = masks_of(int(name[1:]), (height, width)).to(torch.uint8) * 255
        assert torch.equal(found[:, :height, :width], expected)


@settings(deadline=None, max_examples=15)
@given(parts=st.integers(1, 5), step=st.integers(0, 7))
def test_parts_make_up_the_same_global_batch(pictures: SegmentationData, store: Any, parts: int, step: int) -> None:
    data = data_of(pictures, store)
    cut = [ready(data.in_parts(parts)[step * parts + part]) for part in range(parts)]
    whole = {key: torch.cat([part[key] for part in cut]) for key in KEYS}
    assert equal(whole | {k: [x for part in cut for x in part[k]] for k in ("names", "masks")}, ready(data[step]))


def test_workers_make_the_same_batches(pictures: SegmentationData, store: Any) -> None:
    data = data_of(pictures, store)
    loader = DataLoader(data, batch_size=None, num_workers=2)
    assert all(equal(ready(loaded), ready(data[step])) for step, loaded in zip(range(8), loader, strict=True))


# No label is opened


def garbled(root: Path) -> None:
    for file in root.glob("labels*/train/*.png"):
        file.write_bytes(b"no picture at all")


def gone(root: Path) -> None:
    for labels in root.glob("labels*"):
        shutil.rmtree(labels)


def of_another_picture(root: Path) -> None:
    for file in root.glob("labels*/train/*.png"):
        write_png(file, np.full((3, 3), 4, np.uint8))


@pytest.mark.parametrize("harm", [garbled, gone, of_another_picture])
@pytest.mark.parametrize("names", ["none", "data"])
def test_what_becomes_of_label_files_changes_no_bit(
    tmp_path: Path, pictures: SegmentationData, store: Any, harm: Callable[[Path], None], names: str
) -> None:
    recipe = RECIPE.model_copy(update={"class_names": names})
    reference = data_of(pictures, store, recipe)
    other = make_data(tmp_path)
    harm(other.data.root)
    data = data_of(other, make_proposals(tmp_path / "masks", pictures), recipe)
    assert data.digest == reference.digest and data.skipped == 0
    assert all(equal(ready(data[step]), ready(reference[step])) for step in range(8))


@pytest.mark.parametrize(
    "relabel",
    [lambda label: 4 - label.clip(0, 4), np.zeros_like, lambda label: np.full_like(label, 255)],
    ids=["other-classes", "one-class", "nothing-labelled"],
)
def test_data_prepared_with_other_labels_gives_the_same_weights(
    tmp_path: Path, pictures: SegmentationData, store: Any, relabel: Callable[[np.ndarray], np.ndarray]
) -> None:
    """From the files on disk, through `prepare`, to the last bit of the weights; a run may even go on with them."""
    reference = trained(data_of(pictures, store), tmp_path / "run")
    changed = make_data(tmp_path / "changed", relabel=relabel)
    assert changed.fingerprint != pictures.fingerprint
    data = data_of(changed, make_proposals(tmp_path / "masks", changed))
    assert torch.equal(trained(data, tmp_path / "other"), reference)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000008")
    assert torch.equal(trained(data, tmp_path / "run", resume=True), reference)


def test_a_class_split_changes_nothing(pictures: SegmentationData, store: Any) -> None:
    spec = pictures.spec
    split = spec.split("animals")
    digests = set()
    for each in (None, split, split.model_copy(update={"unseen": list(spec.class_names)})):
        classes = TrainClasses.of(spec, each, LabelView("none", "none"))
        opened = training_pictures(pictures.data, "train", each, classes)
        data = open_train_data(opened, classes, RECIPE, store, SecondView())
        assert equal(ready(data[0]), ready(data_of(pictures, store)[0]))
        digests.add(data.digest)
    assert len(digests) == 1


def test_fingerprint_is_that_of_the_pictures(tmp_path: Path, pictures: SegmentationData) -> None:
    one = data_of(pictures)
    darker = make_data(tmp_path, repaint=lambda image: image // 2)
    assert one.digest != data_of(darker).digest
    assert one.digest != open_train_data(pictures, TrainClasses.only((0, 2, 4)), RECIPE).digest
    assert one.digest != data_of(pictures, training=RECIPE.model_copy(update={"class_names": "data"})).digest


def test_a_run_goes_on_with_other_labels_but_not_with_other_pictures(
    tmp_path: Path, pictures: SegmentationData
) -> None:
    begun = Run(tmp_path, {"fingerprints": fingerprints_of(pictures.data, "train", with_labels=False)})
    with_labels = Run(tmp_path, {"fingerprints": fingerprints_of(pictures.data, "train", with_labels=True)})
    assert begun.config["fingerprints"].keys() == {"pictures"} and with_labels.config["fingerprints"].keys() == {"data"}
    relabelled = make_data(tmp_path / "relabelled", relabel=np.zeros_like).data
    repainted = make_data(tmp_path / "repainted", repaint=lambda image: image // 2).data
    check_unchanged(begun, pictures.data, "train")
    check_unchanged(begun, relabelled, "train")
    check_unchanged(Run(tmp_path, {}), repainted, "train")  # an old run that kept none
    with pytest.raises(DataError, match="the pictures in .* are not what this run began with"):
        check_unchanged(begun, repainted, "train")
    with pytest.raises(DataError, match="the data in .* is not what this run began with"):
        check_unchanged(with_labels, relabelled, "train")


def bare_data(folder: Path, text: str) -> PreparedData:
    for number in range(len(SIZES)):
        write_png(folder / "source" / "images" / f"p{number}.png", picture_of(number))
    (folder / "nine.toml").write_text(text)
    spec = load_spec(folder / "nine.toml")
    prepare(spec, folders_of(folder), folder / "source")
    return PreparedData.open(spec, folders_of(folder))


WITHOUT_LABELS = SPEC.replace(', labels = "labels/{stem}.png"', "")
WITHOUT_CLASSES = """
schema = 1
name = "nine"
title = "Nine pictures"
task = "class-agnostic-masks"
subsets = { train = { images = 9 } }

[[layouts]]
id = "official"
source = "made by hand"
roots = ["."]
subsets = { train = { images = "images/{stem}.png" } }
"""


@pytest.mark.parametrize("text", [WITHOUT_LABELS, WITHOUT_CLASSES], ids=["no-labels", "no-classes"])
def test_data_that_has_no_labels_trains_to_the_same_weights(
    tmp_path: Path, pictures: SegmentationData, store: Any, text: str
) -> None:
    prepared = bare_data(tmp_path, text)
    classes = TrainClasses.of(prepared.spec, None, LabelView("none", "none"))
    assert classes == NONE
    bare = training_pictures(prepared, "train", None, classes)
    data = open_train_data(bare, classes, RECIPE, make_proposals(tmp_path / "masks", bare), SecondView())
    assert torch.equal(trained(data, tmp_path / "run"), trained(data_of(pictures, store), tmp_path / "other"))


def test_no_pictures_are_said(pictures: SegmentationData) -> None:
    with pytest.raises(DataError, match="nine, subset 'train': there are no pictures to train on"):
        open_train_data(pictures.select([]), NONE, RECIPE)


def test_a_picture_without_an_entry_is_said_with_the_command(tmp_path: Path, pictures: SegmentationData) -> None:
    store = make_proposals(tmp_path, pictures.select([0, 1, 2]))
    with pytest.raises(DataError, match="6 of 9 pictures have no proposals, the first is 'p3'"):
        data_of(pictures, store)


# No names


def test_no_text_has_no_rows() -> None:
    clip = tiny_clip()
    text = no_text(clip)
    assert text.features.shape == (0, clip.embed_dim) and text.class_of_row.shape == (0,) and text.num_classes == 0
    assert text.to("cpu").features.shape == (0, clip.embed_dim)


def test_nothing_seen_is_not_nobody_knows() -> None:
    """Without training names every class is unseen, and that is no reason for doubt."""
    vocabulary = Vocabulary(("grass", "dog"), (("grass",), ("dog",)), unseen=(False, True))
    method = Linear()
    method.training_names = ()
    assert seen_rows(vocabulary, ()).tolist() == [False, False] and training_doubt(method, vocabulary) is None
    method.training_names = None
    assert "Nobody knows" in (training_doubt(method, vocabulary) or "")
    novel = replace(vocabulary, unseen=(True, True))
    assert seen_rows(novel, ()).tolist() == [False, False]
    assert not is_at_home(novel, ()) and not is_at_home(vocabulary, ()) and not is_at_home(vocabulary, None)


# Masks, or none


class Kept:
    """A store that has as many masks for each picture as `counts` says, one after the other, stripes of its rows."""

    digest, command = "kept", "make them"

    def __init__(self, pictures: SegmentationData, counts: Callable[[int], int]):
        self.pictures, self.counts = pictures, counts

    def names(self) -> list[str]:
        return self.pictures.names

    def read_entry(self, name: str, image: str | None = None) -> Entry:
        place = self.pictures.names.index(name)
        height, width = self.pictures.sizes[place]
        masks = torch.zeros(self.counts(place), height, width, dtype=torch.bool)
        for i, mask in enumerate(masks):
            mask[i::4] = True
        return Entry.of(name, "", Proposals(masks, torch.ones(len(masks)), (height, width)))


def pixelclip() -> PixelClip:
    torch.manual_seed(0)
    own = PixelClipConfig(resize="none", prompts=3, prompt_length=1, prompt_templates=("a photo of {}",))
    return PixelClip(tiny_clip(), own)


TUNED = PixelClipTraining(
    iterations=2, batch_size=4, short_sides=(), crop_size=32, train_long_side=0, mask_size=16, workers=0, save_every=2,
    log_every=1, learning_rate=0.01, precision="float32",
)  # fmt: skip


@pytest.mark.parametrize("masks", [{0: 0}, {i: 0 for i in range(9)}], ids=["one-picture", "everywhere"])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_goes_on_without_masks(
    tmp_path: Path, pictures: SegmentationData, masks: dict[int, int], processes: int
) -> None:
    """In a picture, in a whole batch, in all processes: the loss is 0 there, and no process waits for another."""

    def act() -> None:
        torch.set_num_threads(1)
        with open_group("cpu") as group:
            data = open_train_data(pictures, NONE, TUNED, Kept(pictures, lambda i: masks.get(i, 3)), SecondView())
            weights = trained(data, tmp_path / "run", group, method=pixelclip())
            torch.save(weights, tmp_path / f"end-{group.rank}.pt")

    if processes == 1:
        act()
    else:
        assert forks.codes(forks.start(act, processes, tmp_path)) == [0, 0]
    ends = [torch.load(tmp_path / f"end-{rank}.pt") for rank in range(processes)]
    start = torch.cat([p.detach().flatten() for p in _started().values()])
    assert all(torch.isfinite(end).all() and torch.equal(end, ends[0]) for end in ends)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] == 0 for line in lines] == [len(masks) == 9] * 2 and len(ends[0]) == len(start)


def _started() -> dict[str, torch.Tensor]:
    method = pixelclip()
    method.parameter_groups(TUNED)
    return method.trained_state()


# Masks of each step


class Thirds(ProposalGenerator):
    """Masks that part a picture into bright, middle and dark, and leave the darkest pixels out."""

    name = "thirds"

    def generate(self, image: torch.Tensor, label: torch.Tensor | None = None) -> Proposals:
        assert image.is_contiguous() and image.dtype == torch.uint8
        level = image.float().mean(0) // 64
        masks = torch.stack([level == 3, level == 2, level == 1])
        return Proposals(masks, torch.ones(3), (image.shape[1], image.shape[2]))


def test_live_masks_are_those_of_the_part_that_the_picture_covers() -> None:
    images = torch.randint(256, (2, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = {"images": images, "areas": torch.tensor([[12, 10], [7, 9]])}
    crops = MaskCrops.of(LiveClusters(Thirds()).of(batch))
    for found, image, (height, width) in zip(crops, images, batch["areas"].tolist(), strict=True):
        expected = Thirds().generate(image[:, :height, :width].contiguous()).masks.to(torch.uint8) * 255
        assert found.shape == (3, 12, 10) and torch.equal(found[:, :height, :width], expected)
        assert not found[:, height:].any() and not found[:, :, width:].any()
        assert (found > 0).sum(0).max() == 1, "masks do not overlap"


def test_live_masks_of_dino_part_the_crop_and_depend_on_nothing_else() -> None:
    tiny = {"model": "test_vit", "weights": "random", "clusters": 4}
    live = LiveClusters.open(tiny, "cpu", Silent())
    images = torch.randint(256, (2, 3, 64, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = {"images": images, "areas": torch.tensor([[64, 48], [48, 33]])}
    both = live.of(batch)
    (second,) = live.of({"images": images[1:], "areas": batch["areas"][1:]})
    assert torch.equal(second["ids"], both[1]["ids"]) and torch.equal(second["table"], both[1]["table"])
    for part, (height, width) in zip(both, batch["areas"].tolist(), strict=True):
        assert part["ids"].dtype == torch.int32 and part["table"].dtype == torch.uint8
        assert (part["ids"][:height, :width] > 0).all() and not part["ids"][height:].any()
        assert not part["ids"][:, width:].any() and 1 <= len(part["table"]) <= 4
    assert live.digest == LiveClusters.open(tiny, "cpu", Silent()).digest


def test_live_masks_join_a_training(tmp_path: Path, pictures: SegmentationData) -> None:
    data = open_train_data(pictures, NONE, TUNED.model_copy(update={"proposals": "live"}), None, SecondView())
    method = pixelclip()
    task = MethodTask(method, data, no_text(method.clip), live=LiveClusters(Thirds()))
    fit(task, LoopSettings(**loop_settings_of(TUNED)), tmp_path, Silent(), identity={})
    assert "nan" not in (tmp_path / "metrics.jsonl").read_text().lower()


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, pictures: SegmentationData, store: Any
) -> None:
    data = data_of(pictures, store)
    straight = trained(data, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "step-00000008")
    assert torch.equal(trained(data, tmp_path / "stopped", resume=True), straight)
