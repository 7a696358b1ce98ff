"""The strong view: by hand, against torchvision's own functions, and in how often each of its changes happens."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as reference

from ovseg_cli.core.methods.trained import SecondView
from ovseg_cli.core.training.views import Strong, box_of, draw_strong, strong_view

BOTH = SecondView()
DRAWS = 4000


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def drawn(count: int = DRAWS, view: SecondView = BOTH) -> list[Strong]:
    return [draw_strong(np.random.default_rng([0, i]), view) for i in range(count)]


# By hand


def test_nothing_drawn_changes_nothing() -> None:
    weak = picture(5, 7)
    assert strong_view(weak, Strong()).tolist() == weak.tolist() and box_of(Strong(), (5, 7)) == (0, 0, 0, 0)


def test_grey_of_four_by_four_by_hand() -> None:
    """0.299 R + 0.587 G + 0.114 B: a column each of red, green, blue and white becomes 76, 150, 29 and 255."""
    row = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    weak = np.array([row] * 4, np.uint8)
    assert strong_view(weak, Strong(grey=True)).tolist() == [[[v] * 3 for v in (76, 150, 29, 255)]] * 4


def test_the_box_by_hand() -> None:
    """Half of four rows and a quarter of eight columns; of the room that is left, down to the end and not across."""
    strong = Strong(box=(0.5, 0.25, 0.99, 0.0))
    assert box_of(strong, (4, 8)) == (2, 0, 2, 2)
    found = strong_view(np.full((4, 8, 3), 9, np.uint8), strong)[..., 0]
    assert found.tolist() == [[9] * 8, [9] * 8, [0, 0] + [9] * 6, [0, 0] + [9] * 6]


def test_brightness_then_grey_by_hand() -> None:
    """Half as bright: 100 and 201 become 50 and 100; what comes later sees them so."""
    weak = np.array([[[100, 201, 0]]], np.uint8)
    assert strong_view(weak, Strong((("brightness", 0.5),))).tolist() == [[[50, 100, 0]]]
    grey = round(0.299 * 50 + 0.587 * 100)
    assert strong_view(weak, Strong((("brightness", 0.5),), grey=True)).tolist() == [[[grey] * 3]]


def test_the_example_itself_stays_as_it_is() -> None:
    weak = picture(6, 6)[:, ::-1]  # mirrored pixels are a view that does not lie in one piece
    before = weak.copy()
    strong_view(weak, replace(drawn(1)[0], box=(0.5, 0.5, 0.0, 0.0)))
    assert weak.tolist() == before.tolist()


# Against torchvision and Pillow


def test_colours_are_torchvisions_in_the_order_drawn() -> None:
    functions = {
        "brightness": reference.adjust_brightness,
        "contrast": reference.adjust_contrast,
        "saturation": reference.adjust_saturation,
        "hue": reference.adjust_hue,
    }
    for seed, strong in enumerate(drawn(60, SecondView(cut_out=False))):
        weak = picture(9, 11, seed)
        image = Image.fromarray(weak)
        for name, factor in strong.changes:
            image = functions[name](image, factor)
        if strong.grey:
            image = reference.to_grayscale(image, 3)
        if strong.sigma:
            image = image.filter(ImageFilter.GaussianBlur(strong.sigma))
        assert np.array_equal(strong_view(weak, strong), np.asarray(image)), strong


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_the_blur_is_nearly_a_gaussian(sigma: float) -> None:
    smooth = np.asarray(Image.fromarray(picture(12, 12)).resize((48, 48), Image.Resampling.BICUBIC))
    exact = np.asarray(reference.gaussian_blur(Image.fromarray(smooth), [25, 25], [sigma, sigma]), float)
    found = strong_view(smooth, Strong(sigma=sigma)).astype(float)
    inner = slice(8, -8)  # edges: repeated here, mirrored there
    assert np.abs(found - exact)[inner, inner].mean() < 1 and np.abs(smooth - exact)[inner, inner].mean() > 1


def test_limits_are_those_of_torchvisions_jitter() -> None:
    jitter = ColorJitter(0.5, 0.5, 0.5, 0.25)
    factors = [dict(strong.changes) for strong in drawn() if strong.changes]
    for name in ("brightness", "contrast", "saturation", "hue"):
        low, high = getattr(jitter, name)
        found = np.array([each[name] for each in factors])
        assert low <= found.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < found.max() <= high
        assert abs(found.mean() - (low + high) / 2) < 0.02 * (high - low), name


# How often


def test_how_often_each_change_happens() -> None:
    views = drawn()
    happened = np.array([(bool(v.changes), v.grey, bool(v.sigma)) for v in views])
    assert np.allclose(happened.mean(0), [0.8, 0.2, 0.5], atol=0.025)
    sigmas = np.array([v.sigma for v in views if v.sigma])
    assert sigmas.min() >= 0.1 and sigmas.max() <= 2.0 and abs(sigmas.mean() - 1.05) < 0.05
    both = np.mean([bool(v.changes) and v.grey for v in views])
    assert abs(both - 0.16) < 0.02, "each coin is tossed on its own"


def test_every_order_of_the_four_is_as_likely() -> None:
    orders = [tuple(name for name, _ in v.changes) for v in drawn() if v.changes]
    counts = np.array([orders.count(order) for order in set(orders)])
    assert len(counts) == 24 and counts.min() > 0.6 * counts.mean() and counts.max() < 1.4 * counts.mean()


def test_boxes_are_spread_over_the_picture_and_its_sizes() -> None:
    boxes = np.array([box_of(v, (1000, 500)) for v in drawn()])
    top, left, height, width = boxes.T
    for sides, whole in ((height, 1000), (width, 500)):
        assert 0.1 * whole <= sides.min() < 0.11 * whole and 0.49 * whole < sides.max() <= 0.5 * whole
        assert abs(sides.mean() - 0.3 * whole) < 0.01 * whole
    assert top.min() < 10 and (top + height).max() > 990 and abs((top + height / 2).mean() - 500) < 10
    assert left.min() < 5 and (left + width).max() > 495 and abs(np.corrcoef(height, width)[0, 1]) < 0.06


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 1000))
def test_the_box_is_never_empty_and_lies_inside(height: int, width: int, seed: int) -> None:
    strong = draw_strong(np.random.default_rng(seed), BOTH)
    top, left, rows, columns = box_of(strong, (height, width))
    assert 1 <= rows <= max(1, height // 2) and 1 <= columns <= max(1, width // 2)
    assert 0 <= top <= height - rows and 0 <= left <= width - columns
    found = strong_view(np.full((height, width, 3), 255, np.uint8), replace(strong, changes=(), grey=False, sigma=0.0))
    assert (found == 0).sum() == 3 * rows * columns and not found[top : top + rows, left : left + columns].any()


# What a setting leaves out


@pytest.mark.parametrize("view", [SecondView(False, True), SecondView(True, False), SecondView(False, False)])
def test_a_part_left_out_changes_no_other(view: SecondView) -> None:
    for seed in range(40):
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        whole, part = draw_strong(one, BOTH), draw_strong(other, view)
        assert one.random() == other.random(), "the same numbers are consumed"
        assert part.box == (whole.box if view.cut_out else None)
        colors = (part.changes, part.grey, part.sigma)
        assert colors == ((whole.changes, whole.grey, whole.sigma) if view.colors else ((), False, 0.0))
