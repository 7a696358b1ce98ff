"""Focal and dice loss of one mask a class: by hand, against autograd on full-size targets, and what is kept."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.nn import mask_class_losses
from ovseg_cli.core.nn.mask_class_losses import binary_focal_sum, mask_class_sums, present_pairs
from tests.core.methods import straight_one_stage as straight


def reference(small, labels):
    """Sums and their gradients in float64."""
    logits = small.detach().double().requires_grad_()
    return with_slopes(straight.mask_losses(straight.enlarged(logits, labels.shape[1:]), labels), logits)


def own(small, labels):
    logits = small.detach().clone().requires_grad_()
    return with_slopes(mask_class_sums(logits, labels), logits)


def with_slopes(sums, logits):
    slopes = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in sums]
    return [value.detach() for value in sums], slopes


def case(batch, classes, grid, size, seed=0, lowest=-1, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    small = scale * torch.randn(batch, classes, *grid, generator=generator)
    return small, torch.randint(lowest, classes, (batch, *size), generator=generator)


def test_by_hand():
    # One class, two pixels, logits 0: p = 1/2, BCE = ln 2.
    # focal: 0.25 * 1/4 * ln 2 for the positive on the left, three times as much for the negative on the right
    # dice: 1 - (2 * 1/2 + 1) / (1 + 1 + 1)
    focal, dice = mask_class_sums(torch.zeros(1, 1, 1, 2), torch.tensor([[[0, -1]]]))
    assert focal.item() == pytest.approx((0.0625 + 0.1875) * math.log(2) / 2)
    assert dice.item() == pytest.approx(1 / 3)


def test_pairs_by_hand():
    labels = torch.tensor([[[0, 0, 3, -1]], [[-2, -1, -1, 3]], [[-1, -1, -1, -1]]])
    assert present_pairs(labels) == 3


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    classes=st.integers(1, 6),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(5, 19), st.integers(5, 19)),
    seed=st.integers(0, 10_000),
)
def test_sums_and_gradients_are_those_of_full_size_targets(batch, classes, grid, size, seed):
    small, labels = case(batch, classes, grid, size, seed)
    (values, slopes), (expected, expected_slopes) = own(small, labels), reference(small, labels)
    for found, wanted in zip([*values, *slopes], [*expected, *expected_slopes], strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("at_once", [1, 17 * 13 * 2, 1 << 20])
def test_classes_in_chunks_of_any_size_give_the_same(monkeypatch, at_once):
    small, labels = case(2, 7, (4, 5), (17, 13))
    expected = own(small, labels)
    monkeypatch.setattr(mask_class_losses, "VALUES_AT_ONCE", (at_once, at_once))
    for found, wanted in zip(own(small, labels), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_both_losses_may_be_weighted_by_themselves():
    small, labels = case(1, 3, (3, 3), (9, 9))
    (_, slopes), logits = own(small, labels), small.clone().requires_grad_()
    focal, dice = mask_class_sums(logits, labels)
    (20 * focal + 3 * dice).backward()
    torch.testing.assert_close(logits.grad, 20 * slopes[0] + 3 * slopes[1])


def test_a_batch_is_the_sum_of_its_pictures():
    small, labels = case(3, 4, (3, 4), (11, 9))
    parts = [own(small[b : b + 1], labels[b : b + 1]) for b in range(3)]
    (values, slopes) = own(small, labels)
    for i in range(2):
        torch.testing.assert_close(values[i], sum(part[0][i] for part in parts))
        torch.testing.assert_close(slopes[i], torch.cat([part[1][i] for part in parts]))


def test_without_any_class_all_pixels_are_negatives_and_dice_is_zero():
    small = torch.zeros(1, 2, 2, 2)
    (focal, dice), (slope, dice_slope) = own(small, torch.full((1, 4, 4), -1))
    assert focal.item() == pytest.approx(2 * 0.75 * 0.25 * math.log(2)) and dice.item() == 0
    assert bool((slope > 0).all()) and not bool(dice_slope.any())


def test_all_negative_labels_mean_the_same():
    small, labels = case(1, 3, (3, 3), (8, 8))
    torch.testing.assert_close(own(small, labels)[0], own(small, labels.masked_fill(labels < 0, -2))[0])


def test_large_logits_stay_finite():
    small, labels = case(1, 3, (3, 3), (8, 8), scale=200.0)
    values, slopes = own(small, labels)
    expected, _ = reference(small, labels)
    assert all(bool(x.isfinite().all()) for x in [*values, *slopes])
    torch.testing.assert_close(values[0].double(), expected[0], atol=1e-4, rtol=1e-4)


def test_a_binary_map_is_one_class_without_dice():
    small, labels = case(3, 1, (4, 3), (12, 10))
    target = labels[:, :] >= 0
    logits = small[:, 0].clone().requires_grad_()
    loss = binary_focal_sum(logits, target)
    big = straight.enlarged(small.double(), (12, 10))[:, 0].flatten(1)
    torch.testing.assert_close(
        loss.double(), straight.focal_loss(big, target.double().flatten(1)), atol=1e-6, rtol=1e-5
    )
    loss.backward()
    assert logits.grad.shape == (3, 4, 3) and bool(logits.grad.any())


def test_nothing_at_full_size_is_kept_for_the_backward_pass():
    small, labels = case(2, 5, (4, 4), (64, 64))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        mask_class_sums(small.requires_grad_(), labels)
    assert kept and max(kept) <= small.numel()


def test_without_gradients_nothing_is_kept():
    small, labels = case(1, 3, (3, 3), (8, 8))
    assert not mask_class_sums(small, labels)[0].requires_grad


def test_sums_are_made_in_float32_whatever_surrounds_them():
    small, labels = case(2, 4, (3, 3), (9, 9))
    expected = mask_class_sums(small, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for found, wanted in zip(mask_class_sums(small, labels), expected, strict=True):
            torch.testing.assert_close(found, wanted)


def test_torch_compile_leaves_the_sums_as_they_are():
    def loss(small, labels):
        return sum(mask_class_sums(2 * small, labels)) + binary_focal_sum(2 * small[:, 0], labels > 0)

    compiled = torch.compile(loss, backend="eager", dynamic=True)
    for side in (8, 12):
        small, labels = case(2, 4, (3, 3), (side, side))
        small.requires_grad_()
        torch.testing.assert_close(compiled(small, labels), loss(small, labels))
        compiled(small, labels).backward()
        assert small.grad.any()
