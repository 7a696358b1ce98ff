"""Masks from elsewhere on a method's canvas: where each pixel lands, and which picture they belong to."""

import pytest
import torch

from ovseg_cli.core.errors import DataError, UsageError
from ovseg_cli.core.methods.masked import Canvas
from ovseg_cli.core.methods.sources import GeneratorSource, StoreSource, on_canvas
from ovseg_cli.core.proposals.store import ProposalStore
from ovseg_cli.core.reporter import Silent
from ovseg_cli.core.types import Proposals, TextFeatures

NO_TEXT = TextFeatures.of_classes(torch.zeros(1, 4))


def canvas_of(picture, area, size):
    return Canvas(torch.zeros(3, *area), size, picture)


def picture(seed, height=5, width=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def proposals(count, height=5, width=7, kind=torch.bool):
    masks = torch.zeros(count, height, width, dtype=kind)
    for i in range(count):
        masks[i, :, : i + 1] = True if kind == torch.bool else 255
    return Proposals(masks, torch.linspace(1, 0.5, count), (height, width))


def test_masks_lie_top_left_and_padding_is_empty():
    found = on_canvas(proposals(2), canvas_of(picture(0), (5, 7), (8, 32))).masks
    assert found.shape == (2, 8, 32) and found[1].sum() == 10
    assert found[1, :5, :2].eq(1).all() and not found[:, 5:].any() and not found[:, :, 7:].any()


@pytest.mark.parametrize("area", [(5, 7), (10, 14), (9, 13), (1, 1), (3, 17)])
def test_masks_follow_the_picture_to_any_size(area):
    size = (32, 32)
    found = on_canvas(proposals(7, kind=torch.uint8), canvas_of(picture(0), area, size)).masks[:, : area[0], : area[1]]
    columns = (torch.arange(area[1]) + 0.5) * 7 / area[1] - 0.5  # where a pixel's centre lies in the picture
    for i in range(7):
        expected = (i + 1 - columns.clamp(0, 6)).clamp(0, 1)  # a straight edge between columns i and i + 1
        torch.testing.assert_close(found[i], expected.expand(area), atol=1e-5, rtol=0)


def test_no_masks_give_no_candidates():
    assert on_canvas(proposals(0), canvas_of(picture(0), (10, 14), (32, 32))).masks.shape == (0, 32, 32)


@pytest.fixture
def stores(tmp_path):
    made = []
    for number, name in enumerate(("train", "val")):
        key = {"generator": "g", "settings": {}, "subset": name}
        store = ProposalStore.create(tmp_path / "g-1" / name, key)
        store.write("a", picture(number), proposals(number + 1))
        made.append(store)
    return made


def test_pictures_are_found_by_their_pixels_in_any_of_the_caches(stores, tmp_path):
    source = StoreSource.open(tmp_path / "g-1")
    canvases = [canvas_of(picture(seed), (5, 7), (32, 32)) for seed in (1, 0)]
    assert [len(found.masks) for found in source.propose(canvases, NO_TEXT)] == [2, 1]
    assert [
        len(found.masks) for found in StoreSource.open(tmp_path / "g-1" / "train").propose(canvases[1:], NO_TEXT)
    ] == [1]
    assert source.digest != StoreSource.open(tmp_path / "g-1" / "val").digest


def test_picture_that_no_cache_knows_is_refused(stores, tmp_path):
    source = StoreSource.open(tmp_path / "g-1")
    for other in (picture(2), picture(0).flip(2), picture(0)[:, :4]):
        with pytest.raises(DataError, match="propos"):
            source.propose([canvas_of(other, tuple(other.shape[1:]), (32, 32))], NO_TEXT)


def test_folder_without_a_cache_is_named(tmp_path):
    with pytest.raises(DataError, match="nothing"):
        StoreSource.open(tmp_path / "nothing")


def test_generator_that_needs_labels_and_wrong_names_are_refused():
    with pytest.raises(DataError, match=r"ground-truth: .*labels.*ovseg propose ground-truth"):
        GeneratorSource.make("ground-truth", {}, "cpu", Silent())
    with pytest.raises(UsageError, match="Did you mean 'superpixels'"):
        GeneratorSource.make("superpixel", {}, "cpu", Silent())
    with pytest.raises(UsageError, match="Did you mean 'max_masks'"):
        GeneratorSource.make("superpixels", {"max_mask": 3}, "cpu", Silent())
