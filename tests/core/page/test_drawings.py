"""Label maps lose nothing on their way into the page, and real-size pictures stay small enough for it."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ovseg_cli.core.data.palette import colors
from ovseg_cli.core.page import scenes
from ovseg_cli.core.page.drawings import draw_labels, draw_photo

GENERATOR = np.random.default_rng(3)


def decoded(drawing):
    image = Image.open(io.BytesIO(drawing.data))
    assert image.get_format_mimetype() == drawing.mime
    return np.asarray(image.convert("RGBA"))


@pytest.mark.parametrize("classes", [1, 2, 5, 171, 256, 847])
def test_every_pixel_keeps_its_colour_and_what_has_no_class_is_transparent(classes):
    ids = GENERATOR.integers(0, classes + 1, (40, 56))  # K itself stands for what is ignored
    table = colors(classes)
    pixels = decoded(draw_labels(ids, table))
    known = ids < classes
    assert (pixels[known, :3] == table[ids[known]]).all()
    assert (pixels[..., 3] == np.where(known, 255, 0)).all()


def test_the_smaller_format_is_taken():
    flat, noise = np.zeros((64, 64), np.uint8), GENERATOR.integers(0, 200, (64, 64))
    assert len(draw_labels(flat, colors(3)).data) < 100
    assert {draw_labels(flat, colors(3)).mime, draw_labels(noise, colors(200)).mime} <= {"image/webp", "image/png"}


def test_a_picture_is_close_to_itself():
    image = smooth(64, 80, 3)
    pixels = decoded(draw_photo(image))[..., :3]
    assert pixels.shape == image.shape and np.abs(pixels.astype(int) - image).mean() < 6


def smooth(height, width, seed, sharpness=6):
    """A picture with edges and texture at several sizes, as a photograph has them."""
    generator = np.random.default_rng(seed)
    image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    coarse, fine = (np.asarray(image.filter(ImageFilter.GaussianBlur(size)), float) for size in (sharpness, 1.5))
    mixed = 128 + 8 * (coarse - coarse.mean()) + 0.8 * (fine - fine.mean())
    return mixed.clip(0, 255).astype(np.uint8)


def regions(height, width, seed, classes=12):
    """A label map of large regions with ragged borders, as a dense method makes them."""
    levels = smooth(height, width, seed, 10)[..., 0].astype(int) * classes // 256
    return np.random.default_rng(seed).permutation(21)[levels].astype(np.uint8)


def test_three_models_on_twenty_four_real_size_pictures_fit_into_the_budget():
    look = scenes.Look(tuple(map(str, range(21))), colors(21), (None,) * 21)
    one = [smooth(375, 500, seed) for seed in range(2)]
    pair = [
        scenes.Scene(
            f"p{i}", one[i % 2], regions(375, 500, 0), tuple(regions(375, 500, 1 + m) for m in range(3)), (1.0,) * 3
        )
        for i in range(2)
    ]
    budget = scenes.budget_beside(800_000)  # tables of 171 classes, with differences to a baseline
    pictures, side = scenes.draw_fitting(pair, look, budget * len(pair) // 24)
    size = sum(scenes.size_of(picture) for picture in pictures) * 24 / len(pair)
    assert size * 4 / 3 + 800_000 <= scenes.PAGE < 5_000_000
    assert side >= 416 and max(pictures[0].width, pictures[0].height) == min(side, 500)


def test_pictures_stay_on_a_page_that_is_full_already():
    assert scenes.budget_beside(0) == scenes.PAGE * 3 // 4
    assert scenes.budget_beside(10**7) == scenes.LEAST


def test_pictures_shrink_until_they_fit():
    look = scenes.Look(("a", "b"), colors(2), (None, None))
    image = GENERATOR.integers(0, 256, (700, 640, 3), dtype=np.uint8)
    scene = scenes.Scene("p", image, np.zeros((700, 640), np.uint8), (np.ones((700, 640), np.uint8),), (float("nan"),))
    (large,), side = scenes.draw_fitting([scene], look, 10**7)
    (small,), less = scenes.draw_fitting([scene], look, scenes.size_of(large) // 3)
    assert (side, large.height) == (640, 640) and less < 640 and scenes.size_of(small) <= scenes.size_of(large) // 3
    assert (small.width, small.height) == (round(640 * less / 700), less)
    assert (
        large.scores == (None,) and large.disagreement == 100 and [entry.name for entry in large.legend] == ["a", "b"]
    )


def test_models_differ_on_labelled_pixels_pair_by_pair():
    truth = np.array([[0, 0, 1, 255]])
    maps = [np.array([[0, 0, 1, 0]]), np.array([[0, 1, 1, 1]]), np.array([[1, 1, 1, 0]])]

    def differ(*chosen):
        return scenes.disagreement(scenes.Scene("p", truth, truth, chosen, ()), 2)

    assert differ(maps[0]) == 0 and differ(maps[2]) == pytest.approx(100 * 2 / 3), "one model against ground truth"
    assert differ(maps[0], maps[1]) == pytest.approx(100 / 3), "the pixel without a label does not count"
    assert differ(*maps) == pytest.approx(100 * (1 + 2 + 1) / 9)
