"""Names of a scatter plot: beside their points, over nothing."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.report.label_places import RINGS, place_labels

ROOM = (0.0, 0.0, 200.0, 100.0)


def test_a_lonely_name_stands_right_of_its_point():
    points = np.array([[50.0, 50.0]])
    assert place_labels(points, [(30, 10)], ROOM, points, np.array([2.0])) == [(56.0, 45.0, 86.0, 55.0)]


def test_a_name_in_a_corner_stays_inside_and_is_beside_its_point():
    points = np.array([[198.0, 98.0]])
    (box,) = place_labels(points, [(30, 10)], ROOM, points, np.array([2.0]))
    assert box is not None and 160 < box[0] and box[2] <= 196 and 80 < box[1] and box[3] <= 100, "left of it"


def test_names_of_two_equal_points_stand_apart():
    points = np.array([[50.0, 50.0]] * 2)
    first, second = place_labels(points, [(30, 10)] * 2, ROOM, points, np.array([2.0, 2.0]))
    assert first != second and first is not None and second is not None


def test_a_name_without_room_is_left_out():
    points = np.array([[50.0, 50.0]])
    assert place_labels(points, [(300, 10)], ROOM, points, np.array([2.0])) == [None]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.integers(0, 25), st.integers(0, 999))
def test_no_name_covers_a_point_or_another_name(count, others, seed):
    generator = np.random.default_rng(seed)
    points = generator.uniform((5, 5), (195, 95), (count, 2))
    avoid = np.concatenate([points, generator.uniform((0, 0), (200, 100), (others, 2))])
    sizes = [(float(width), 8.0) for width in generator.integers(5, 60, count)]
    radii = generator.uniform(0, 3, len(avoid))
    boxes = place_labels(points, sizes, ROOM, avoid, radii)
    placed = [box for box in boxes if box is not None]
    for i, (left, bottom, right, top) in enumerate(placed):
        assert left >= 0 and bottom >= 0 and right <= 200 and top <= 100
        for other in placed[:i]:
            assert left >= other[2] or other[0] >= right or bottom >= other[3] or other[1] >= top
        for x, y in avoid:
            assert not (left < x < right and bottom < y < top)
    for box, point, size in zip(boxes, points, sizes, strict=True):
        if box is not None:
            near = np.clip(point, box[:2], box[2:])
            assert np.linalg.norm(near - point) <= max(RINGS) + 1e-6
            assert np.allclose([box[2] - box[0], box[3] - box[1]], size)
