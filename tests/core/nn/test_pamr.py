"""Pixel-adaptive mask refinement: worked by hand, against plain loops, and at its edges."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.nn import pamr


def test_by_hand_a_neighbour_of_another_colour_counts_for_nothing():
    """3 x 3 pixels, one corner white. For the centre: nine values, one of them 1, so that s = 1/3.

    The corner's likeness is -1 / (0.1 / 3) = -30, that of the seven others 0: they share the weight.
    """
    picture = torch.zeros(1, 3, 3)
    picture[0, 0, 0] = 1
    weights = pamr.neighbour_weights(picture, [1])
    assert weights.shape == (8, 3, 3)
    torch.testing.assert_close(weights[0, 1, 1], torch.tensor(-30.0).exp() / 7, rtol=1e-4, atol=0)
    torch.testing.assert_close(weights[1:, 1, 1], torch.full((7,), 1 / 7))
    scores = torch.arange(9.0).view(1, 3, 3)
    refined = pamr.refine(picture, scores, 1, [1])
    assert float(refined[0, 1, 1]) == pytest.approx((1 + 2 + 3 + 5 + 6 + 7 + 8) / 7, abs=1e-5)


def test_by_hand_the_border_goes_on_outside():
    """Two equal pixels side by side: above and below each lies itself, left and right itself and the other."""
    refined = pamr.refine(torch.ones(3, 1, 2), torch.tensor([[[0.0, 1.0]]]), 1, [1])
    torch.testing.assert_close(refined, torch.tensor([[[3 / 8, 5 / 8]]]))


def loops(picture, scores, steps, dilations):
    """The formula, pixel by pixel."""
    height, width = picture.shape[1:]
    offsets = [(d * y, d * x) for d in dilations for y, x in itertools.product((-1, 0, 1), repeat=2)]
    for _ in range(steps):
        after = torch.zeros_like(scores)
        for y, x in itertools.product(range(height), range(width)):
            places = [(min(max(y + a, 0), height - 1), min(max(x + b, 0), width - 1)) for a, b in offsets]
            others = [p for p, offset in zip(places, offsets, strict=True) if offset != (0, 0)]
            spread = torch.stack([picture[:, r, c] for r, c in places]).std(0, unbiased=True)
            like = [(-(picture[:, y, x] - picture[:, r, c]).abs() / (1e-8 + 0.1 * spread)).mean() for r, c in others]
            shares = torch.stack(like).softmax(0)
            after[:, y, x] = sum(share * scores[:, r, c] for share, (r, c) in zip(shares, others, strict=True))
        scores = after
    return scores


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (1, 1)])
@pytest.mark.parametrize("dilations", [(1,), (2, 4), (8, 16)])
def test_equals_plain_loops(size, dilations):
    generator = torch.Generator().manual_seed(0)
    picture, scores = torch.rand(3, *size, generator=generator), torch.rand(4, *size, generator=generator)
    torch.testing.assert_close(
        pamr.refine(picture, scores, 2, dilations), loops(picture, scores, 2, dilations), atol=1e-5, rtol=1e-4
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), steps=st.integers(0, 4), height=st.integers(1, 9), width=st.integers(1, 9))
def test_scores_stay_between_the_smallest_and_the_largest_of_their_row(seed, steps, height, width):
    generator = torch.Generator().manual_seed(seed)
    picture, scores = torch.rand(3, height, width, generator=generator), torch.randn(2, height, width)
    refined = pamr.refine(picture, scores, steps, (1, 3))
    assert refined.shape == scores.shape and bool(refined.isfinite().all())
    assert bool((refined.amax((1, 2)) <= scores.amax((1, 2)) + 1e-5).all())
    assert bool((refined.amin((1, 2)) >= scores.amin((1, 2)) - 1e-5).all())


def test_rows_do_not_meet(monkeypatch):
    picture, scores = torch.rand(3, 6, 5), torch.rand(7, 6, 5)
    whole = pamr.refine(picture, scores, 3, (1, 2))
    monkeypatch.setattr(pamr, "_SCORES_AT_ONCE", 60)  # two rows at once
    assert pamr.refine(picture, scores, 3, (1, 2)).equal(whole)


def test_nothing_to_do():
    scores = torch.rand(2, 3, 4)
    assert pamr.refine(torch.rand(3, 3, 4), scores, 0, (1,)) is scores
    assert pamr.refine(torch.rand(3, 3, 4), scores[:0], 2, (1,)).shape == (0, 3, 4)
