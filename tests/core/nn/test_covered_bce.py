"""Cross-entropy on pixels in a mask: by hand, against autograd on full-size maps, and what is kept."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.nn import covered_bce
from ovseg_cli.core.nn.covered_bce import covered_bce_sum, covered_pixels, is_covered
from tests.core import straight_pixelclip as straight
from tests.core.clip.parity_models import assert_close, load_recorded


def case(batch, classes, grid, size, seed=0, regions=7, scale=2.0):
    """Maps, ids, tables; region 0 lies in no mask, the others in about a third of the classes' masks."""
    generator = torch.Generator().manual_seed(seed)
    maps = scale * torch.randn(batch, classes, *grid, generator=generator)
    ids = torch.randint(0, regions, (batch, *size), generator=generator, dtype=torch.int32)
    tables = (torch.rand(batch, regions, classes, generator=generator) < 0.3).to(torch.uint8)
    tables[:, 0] = 0
    return maps, ids, tables


def written_out(ids, tables):
    return torch.stack([table[i.long()].permute(2, 0, 1) for i, table in zip(ids, tables, strict=True)])


def own(maps, ids, tables):
    maps = maps.detach().clone().requires_grad_()
    total = covered_bce_sum(maps, ids, tables)
    return total.detach(), torch.autograd.grad(total, maps)[0]


def reference(maps, ids, tables):
    """Sum and gradient in float64."""
    maps = maps.detach().double().requires_grad_()
    total, _ = straight.loss_sum(maps, written_out(ids, tables))
    return total.detach(), torch.autograd.grad(total, maps)[0]


def test_by_hand():
    # One class, three pixels of logit 0, ln 2 and 9: the first in its mask, the second in none of it but in another
    # class's, the third in no mask. Sum: ln 2 + ln(1 + 2), and for the other class ln 2 twice (its logits are 0).
    # Slopes: p - t = 1/2 - 1, 2/3 - 0; other class 1/2 - 0, 1/2 - 1; nothing for the third pixel.
    maps = torch.tensor([[[[0, math.log(2), 9]], [[0, 0, 0]]]])
    ids, tables = torch.tensor([[[1, 2, 0]]]), torch.tensor([[[0, 0], [1, 0], [0, 1]]], dtype=torch.uint8)
    total, slopes = own(maps, ids, tables)
    assert total.item() == pytest.approx(math.log(2) + math.log(3) + 2 * math.log(2))
    expected = torch.tensor([[[[-1 / 2, 2 / 3, 0]], [[1 / 2, -1 / 2, 0]]]])
    torch.testing.assert_close(slopes, expected)
    assert covered_pixels(ids, tables) == 2 and is_covered(ids, tables).tolist() == [[[True, True, False]]]


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    classes=st.integers(1, 6),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    seed=st.integers(0, 10_000),
)
def test_sum_and_gradient_are_those_of_full_size_maps(batch, classes, grid, size, seed):
    maps, ids, tables = case(batch, classes, grid, size, seed)
    for found, wanted in zip(own(maps, ids, tables), reference(maps, ids, tables), strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
    assert covered_pixels(ids, tables) == int(written_out(ids, tables).any(1).sum())


@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_the_mean_is_the_recorded_loss(parity, kind):
    recorded = load_recorded(parity, kind).tensors
    targets = recorded["train.targets"]
    ids, tables = straight.regions(targets)
    total = covered_bce_sum(recorded["train.decoder_out"], ids, tables)
    assert_close((total / (covered_pixels(ids, tables) * targets.shape[1]))[None], recorded["train.loss"])


@pytest.mark.parametrize("at_once", [1, 17 * 13 * 2, 1 << 20])
def test_maps_in_parts_of_any_size_give_the_same(monkeypatch, at_once):
    maps, ids, tables = case(2, 7, (4, 5), (17, 13))
    expected = own(maps, ids, tables)
    monkeypatch.setattr(covered_bce, "VALUES_AT_ONCE", (at_once, at_once))
    for found, wanted in zip(own(maps, ids, tables), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_some_classes_count_on_the_pixels_of_all():
    maps, ids, tables = case(2, 5, (3, 3), (9, 9))
    covered = is_covered(ids, tables)
    parts = [covered_bce_sum(maps[:, part], ids, tables[:, :, part], covered) for part in (slice(0, 2), slice(2, 5))]
    torch.testing.assert_close(sum(parts), covered_bce_sum(maps, ids, tables))


def test_pixels_in_no_mask_count_nowhere():
    maps, ids, tables = case(1, 3, (4, 4), (4, 4))
    _, slopes = own(maps, ids, tables)
    outside = ~is_covered(ids, tables)
    assert bool(outside.any()) and not bool(slopes[0][:, outside[0]].any())


def test_without_any_mask_the_sum_is_zero():
    maps, ids, tables = case(2, 3, (4, 4), (8, 8))
    total, slopes = own(maps, ids, torch.zeros_like(tables))
    assert total.item() == 0 and not bool(slopes.any())


def test_a_factor_after_the_sum_scales_the_gradient():
    maps, ids, tables = case(1, 3, (3, 3), (9, 9))
    _, slopes = own(maps, ids, tables)
    (0.125 * covered_bce_sum(maps.requires_grad_(), ids, tables)).backward()
    torch.testing.assert_close(maps.grad, 0.125 * slopes)


def test_large_logits_stay_finite():
    maps, ids, tables = case(1, 3, (3, 3), (8, 8), scale=500.0)
    (total, slopes), (expected, _) = own(maps, ids, tables), reference(maps, ids, tables)
    assert bool(slopes.isfinite().all())
    torch.testing.assert_close(total.double(), expected, atol=1e-3, rtol=1e-5)


def test_nothing_at_full_size_is_kept_for_the_backward_pass():
    maps, ids, tables = case(2, 5, (4, 4), (64, 64))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        covered_bce_sum(maps.requires_grad_(), ids, tables)
    assert kept and max(kept) <= maps.numel()


def test_without_gradients_nothing_is_kept():
    assert not covered_bce_sum(*case(1, 3, (3, 3), (8, 8))).requires_grad


def test_the_sum_is_made_in_float32_whatever_surrounds_it():
    maps, ids, tables = case(2, 4, (3, 3), (9, 9))
    expected = covered_bce_sum(maps, ids, tables)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(covered_bce_sum(maps, ids, tables), expected)
        rounded = covered_bce_sum(maps.bfloat16(), ids, tables)
    torch.testing.assert_close(rounded, covered_bce_sum(maps.bfloat16().float(), ids, tables))
