import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovseg_cli.core.clip.inputs import ResizeRule, bilinear_weights, cut, normalise, resize_image, window_boxes
from ovseg_cli.core.errors import UsageError


@pytest.mark.parametrize(
    ("rule", "picture", "expected"),
    [
        (ResizeRule("square", 320, 2560, 16), (480, 640), (320, 320)),
        (ResizeRule("square", 100, 2560, 16), (480, 640), (96, 96)),  # 100 / 16 = 6.25 patches
        (ResizeRule("short-side", 336, 2560, 16), (480, 640), (336, 448)),
        (ResizeRule("short-side", 336, 2560, 16), (375, 500), (336, 448)),
        (ResizeRule("short-side", 336, 2560, 1), (427, 640), (336, 504)),  # 503.6 rounds up; windows are cut from it
        (ResizeRule("short-side", 336, 2560, 16), (427, 640), (336, 496)),  # 503.6 / 16 = 31.475 patches
        (ResizeRule("short-side", 640, 2560, 1), (100, 1000), (256, 2560)),  # the long side rules
        (ResizeRule("none", 336, 2560, 8), (96, 96), (96, 96)),
        (ResizeRule("none", 336, 2560, 8), (50, 75), (48, 72)),  # 6.25 and 9.375 patches
        (ResizeRule("none", 336, 2000, 1), (20000, 20000), (2000, 2000)),
        (ResizeRule("short-side", 336, 2560, 16), (1, 500), (16, 2560)),
        (ResizeRule("none", 336, 2560, 16), (1, 1), (16, 16)),
    ],
)
def test_sizes_by_hand(rule, picture, expected):
    assert rule.size(*picture) == expected


@given(
    st.sampled_from(["square", "short-side", "none"]),
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from([8, 14, 16, 32]),
)
def test_sizes_are_multiples_of_the_patch_and_bounded(kind, height, width, patch):
    size = ResizeRule(kind, 320, 1000, patch).size(height, width)
    assert all(side >= patch and side % patch == 0 for side in size)
    assert max(size) <= 1000 + patch


def test_normalise_by_hand():
    image = torch.tensor([255.0, 127.5, 0.0])[:, None, None]
    mean, std = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.5, 0.25, 1.0])
    assert normalise(image, mean, std).flatten().tolist() == [1.0, 0.0, -0.5]


def test_resize_keeps_the_own_size_exactly_and_constant_pictures_constant():
    image = torch.randint(0, 256, (3, 5, 9), dtype=torch.uint8)
    assert resize_image(image, (5, 9), True).equal(image.float())
    flat = torch.full((3, 7, 11), 77, dtype=torch.uint8)
    for antialias in (True, False):
        torch.testing.assert_close(resize_image(flat, (4, 30), antialias), torch.full((3, 4, 30), 77.0))


def test_windows_by_hand():
    # 5 x 8, window 4, step 2: rows start at 0 and, shifted inward, 1; columns at 0, 2, 4
    boxes = window_boxes((5, 8), 4, 2)
    assert boxes == [(t, left, 4, 4) for t in (0, 1) for left in (0, 2, 4)]
    assert window_boxes((3, 8), 4, 0) == [(0, 0, 3, 4), (0, 4, 3, 4)]
    assert window_boxes((3, 3), 4, 2) == [(0, 0, 3, 3)]
    with pytest.raises(UsageError, match="larger than the window"):
        window_boxes((9, 9), 4, 5)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 30), st.integers(1, 30))
def test_windows_cover_every_pixel_and_stay_inside(height, width, window, step):
    boxes = window_boxes((height, width), window, min(step, window))
    covered = torch.zeros(height, width)
    for top, left, h, w in boxes:
        assert (h, w) == (min(window, height), min(window, width))
        assert top >= 0 and left >= 0 and top + h <= height and left + w <= width
        covered[top : top + h, left : left + w] += 1
    assert bool((covered > 0).all()) and len(set(boxes)) == len(boxes)


def test_windows_equal_the_rule_of_mmsegmentation():
    """The count and shift of its `slide_inference`, recomputed from the description in words."""
    for height, width, window, stride in [(336, 448, 224, 112), (336, 500, 224, 112), (448, 448, 448, 224)]:
        rows = max(height - window + stride - 1, 0) // stride + 1
        columns = max(width - window + stride - 1, 0) // stride + 1
        boxes = window_boxes((height, width), window, stride)
        assert len(boxes) == rows * columns
        assert boxes[-1][:2] == (height - window, width - window)


def test_cut_takes_the_box():
    canvas = torch.arange(3 * 4 * 5).reshape(3, 4, 5)
    assert cut(canvas, (1, 2, 2, 3)).equal(canvas[:, 1:3, 2:5])


@pytest.mark.parametrize(("source", "target"), [(3, 7), (7, 3), (1, 5), (4, 4)])
def test_bilinear_weights_are_the_interpolation_itself(source, target):
    values = torch.randn(2, 5, source)
    expected = torch.nn.functional.interpolate(values, target, mode="linear", align_corners=False)
    weights = bilinear_weights(source, target, values)
    torch.testing.assert_close(values @ weights.T, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights.sum(1), torch.ones(target))
