"""k-means by hand, against a plain loop, and at its edges."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.proposals.kmeans import cohesion, kmeans, nearest_centroid, random_start, spread_start


def test_two_groups_on_a_line_by_hand():
    points = torch.tensor([[0.0], [2.0], [10.0], [14.0]])
    # starts 0 and 2: first {0} {2, 10, 14} -> 0, 26/3; then {0, 2} {10, 14} -> 1, 12; nothing moves any more
    labels, centroids = kmeans(points, torch.tensor([[0.0], [2.0]]))
    assert labels.tolist() == [0, 0, 1, 1]
    assert centroids.flatten().tolist() == [1.0, 12.0]


def test_labels_are_those_before_the_last_update():
    points = torch.tensor([[0.0], [2.0], [10.0], [14.0]])
    labels, centroids = kmeans(points, torch.tensor([[0.0], [2.0]]), iterations=1)
    assert labels.tolist() == [0, 1, 1, 1]  # assigned to the starts
    assert torch.allclose(centroids.flatten(), torch.tensor([0.0, 26 / 3]))
    assert nearest_centroid(points, centroids).tolist() == [0, 0, 1, 1]  # where the next iteration would put them


def test_centroid_of_an_empty_cluster_is_zero():
    points = torch.tensor([[4.0], [6.0]])
    labels, centroids = kmeans(points, torch.tensor([[5.0], [5.0], [-9.0]]), iterations=1)
    assert labels.tolist() == [0, 0]  # equal starts: the first takes all
    assert centroids.flatten().tolist() == [5.0, 0.0, 0.0]


def test_a_large_tolerance_stops_after_the_first_update():
    points = torch.tensor([[0.0], [2.0], [10.0], [14.0]])
    start = torch.tensor([[0.0], [2.0]])  # the first update moves the second centroid by 20/3: squared 44.4
    assert kmeans(points, start, tolerance=44.5)[0].tolist() == [0, 1, 1, 1]
    assert kmeans(points, start, tolerance=44.4)[0].tolist() == [0, 0, 1, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2**31))
def test_equals_a_plain_loop(count: int, k: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    start = random_start(points, k, generator)
    labels, centroids = kmeans(points, start, iterations=50)
    expected_labels, expected = _plain(points, start, 50, 1e-4)
    assert labels.tolist() == expected_labels
    assert torch.allclose(centroids, expected, atol=1e-12)


def _plain(points: torch.Tensor, start: torch.Tensor, iterations: int, tolerance: float):
    centroids = start.clone()
    for _ in range(iterations):
        labels = [min(range(len(centroids)), key=lambda c, p=p: float((p - centroids[c]).norm())) for p in points]
        new = torch.zeros_like(centroids)
        for c in range(len(centroids)):
            members = [p for p, label in zip(points, labels, strict=True) if label == c]
            if members:
                new[c] = torch.stack(members).mean(0)
        shift = float(((new - centroids) ** 2).sum())
        centroids = new
        if shift <= tolerance:
            break
    return labels, centroids


def test_starts_are_rows_and_repeat_with_the_seed():
    points = torch.randn(9, 4)
    for draw in (random_start, spread_start):
        one, two = (draw(points, 5, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(one, two)
        assert all(any(torch.equal(row, p) for p in points) for row in one)


def test_random_start_draws_with_replacement():
    start = random_start(torch.arange(3.0)[:, None], 50, torch.Generator().manual_seed(0))
    assert start.unique().tolist() == [0.0, 1.0, 2.0]


def test_spread_start_takes_different_points_while_there_are_any():
    points = torch.tensor([[0.0], [0.0], [0.0], [0.0], [5.0], [9.0]])
    for seed in range(20):
        start = spread_start(points, 3, torch.Generator().manual_seed(seed))
        assert sorted(start.flatten().tolist()) == [0.0, 5.0, 9.0]
    assert len(spread_start(points[:4], 3, torch.Generator().manual_seed(0))) == 3  # all equal: rows repeat


def test_cohesion_by_hand():
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [5.0, 0.0]])
    # first cluster: mean (½, ½), both at 45°; second: both along the mean
    assert torch.allclose(cohesion(points, torch.tensor([0, 0, 1, 1])), torch.tensor([0.5**0.5, 1.0]))
