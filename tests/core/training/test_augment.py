"""A training example against the same example made the long way: resized whole, then cropped, then mirrored."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.proposals.entry import Entry
from ovseg_cli.core.training.augment import (
    CROP_TRIES,
    Draw,
    Place,
    draw,
    example_size,
    nearest_indices,
    place,
    resized_size,
    warp_image,
    warp_label,
)
from ovseg_cli.core.training.color_jitter import Jitter, draw_jitter, jitter_colors
from ovseg_cli.core.training.mask_crops import MaskCrops, crop_masks
from ovseg_cli.core.types import Proposals

IGNORE = -1
sides = st.integers(1, 33)


def plain(short_side: int = 0, factor: float = 1.0, mirrored: bool = False) -> Draw:
    return Draw(short_side, factor, np.full((CROP_TRIES, 2), 0.999), mirrored, None)


@st.composite
def places(draw_: st.DrawFn) -> tuple[tuple[int, int], Place]:
    """A picture's size, and a box in it at another size."""
    size, full = (draw_(sides), draw_(sides)), (draw_(sides), draw_(sides))
    height, width = draw_(st.integers(1, full[0])), draw_(st.integers(1, full[1]))
    top, left = draw_(st.integers(0, full[0] - height)), draw_(st.integers(0, full[1] - width))
    return size, Place(full, top, left, height, width, draw_(st.booleans()))


def label_of(size: tuple[int, int], seed: int = 0, classes: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, size).astype(np.int16)


def masks_of(label: np.ndarray, where: Place, canvas: tuple[int, int] | None = None) -> torch.Tensor:
    """The label's classes as proposals, sent along with the picture."""
    masks = torch.from_numpy(np.stack([label == k for k in range(5)]))
    entry = Entry.of("a", "", Proposals(masks, torch.ones(5), label.shape))
    return MaskCrops.of([crop_masks(entry, where, canvas or where.size)])[0]


def test_short_side_and_long_side_by_hand() -> None:
    assert resized_size((480, 640), plain(320), 2560) == (320, 427)  # 426.67
    assert resized_size((640, 480), plain(320), 2560) == (427, 320)
    assert resized_size((100, 1000), plain(640), 2560) == (256, 2560)  # the long side would be 6400
    assert resized_size((100, 1000), plain(640), 0) == (640, 6400)
    assert resized_size((480, 640), plain(), 2560) == (480, 640)  # the picture's own


def test_scale_range_multiplies_side_and_limit() -> None:
    """mmsegmentation: into 2048 r x 512 r, so that a long picture's limit grows as well."""
    assert resized_size((100, 800), plain(512, 0.5), 2048) == (128, 1024)
    assert resized_size((500, 500), plain(512, 2.0), 2048) == (1024, 1024)


def test_draw_takes_each_side_and_the_whole_range() -> None:
    training = TrainingConfig(short_sides=(320, 384), scale_range=(0.5, 2.0), flip=0.5, color_jitter=True)
    drawn = [draw(np.random.default_rng(i), training) for i in range(400)]
    assert {d.short_side for d in drawn} == {320, 384}
    assert 0.5 <= min(d.factor for d in drawn) < 0.55 and 1.95 < max(d.factor for d in drawn) <= 2.0
    assert 0.4 < np.mean([d.mirrored for d in drawn]) < 0.6
    assert all(d.jitter for d in drawn)


def test_a_setting_does_not_change_what_the_others_draw() -> None:
    with_all = draw(np.random.default_rng(3), TrainingConfig(short_sides=(64,), color_jitter=True))
    without = draw(np.random.default_rng(3), TrainingConfig(flip=0.0))
    assert (with_all.corners == without.corners).all() and not without.mirrored and without.jitter is None


def test_flip_of_zero_and_one_are_never_and_always() -> None:
    for share in (0.0, 1.0):
        drawn = [draw(np.random.default_rng(i), TrainingConfig(flip=share)).mirrored for i in range(50)]
        assert all(m == bool(share) for m in drawn)


def test_crop_is_the_square_or_what_there_is() -> None:
    training = TrainingConfig(crop_size=64, short_sides=(48,))
    where = place(label_of((24, 50)), plain(48), training, IGNORE)
    assert where.full == (48, 100) and where.size == (48, 64) == example_size((24, 50), plain(48), training)
    assert where.top == 0 and where.left == 100 - 64  # the last corner that fits


def test_crop_corners_reach_both_ends() -> None:
    training = TrainingConfig(crop_size=4)
    tops = {place(label_of((6, 4)), draw(np.random.default_rng(i), training), training, IGNORE).top for i in range(60)}
    assert tops == {0, 1, 2}


def test_crop_that_one_class_fills_is_drawn_anew() -> None:
    label = np.zeros((4, 8), np.int16)
    label[:, 6:] = 1  # only crops from column 4 on show both classes half and half
    training = TrainingConfig(crop_size=4, crop_max_share=0.75)
    corners = np.zeros((CROP_TRIES, 2))
    corners[2:, 1] = 0.999
    assert place(label, Draw(0, 1.0, corners, False, None), training, IGNORE).left == 4
    assert place(label, Draw(0, 1.0, corners, False, None), TrainingConfig(crop_size=4), IGNORE).left == 0


def test_crop_is_taken_as_it_is_after_the_last_try() -> None:
    corners = np.zeros((CROP_TRIES, 2))
    corners[-1, 1] = 0.999
    training = TrainingConfig(crop_size=4, crop_max_share=0.75)
    assert place(np.zeros((4, 8), np.int16), Draw(0, 1.0, corners, False, None), training, IGNORE).left == 4


@settings(deadline=None)
@given(places())
def test_label_is_resized_whole_then_cropped_then_mirrored(case: tuple[tuple[int, int], Place]) -> None:
    size, where = case
    label = label_of(size, classes=1000)
    # detectron2's way: Pillow, nearest; its floating point may choose the other of two equally near pixels
    rows = ((np.arange(where.full[0]) + 0.5) * size[0] / where.full[0] + 1e-9).astype(int)
    columns = ((np.arange(where.full[1]) + 0.5) * size[1] / where.full[1] + 1e-9).astype(int)
    expected = label[rows][:, columns]
    expected = expected[where.top : where.top + where.height, where.left : where.left + where.width]
    assert (warp_label(label, where) == (expected[:, ::-1] if where.mirrored else expected)).all()


def test_label_is_resized_as_pillow_does() -> None:
    label = label_of((97, 131), classes=250).astype(np.uint8)
    full = (173, 211)
    pillow = np.asarray(Image.fromarray(label).resize(full[::-1], Image.Resampling.NEAREST))
    assert (warp_label(label, Place.whole(full)) == pillow).mean() > 0.999


@settings(deadline=None)
@given(places(), st.integers(0, 3), st.integers(0, 3))
def test_label_as_masks_follows_as_the_label_does(case: tuple[tuple[int, int], Place], below: int, beside: int) -> None:
    size, where = case
    label = label_of(size)
    canvas = where.height + below, where.width + beside
    masks = masks_of(label, where, canvas)
    followed = warp_label(label, where)
    for k in range(5):
        inside = masks[k, : where.height, : where.width].numpy()
        assert (inside == (followed == k) * 255).all()
    assert not masks[:, where.height :].any() and not masks[:, :, where.width :].any()


@settings(deadline=None)
@given(places(), st.data())
def test_crop_of_a_crop_is_one_crop(case: tuple[tuple[int, int], Place], data: st.DataObject) -> None:
    size, outer = case
    height, width = data.draw(st.integers(1, outer.height)), data.draw(st.integers(1, outer.width))
    top, left = data.draw(st.integers(0, outer.height - height)), data.draw(st.integers(0, outer.width - width))
    inner, cut = outer.crop(top, left, height, width), np.s_[top : top + height, left : left + width]
    label, image = label_of(size), np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert (warp_label(label, inner) == warp_label(label, outer)[cut]).all()
    difference = warp_image(image, inner).astype(int) - warp_image(image, outer)[cut]
    assert abs(difference).max() <= 1  # Pillow's weights for a box are rounded anew


@given(places())
def test_mirroring_twice_changes_nothing(case: tuple[tuple[int, int], Place]) -> None:
    size, where = case
    mirrored = Place(where.full, where.top, where.left, where.height, where.width, not where.mirrored)
    assert (warp_label(label_of(size), mirrored)[:, ::-1] == warp_label(label_of(size), where)).all()
    image = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert (warp_image(image, mirrored)[:, ::-1] == warp_image(image, where)).all()


@settings(deadline=None)
@given(places())
def test_image_is_that_of_the_whole_resized_picture(case: tuple[tuple[int, int], Place]) -> None:
    size, where = case
    image = np.random.default_rng(2).integers(0, 256, (*size, 3)).astype(np.uint8)
    whole = np.asarray(Image.fromarray(image).resize(where.full[::-1], Image.Resampling.BILINEAR)).astype(int)
    whole = whole[where.top : where.top + where.height, where.left : where.left + where.width]
    assert abs(warp_image(image, where) - (whole[:, ::-1] if where.mirrored else whole)).max() <= 1


def test_picture_at_its_own_size_is_not_touched() -> None:
    image = np.random.default_rng(2).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    assert (warp_image(image, Place.whole((7, 9))) == image).all()
    assert (warp_image(image, Place((7, 9), 2, 3, 4, 5)) == image[2:6, 3:8]).all()


@settings(deadline=None)
@given(places(), st.integers(1, 6), st.integers(0, 3))
def test_soft_masks_show_what_the_picture_shows(case: tuple[tuple[int, int], Place], coarse: int, padding: int) -> None:
    size, where = case
    levels = torch.randint(0, 256, (2, coarse, coarse + 1), generator=torch.Generator().manual_seed(0))
    levels = levels.to(torch.uint8)
    entry = Entry.of("a", "", Proposals(levels, torch.ones(2), size))
    masks = MaskCrops.of([crop_masks(entry, where, (where.height + padding, where.width + padding))])[0]
    full = torch.nn.functional.interpolate(levels[None].double(), where.full, mode="bilinear")[0]
    full = full[:, where.top : where.top + where.height, where.left : where.left + where.width]
    expected = full.flip(2) if where.mirrored else full
    assert (masks[:, : where.height, : where.width].double() - expected).abs().max() <= 0.502
    assert masks[:, where.height :].sum() == 0 and masks[:, :, where.width :].sum() == 0


def test_batch_of_masks_is_a_sequence() -> None:
    entry = Entry.of("a", "", Proposals(torch.ones(3, 2, 2, dtype=torch.bool), torch.ones(3), (2, 2)))
    parts = [crop_masks(entry, Place.whole((2, 2)), (2, 3)), crop_masks(entry, Place.whole((1, 2)), (2, 3))]
    masks = MaskCrops.of(parts)
    assert len(masks) == 2 and masks.counts == [3, 3] and [m.shape for m in masks] == [(3, 2, 3)] * 2
    assert len(masks[:1]) == 1 and masks[-1][0].tolist() == [[255, 255, 0], [0, 0, 0]]


def test_nearest_rows_and_columns_by_hand() -> None:
    rows, columns = nearest_indices((2, 4), Place((4, 2), 1, 0, 2, 2, mirrored=True))
    assert rows.tolist() == [0, 1] and columns.tolist() == [3, 1]


# Colours


def test_brightness_and_contrast_truncate_to_whole_levels() -> None:
    pixels = Image.fromarray(np.array([[[0, 100, 250]]], np.uint8))
    assert np.asarray(jitter_colors(pixels, Jitter(brightness=10.7))).tolist() == [[[10, 110, 255]]]
    assert np.asarray(jitter_colors(pixels, Jitter(brightness=-10.7))).tolist() == [[[0, 89, 239]]]
    assert np.asarray(jitter_colors(pixels, Jitter(contrast=1.33))).tolist() == [[[0, 133, 255]]]


def test_contrast_stands_before_or_after_saturation() -> None:
    grey_and_red = Image.fromarray(np.array([[[200, 100, 100]]], np.uint8))
    # first: 255 150 150, saturation halved: 255 202 202. last: 200 150 150, then 255 225 225
    first = jitter_colors(grey_and_red, Jitter(contrast=1.5, saturation=0.5, contrast_first=True))
    last = jitter_colors(grey_and_red, Jitter(contrast=1.5, saturation=0.5, contrast_first=False))
    assert abs(np.asarray(first).astype(int) - [[[255, 202, 202]]]).max() <= 2
    assert abs(np.asarray(last).astype(int) - [[[255, 225, 225]]]).max() <= 3


def test_no_change_is_no_change() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    assert (np.asarray(jitter_colors(Image.fromarray(pixels), Jitter())) == pixels).all()


@pytest.mark.parametrize("jitter", [Jitter(saturation=0.6), Jitter(saturation=1.4), Jitter(hue=36), Jitter(hue=-20)])
def test_saturation_and_hue_follow_the_formula(jitter: Jitter) -> None:
    """The unrounded formula; 8-bit HSV may be off by what a hue step of 1.4 and a saturation step of 1/255 make."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    ours = np.asarray(jitter_colors(Image.fromarray(pixels), jitter)).reshape(-1, 3)
    for rgb, found in zip(pixels.reshape(-1, 3) / 255.0, ours, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
        changed = colorsys.hsv_to_rgb((hue + jitter.hue / 360) % 1, min(1, saturation * jitter.saturation), value)
        assert abs(found - 255 * np.array(changed)).max() <= 9
    assert abs(ours.max(1).astype(int) - pixels.reshape(-1, 3).max(1)).max() <= 1  # the value stays


def test_what_is_drawn_has_detectron2s_ranges() -> None:
    drawn = [draw_jitter(np.random.default_rng(i)) for i in range(2000)]
    for values, neutral, low, high in (
        ([d.brightness for d in drawn], 0, -32, 32),
        ([d.contrast for d in drawn], 1, 0.5, 1.5),
        ([d.saturation for d in drawn], 1, 0.5, 1.5),
        ([d.hue for d in drawn], 0, -36, 36),
    ):
        room = (high - low) * 0.02
        assert low <= min(values) < low + room and high - room < max(values) <= high
        assert 0.44 < np.mean([v == neutral for v in values]) < 0.56
    assert {d.hue for d in drawn} == set(range(-36, 37, 2)) and 0.45 < np.mean([d.contrast_first for d in drawn]) < 0.55
