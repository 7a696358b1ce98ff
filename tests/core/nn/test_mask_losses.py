"""Matching and losses: by hand, against brute force and torchvision, and added up over parts of a batch."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from ovseg_cli.core.nn.mask_losses import (
    LossWeights,
    class_logits,
    class_loss,
    dice_loss,
    focal_loss,
    mask_losses,
    normalisers,
)
from ovseg_cli.core.nn.matcher import MatchCost, Targets, dice_cost, focal_cost, match, match_image

NOTHING = torch.zeros(0, dtype=torch.int64)


def drawn(seed, batch=2, queries=5, classes=4, size=(8, 12), grid=(4, 6)):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(batch, queries, 6, generator=generator)
    masks = 3 * torch.randn(batch, queries, *grid, generator=generator)
    labels = torch.randint(-1, classes, (batch, *size), generator=generator)
    text = F.normalize(torch.randn(classes + 1, 6, generator=generator), dim=1)
    return embeddings, masks, labels, text


def targets_of(labels):
    return [Targets.of_labels(one) for one in labels]


def test_targets_are_one_mask_a_present_class_and_unknown_pixels_are_in_none():
    targets = Targets.of_labels(torch.tensor([[2, -1], [0, 2]]))
    assert targets.classes.tolist() == [0, 2]
    assert targets.masks.tolist() == [[[0, 0], [1, 0]], [[1, 0], [0, 1]]]
    empty = Targets.of_labels(torch.full((2, 2), -1))
    assert empty.classes.shape == (0,) and empty.masks.shape == (0, 2, 2)


def test_cosines_are_scaled():
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert class_logits(torch.tensor([[3.0, 4.0]]), text).tolist() == [[60.000003814697266, 80.0]]
    assert class_logits(torch.tensor([[3.0, 4.0]]), text, scale=10)[0, 1].item() == pytest.approx(8)


# --- matching


def test_costs_by_hand():
    logits, masks = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    assert focal_cost(logits, masks).item() == pytest.approx((0.25 * 0.25 + 0.75 * 0.25) * math.log(2) / 2)
    assert dice_cost(logits, masks).item() == pytest.approx(1 - (2 * 0.5 + 1) / (1 + 1 + 1))


def test_pair_costs_equal_the_losses_of_the_pair():
    generator = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(4, 30, generator=generator), (torch.rand(3, 30, generator=generator) > 0.5).float()
    for i, j in itertools.product(range(4), range(3)):
        one, other = logits[i : i + 1], masks[j : j + 1]
        assert focal_cost(logits, masks)[i, j].item() == pytest.approx(focal_loss(one, other).item(), rel=1e-5)
        assert dice_cost(logits, masks)[i, j].item() == pytest.approx(dice_loss(one, other).item(), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4))
def test_no_other_pairing_is_cheaper(seed, queries, classes):
    embeddings, masks, labels, text = drawn(seed, 1, queries, classes)
    logits, targets = class_logits(embeddings, text)[0], Targets.of_labels(labels[0])
    query, target = match_image(logits, masks[0], targets, MatchCost())
    count = len(targets.classes)
    assert len(query) == min(queries, count) and query.tolist() == sorted(set(query.tolist()))
    small = F.interpolate(targets.masks[:, None], masks.shape[-2:], mode="nearest")[:, 0].flatten(1)
    cost = -logits.softmax(-1)[:, targets.classes]
    cost = cost + 20 * focal_cost(masks[0].flatten(1), small) + 5 * dice_cost(masks[0].flatten(1), small)
    if queries >= count:
        best = min(sum(cost[q, t] for t, q in enumerate(p)) for p in itertools.permutations(range(queries), count))
    else:
        best = min(sum(cost[q, t] for q, t in enumerate(p)) for p in itertools.permutations(range(count), queries))
    assert float(cost[query, target].sum()) == pytest.approx(float(best), rel=1e-4, abs=1e-5)


def test_weights_of_the_costs_decide():
    """Query 0 has the right name, query 1 the right mask."""
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    masks = torch.stack([torch.full((2, 2), -9.0), torch.tensor([[9.0, -9.0], [-9.0, -9.0]])])
    targets = Targets.of_labels(torch.tensor([[0, -1], [-1, -1]]))
    assert match_image(logits, masks, targets, MatchCost(1, 0, 0))[0].tolist() == [0]
    assert match_image(logits, masks, targets, MatchCost(0, 1, 1))[0].tolist() == [1]


def test_a_picture_without_labels_has_no_pairs():
    embeddings, masks, _, text = drawn(0, 1)
    ((query, target),) = match(class_logits(embeddings, text), masks, targets_of(torch.full((1, 8, 12), -1)))
    assert query.tolist() == target.tolist() == []


# --- terms


def test_class_loss_by_hand():
    """Two queries, one matched: its own class counts 1, "no object" a tenth."""
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]]))
    targets = [Targets(torch.tensor([1]), torch.zeros(1, 2, 2))]
    loss = class_loss(logits, targets, [(torch.tensor([0]), torch.tensor([0]))], 0.1)
    assert loss.item() == pytest.approx(-math.log(0.25) - 0.1 * math.log(0.6))
    assert normalisers(torch.tensor([[[1, -1]]]), queries=2) == {"masks": 1.0, "class_weight": 1.1}


def test_focal_loss_equals_torchvision():
    generator = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(3, 50, generator=generator), (torch.rand(3, 50, generator=generator) > 0.5).float()
    expected = sigmoid_focal_loss(logits, masks, alpha=0.25, gamma=2, reduction="none").mean(1)
    torch.testing.assert_close(focal_loss(logits, masks), expected)


def test_dice_loss_by_hand():
    perfect = torch.tensor([[100.0, -100.0, -100.0]])
    assert dice_loss(perfect, torch.tensor([[1.0, 0.0, 0.0]])).item() == pytest.approx(0)
    assert dice_loss(perfect, torch.tensor([[0.0, 1.0, 0.0]])).item() == pytest.approx(1 - 1 / 3)
    assert dice_loss(perfect, torch.zeros(1, 3)).item() == pytest.approx(1 - 1 / 2)


def test_normalisers_count_masks_and_class_weights():
    labels = torch.tensor([[[0, 1, 2]], [[-1, -1, -1]], [[3, 3, -1]]])
    found = normalisers(labels, queries=2, no_object=0.1)
    assert found["masks"] == 4.0 and found["class_weight"] == pytest.approx(2 + 0.2 + 1.1)


def losses_of(embeddings, masks, labels, text, totals, weights=None):
    predictions = [(embeddings, masks), (embeddings.flip(1), masks * 0.5)]
    return mask_losses(predictions, targets_of(labels), text, totals, weights)


def test_terms_are_weighted_and_named_by_layer():
    drawing = drawn(3)
    totals = normalisers(drawing[2], 5)
    plain = losses_of(*drawing, totals, LossWeights(1, 1, 1))
    assert list(plain) == ["ce", "mask", "dice", "ce_0", "mask_0", "dice_0"]
    double = losses_of(*drawing, totals, LossWeights(2, 3, 4))
    for name, factor in (("ce", 2), ("mask", 3), ("dice_0", 4)):
        torch.testing.assert_close(double[name], factor * plain[name])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_parts_of_a_batch_add_up_to_the_whole(seed, cut):
    embeddings, masks, labels, text = drawn(seed, batch=4)
    labels[1] = -1  # a picture without labels
    totals = normalisers(labels, 5)
    parts = [normalisers(labels[:cut], 5), normalisers(labels[cut:], 5)]
    assert {k: pytest.approx(sum(p[k] for p in parts)) for k in totals} == totals
    whole = losses_of(embeddings, masks, labels, text, totals)
    halves = [losses_of(embeddings[s], masks[s], labels[s], text, totals) for s in (slice(cut), slice(cut, None))]
    for name, value in whole.items():
        torch.testing.assert_close(value, halves[0][name] + halves[1][name], atol=1e-5, rtol=1e-4)


def test_a_batch_without_labels_trains_no_object_alone():
    embeddings, masks, _, text = drawn(0)
    embeddings.requires_grad_(True), masks.requires_grad_(True)
    labels = torch.full((2, 8, 12), -1)
    losses = losses_of(embeddings, masks, labels, text, normalisers(labels, 5))
    sum(losses.values()).backward()
    assert losses["mask"].item() == losses["dice"].item() == 0 and losses["ce"].item() > 0
    assert bool(embeddings.grad.isfinite().all()) and bool(embeddings.grad.any())
    assert masks.grad is None or not bool(masks.grad.any())


def test_more_classes_than_queries_is_no_error():
    drawing = drawn(5, queries=2, classes=8)
    totals = normalisers(drawing[2], 2)
    assert all(bool(v.isfinite()) for v in losses_of(*drawing, totals).values())


def test_matched_queries_are_pushed_out_of_unlabelled_pixels():
    """Pixels without label are in no mask, so they count as background."""
    masks = torch.zeros(1, 1, 2, 2, requires_grad=True)
    text = torch.eye(2)
    labels = torch.tensor([[[0, -1], [0, -1]]])
    losses = mask_losses([(torch.ones(1, 1, 2), masks)], targets_of(labels), text, normalisers(labels, 1))
    (losses["mask"] + losses["dice"]).backward()
    assert bool((masks.grad[..., 0] < 0).all()) and bool((masks.grad[..., 1] > 0).all())


def test_autocast_changes_no_cosine():
    generator = torch.Generator().manual_seed(0)
    embeddings, text = (
        torch.randn(3, 32, generator=generator),
        F.normalize(torch.randn(4, 32, generator=generator), dim=1),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = class_logits(embeddings, text)
    assert rough.equal(class_logits(embeddings, text))
