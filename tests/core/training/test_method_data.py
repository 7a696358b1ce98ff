"""The same global batch whoever makes it, seen labels alone, and what is said about data that cannot be trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.training.augment import Place, warp_label
from ovseg_cli.core.training.collate import ready
from ovseg_cli.core.training.method_data import TrainData, open_train_data
from ovseg_cli.core.training.train_classes import TrainClasses
from ovseg_cli.core.types import Proposals
from tests.core.training.pictures import (
    ONLY_UNSEEN,
    SEEN,
    SIZES,
    label_of,
    make_data,
    make_proposals,
    masks_of,
    picture_of,
)

AS_THEY_ARE = TrainingConfig(iterations=8, batch_size=1, flip=0.0)
ALL = TrainingConfig(
    iterations=20, batch_size=5, short_sides=(8, 12), scale_range=(0.8, 1.5), crop_size=10, crop_max_share=0.8,
    color_jitter=True, seed=3,
)  # fmt: skip


def equal(one: dict, other: dict) -> bool:
    tensors = all(torch.equal(one[key], other[key]) for key in ("images", "labels", "areas"))
    classes = all(torch.equal(a, b) for a, b in zip(one["classes"], other["classes"], strict=True))
    masks = all(torch.equal(a, b) for a, b in zip(one.get("masks", ()), other.get("masks", ()), strict=True))
    return one["names"] == other["names"] and tensors and classes and masks


def joined(parts: list[dict]) -> dict:
    whole = {key: torch.cat([part[key] for part in parts]) for key in ("images", "labels", "areas")}
    return whole | {
        key: [x for part in parts for x in part[key]] for key in ("names", "classes", "masks") if key in parts[0]
    }


def test_labels_are_positions_among_the_seen_classes(pictures: SegmentationData) -> None:
    # train ids: 0 grass, 2 cat, 4 sky are seen and become 0, 1, 2; dog, cow and 255 become -1
    data = open_train_data(pictures, SEEN, AS_THEY_ARE)
    for step in range(len(data)):
        batch = ready(data[step])
        raw = label_of(int(batch["names"][0][1:]))
        expected = np.select([raw == 0, raw == 2, raw == 4], [0, 1, 2], -1)
        assert batch["labels"].dtype == torch.int64 and batch["labels"][0].tolist() == expected.tolist()
        assert batch["classes"][0].tolist() == sorted(set(expected[expected >= 0].tolist()))


def test_picture_as_it_is_stays_as_it_is(pictures: SegmentationData) -> None:
    batch = open_train_data(pictures, SEEN, AS_THEY_ARE)[0]
    assert batch["images"][0].permute(1, 2, 0).tolist() == picture_of(int(batch["names"][0][1:])).tolist()


def test_pictures_without_a_seen_pixel_are_left_out(pictures: SegmentationData) -> None:
    data = open_train_data(pictures, SEEN, AS_THEY_ARE)
    assert data.skipped == 1 and f"p{ONLY_UNSEEN}" not in data.pictures.names and len(data.pictures) == 8


def test_canvas_holds_the_largest_example_and_is_padded(pictures: SegmentationData) -> None:
    training = TrainingConfig(iterations=1, batch_size=8, flip=0.0, pad_value=(1, 2, 3))
    batch = open_train_data(pictures, SEEN, training)[0]
    assert batch["images"].shape == (8, 3, 20, 31)
    for image, label, (height, width), name in zip(
        batch["images"], batch["labels"], batch["areas"].tolist(), batch["names"], strict=True
    ):
        assert (height, width) == SIZES[int(name[1:])]
        assert image[:, :height, :width].permute(1, 2, 0).tolist() == picture_of(int(name[1:])).tolist()
        for outside in (image[:, height:], image[:, :, width:]):
            assert (outside.flatten(1).T == torch.tensor([1, 2, 3])).all()
        assert (label[height:] == -1).all() and (label[:, width:] == -1).all()


def test_crop_makes_a_square_canvas(pictures: SegmentationData) -> None:
    batch = open_train_data(pictures, SEEN, TrainingConfig(batch_size=8, crop_size=14))[0]
    assert batch["images"].shape == (8, 3, 14, 14) and batch["labels"].shape == (8, 14, 14)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(0, 5))
def test_no_picture_comes_twice_in_an_epoch_and_none_is_left_out(batch_size: int, seed: int) -> None:
    data = _index_only(8, batch_size, seed)
    seen = [data.index(step, position) for step in range(3 * 8) for position in range(batch_size)]
    epochs = [seen[i : i + 8] for i in range(0, len(seen) - 7, 8)]
    assert len(epochs) == 3 * batch_size and all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1, "every epoch has the same order"


def _index_only(count: int, batch_size: int, seed: int) -> TrainData:
    class Pictures:
        def __len__(self) -> int:
            return count

    return TrainData(Pictures(), SEEN, TrainingConfig(batch_size=batch_size, seed=seed))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=25)
@given(parts=st.integers(1, 5), step=st.integers(0, 19), crop=st.booleans())
def test_parts_make_up_the_same_global_batch(
    pictures: SegmentationData, store: ProposalStore, parts: int, step: int, crop: bool
) -> None:
    training = ALL if crop else ALL.model_copy(update={"crop_size": 0, "crop_max_share": 1.0})
    data = open_train_data(pictures, SEEN, training, store)
    cut = data.in_parts(parts)
    assert len(cut) == 20 * parts
    whole = joined([ready(cut[step * parts + part]) for part in range(parts)])
    assert equal(whole, ready(data[step]))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same_batches(pictures: SegmentationData, store: ProposalStore, workers: int) -> None:
    data = open_train_data(pictures, SEEN, ALL, store)
    loader = DataLoader(data, batch_size=None, num_workers=workers)
    assert all(equal(ready(loaded), ready(data[step])) for step, loaded in zip(range(20), loader, strict=True))


def test_seed_changes_order_and_augmentation(pictures: SegmentationData) -> None:
    one, other = (
        open_train_data(pictures, SEEN, ALL.model_copy(update={"seed": seed})) for seed in (0, 1)
    )  # fmt: skip
    assert [one.index(0, p) for p in range(5)] != [other.index(0, p) for p in range(5)]
    drawn = [one.drawn(0, 0), other.drawn(0, 0), other.drawn(0, 1), other.drawn(1, 0), other.drawn(1, 1)]
    assert len({d.factor for d in drawn}) == 5


def test_more_parts_than_pictures_are_refused(pictures: SegmentationData) -> None:
    with pytest.raises(UsageError, match="batch_size of 5") as caught:
        open_train_data(pictures, SEEN, ALL).in_parts(6)
    assert "--set batch_size=6" in str(caught.value)


@pytest.mark.parametrize("soft", [False, True])
def test_masks_follow_their_picture(tmp_path: Path, pictures: SegmentationData, soft: bool) -> None:
    store = make_proposals(tmp_path, pictures, soft)
    training = TrainingConfig(iterations=4, batch_size=8, flip=1.0)
    batch = ready(open_train_data(pictures, SEEN, training, store)[0])
    for found, (height, width), name in zip(batch["masks"], batch["areas"].tolist(), batch["names"], strict=True):
        number = int(name[1:])
        assert found.shape == (number, 20, 31) and found.dtype == torch.uint8
        masks = masks_of(number, (height, width), soft)
        if soft:
            if number:
                full = torch.nn.functional.interpolate(masks[None].float(), (height, width), mode="bilinear")[0]
                assert (found[:, :height, :width] - full.flip(2)).abs().max() <= 0.51
        else:
            assert torch.equal(found[:, :height, :width], masks.flip(2).to(torch.uint8) * 255)
        assert not found[:, height:].any() and not found[:, :, width:].any()


def test_picture_may_have_no_proposals(pictures: SegmentationData, store: ProposalStore) -> None:
    data = open_train_data(pictures, SEEN, TrainingConfig(batch_size=8, crop_size=10), store)
    batch = ready(data[0])
    assert batch["masks"].counts == [int(name[1:]) for name in batch["names"]] and 0 in batch["masks"].counts


def test_batch_without_any_label_is_legal(pictures: SegmentationData) -> None:
    """A crop may show unseen classes alone."""
    data = open_train_data(pictures, SEEN, TrainingConfig(batch_size=1, crop_size=2, iterations=200))
    batch = next(b for b in (data[step] for step in range(200)) if (b["labels"] == -1).all())
    assert batch["classes"][0].shape == (0,)


def test_missing_proposals_are_said_with_the_command(tmp_path: Path, pictures: SegmentationData) -> None:
    store = make_proposals(tmp_path, pictures.select([0, 1, 2, 3, 4]))
    with pytest.raises(DataError, match="4 of 8 pictures have no proposals, the first is 'p5'") as caught:
        open_train_data(pictures, SEEN, ALL, store)
    assert caught.value.mend == "Make them: ovseg propose random --data nine"


def test_proposals_of_another_picture_are_refused(tmp_path: Path, pictures: SegmentationData) -> None:
    store = make_proposals(tmp_path, pictures)
    other = pictures[6]  # the same size as the first
    store.write("p0", other.image, Proposals(torch.ones(1, 12, 16, dtype=torch.bool), torch.ones(1), (12, 16)))
    with pytest.raises(DataError, match="p0.*another picture"):
        _read_all(open_train_data(pictures, SEEN, AS_THEY_ARE, store))


def test_proposals_of_another_size_are_refused(tmp_path: Path, pictures: SegmentationData) -> None:
    store = make_proposals(tmp_path, pictures)
    store.write("p0", pictures[0].image, Proposals(torch.ones(1, 3, 4, dtype=torch.bool), torch.ones(1), (3, 4)))
    with pytest.raises(DataError, match="picture 'p0' cover 3 x 4 pixels, the picture has 12 x 16") as caught:
        _read_all(open_train_data(pictures, SEEN, AS_THEY_ARE, store))
    assert "ovseg propose random --data nine" in str(caught.value)


def _read_all(data: TrainData) -> None:
    for step in range(len(data)):
        data[step]


def test_data_without_labels_or_seen_classes_is_refused(pictures: SegmentationData) -> None:
    with pytest.raises(DataError, match="no picture shows a seen class"):
        open_train_data(pictures.select([ONLY_UNSEEN]), SEEN, ALL)
    from dataclasses import replace

    bare = replace(pictures, entries=tuple(replace(entry, label=None) for entry in pictures.entries))
    with pytest.raises(DataError, match="no labels to train on"):
        open_train_data(bare, SEEN, ALL)


def test_changed_data_is_noticed(tmp_path: Path, pictures: SegmentationData, store: ProposalStore) -> None:
    data = open_train_data(pictures, SEEN, ALL, store)
    assert open_train_data(pictures, SEEN, ALL, store).digest == data.digest
    darker = make_data(tmp_path, repaint=lambda image: image // 2)
    other = ProposalStore.create(tmp_path / "masks", {"generator": "other", "settings": {}, "images": 9})
    for sample in pictures:
        other.write(sample.name, sample.image, store.read(sample.name))
    changed = {
        "pictures": open_train_data(darker, SEEN, ALL, store),
        "classes": open_train_data(pictures, TrainClasses.only(SEEN.names[:2]), ALL, store),
        "proposals": open_train_data(pictures, SEEN, ALL, other),
    }
    digests = {what: one.digest for what, one in changed.items()}
    assert len({data.digest, *digests.values()}) == 4, digests


def test_settings_that_change_nothing_keep_the_fingerprint(pictures: SegmentationData) -> None:
    assert open_train_data(pictures, SEEN, ALL).digest == open_train_data(pictures, SEEN, AS_THEY_ARE).digest


def test_example_is_its_place_in_the_picture(pictures: SegmentationData) -> None:
    """A resized crop's label is what `warp_label` says of the picture's own label at a hand-made place."""
    training = TrainingConfig(iterations=1, batch_size=1, short_sides=(24,), crop_size=64, flip=1.0)
    batch = open_train_data(pictures, SEEN, training)[0]
    number, (height, width) = int(batch["names"][0][1:]), batch["areas"][0].tolist()
    raw = label_of(number)
    expected = warp_label(
        np.select([raw == 0, raw == 2, raw == 4], [0, 1, 2], -1), Place((height, width), 0, 0, height, width, True)
    )
    assert min(height, width) == 24 and (batch["labels"][0, :height, :width].numpy() == expected).all()
