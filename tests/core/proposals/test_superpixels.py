"""Superpixels: regions of a picture drawn by hand, the merge tree, duplicates, scores, and odd pictures."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ovseg_cli.core.proposals import region_tree
from ovseg_cli.core.proposals.superpixels import Superpixels, SuperpixelsConfig

# 2 x 4 pixels, one partition: regions 0 0 1 2 in both rows; colors 0, 0, 1, 10 (one channel, the others 0).
LABELS = np.array([[0, 0, 1, 2], [0, 0, 1, 2]])
COLORS = np.zeros((2, 4, 3))
COLORS[..., 0] = [[0, 0, 1, 10], [0, 0, 1, 10]]


def by_hand() -> region_tree.Atoms:
    return region_tree.Atoms.of([LABELS], COLORS)


def test_atoms_of_one_partition_are_its_regions() -> None:
    atoms = by_hand()
    assert atoms.sizes.tolist() == [4, 2, 2]
    assert atoms.sums[:, 0].tolist() == [0, 2, 20] and atoms.squares.tolist() == [0, 2, 200]
    assert atoms.borders.tolist() == [[0, 2, 0], [2, 0, 2], [0, 2, 0]]


def test_atoms_of_two_partitions_are_the_pieces_that_both_cut() -> None:
    other = np.array([[5, 5, 5, 5], [7, 7, 7, 7]])
    atoms = region_tree.Atoms.of([LABELS, other], COLORS)
    assert sorted(atoms.sizes.tolist()) == [1, 1, 1, 1, 2, 2]
    for part, partition in zip(atoms.parts, (LABELS, other), strict=True):
        seen = part[atoms.map]
        assert len(np.unique(seen)) == len(np.unique(partition))
        assert all(len(np.unique(seen[partition == value])) == 1 for value in np.unique(partition))


def test_merge_tree_joins_the_most_similar_neighbors_first() -> None:
    atoms = by_hand()
    nodes = region_tree.merge_tree(atoms, atoms.parts[0])
    # costs: 0 with 1 is 1² · 4 · 2 / 6 = 1.3, 1 with 2 is 9² · 2 · 2 / 4 = 81; 0 and 2 do not touch
    assert nodes.tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [True, True, False],
        [True, True, True],
    ]


def test_merge_tree_equals_a_slow_search_over_all_pairs() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 9, (6, 8))
    atoms = region_tree.Atoms.of([labels], rng.random((6, 8, 3)))
    found = {tuple(node) for node in region_tree.merge_tree(atoms, atoms.parts[0])}
    assert found == {tuple(node) for node in slow_merges(atoms)}


def slow_merges(atoms: region_tree.Atoms) -> list[list[bool]]:
    """Keep a list of sets of atoms; join the pair of neighbors with the least cost, computed anew each time."""
    sets = [{i} for i in range(len(atoms.sizes))]
    seen = [set(s) for s in sets]
    while True:
        best = None
        for i, one in enumerate(sets):
            for other in sets[i + 1 :]:
                if not sum(atoms.borders[a, b] for a in one for b in other):
                    continue
                n, m = (sum(atoms.sizes[a] for a in s) for s in (one, other))
                gap = sum(atoms.sums[a] for a in one) / n - sum(atoms.sums[a] for a in other) / m
                cost = float((gap**2).sum() * n * m / (n + m))
                if best is None or cost < best[0]:
                    best = (cost, one, other)
        if best is None:
            return [[a in s for a in range(len(atoms.sizes))] for s in seen]
        joined = best[1] | best[2]
        sets = [s for s in sets if s is not best[1] and s is not best[2]] + [joined]
        seen.append(joined)


def test_contrast_is_gap_over_gap_and_spread() -> None:
    atoms = by_hand()
    members = np.array([[True, False, False], [False, True, True], [True, True, True]])
    # region 0: mean 0, outside 1, no spread: 1. Regions 1 and 2: mean 5.5, outside 0, spread 4.5: 5.5 / 10.
    assert region_tree.contrasts(atoms, members) == pytest.approx([1.0, 0.55, 0.0])


def test_near_duplicates_give_way_to_the_better_score() -> None:
    atoms = by_hand()
    members = np.array([[True, True, False], [True, True, True], [True, False, False]])  # 6, 8 and 4 pixels
    kept = region_tree.distinct(atoms, members, np.array([0.5, 0.9, 0.1]), overlap=0.7, most=9)
    assert kept.tolist() == [1, 2]  # 6 / 8 exceeds .7, 4 / 8 does not
    kept = region_tree.distinct(atoms, members, np.array([0.5, 0.9, 0.1]), overlap=0.75, most=9)
    assert kept.tolist() == [1, 0, 2]  # 4 / 6 does not exceed .75 either
    assert region_tree.distinct(atoms, members, np.array([0.5, 0.9, 0.1]), 1.0, most=2).tolist() == [1, 0]


def two_squares() -> torch.Tensor:
    """A red and a blue square on grey, (3, 64, 80)."""
    image = torch.full((3, 64, 80), 128, dtype=torch.uint8)
    image[:, 10:30, 10:30] = torch.tensor([220, 20, 20], dtype=torch.uint8)[:, None, None]
    image[:, 30:56, 44:70] = torch.tensor([20, 20, 220], dtype=torch.uint8)[:, None, None]
    return image


@pytest.mark.parametrize(
    "settings", [{}, {"merge": False}, {"slic_segments": ()}, {"scales": (), "sigmas": (), "min_sizes": ()}]
)
def test_squares_are_among_the_masks(settings: dict[str, object]) -> None:
    found = Superpixels(SuperpixelsConfig(**settings)).generate(two_squares())
    squares = torch.zeros(2, 64, 80, dtype=torch.bool)
    squares[0, 10:30, 10:30] = True
    squares[1, 30:56, 44:70] = True
    common = (found.masks[:, None] & squares).sum((-1, -2)).float()
    ious = common / (found.masks[:, None] | squares).sum((-1, -2))
    assert (ious.amax(0) > (0.9 if settings.get("merge", True) and "scales" not in settings else 0.5)).all()


def check(image: torch.Tensor, config: SuperpixelsConfig) -> int:
    found = Superpixels(config).generate(image)
    assert found.masks.shape[1:] == image.shape[1:] and found.masks.dtype == torch.bool
    assert len(found) <= config.max_masks and found.size == tuple(image.shape[1:])
    assert (found.scores.diff() <= 0).all() and (found.scores >= 0).all() and (found.scores <= 1).all()
    masks = found.masks.flatten(1).float()
    common = masks @ masks.T
    areas = masks.sum(1)
    ious = common / (areas[:, None] + areas - common) - torch.eye(len(masks))
    assert not len(masks) or ious.max() <= config.overlap + 1e-6
    return len(found)


def test_masks_are_distinct_ordered_and_few_enough() -> None:
    blocks = torch.randint(0, 256, (3, 7, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert (
        check(blocks.repeat_interleave(10, 1).repeat_interleave(10, 2), SuperpixelsConfig(max_masks=12, min_area=8))
        == 12
    )
    assert check(two_squares(), SuperpixelsConfig()) > 2


ODD = [(1, 1), (1, 50), (37, 3), (2, 2), (5, 400)]


@pytest.mark.parametrize("size", ODD, ids=str)
def test_odd_sizes(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
    check(image, SuperpixelsConfig(min_area=1, working_side=64))


def test_picture_of_one_color_has_no_more_than_a_few_masks() -> None:
    assert check(torch.zeros(3, 40, 40, dtype=torch.uint8), SuperpixelsConfig(slic_segments=())) == 1
    assert check(torch.zeros(3, 5, 5, dtype=torch.uint8), SuperpixelsConfig()) == 0  # all too small


def test_large_pictures_are_worked_on_small_and_scaled_up() -> None:
    large = two_squares().repeat_interleave(8, 1).repeat_interleave(8, 2)  # 512 x 640
    found = Superpixels(SuperpixelsConfig(working_side=80, slic_segments=())).generate(large)
    red = torch.zeros(512, 640, dtype=torch.bool)
    red[80:240, 80:240] = True
    ious = (found.masks & red).sum((1, 2)) / (found.masks | red).sum((1, 2))
    assert ious.max() > 0.9


def test_same_picture_gives_the_same_masks() -> None:
    one, other = (Superpixels().generate(two_squares()) for _ in range(2))
    assert torch.equal(one.masks, other.masks) and torch.equal(one.scores, other.scores)


def test_digest_follows_settings_only() -> None:
    default = Superpixels().digest
    assert default == Superpixels(SuperpixelsConfig(max_masks=64)).digest
    assert default != Superpixels(SuperpixelsConfig(max_masks=65)).digest


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"scales": (1.0,)}, "each scale needs one of each"),
        ({"scales": (), "sigmas": (), "min_sizes": (), "slic_segments": ()}, "nothing to cut"),
        ({"slic_segments": (0,)}, "positive"),
        ({"max_masks": 0}, "greater than or equal to 1"),
        ({"colour": 3}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        SuperpixelsConfig(**settings)
