"""Decoder and loss at once: the recorded numbers, the loss after the decoder, parts of any size, what is kept."""

import pytest
import torch

from ovseg_cli.core.nn import decoded_bce
from ovseg_cli.core.nn.covered_bce import covered_bce_sum, covered_pixels
from ovseg_cli.core.nn.decoded_bce import decoded_bce_sum
from ovseg_cli.core.nn.map_decoder import MapDecoder
from tests.core import straight_pixelclip as straight
from tests.core.clip.parity_models import assert_close, load_recorded
from tests.core.nn.test_covered_bce import case
from tests.core.nn.test_map_decoder import drawn, recorded_decoder


def after_one_another(decoder, similarity, ids, tables):
    return covered_bce_sum(decoder(similarity), ids, tables)


def with_slopes(way, decoder, similarity, ids, tables, factor=1.0):
    """The sum, and gradients by similarity and parameters; those of the mean are of order one."""
    similarity = similarity.detach().clone().requires_grad_()
    total = way(decoder, similarity, ids, tables)
    return [total.detach(), *torch.autograd.grad(factor * total, [similarity, *decoder.parameters()])]


def assert_same(found, expected, tolerance=1e-4):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_loss_and_gradients_are_the_recorded_ones(parity, kind):
    recorded = load_recorded(parity, kind)
    decoder, tensors = recorded_decoder(recorded), recorded.tensors
    ids, tables = straight.regions(tensors["train.targets"])
    loss = decoded_bce_sum(decoder, tensors["train.similarity"], ids, tables)
    loss = loss / (covered_pixels(ids, tables) * tables.shape[2])
    loss.backward()
    assert_close(loss.detach()[None], tensors["train.loss"])
    parameters = dict(decoder.named_parameters())
    keys = [key for key in tensors if key.startswith("grad.head.")]
    assert keys
    for key in keys:
        assert_close(parameters[key.removeprefix("grad.head.")].grad, tensors[key], 1e-4)


@pytest.mark.parametrize("maps_at_once", [1, 2, 100])
def test_parts_of_any_size_give_what_the_loss_after_the_decoder_gives(monkeypatch, maps_at_once):
    decoder, (similarity, ids, tables) = drawn(dtype=torch.float32), case(2, 5, (4, 3), (19, 14))
    monkeypatch.setattr(decoded_bce, "PIXELS_AT_ONCE", (maps_at_once * 16 * 4 * 3,) * 2)
    expected = with_slopes(after_one_another, decoder, similarity, ids, tables)
    assert_same(with_slopes(decoded_bce_sum, decoder, similarity, ids, tables), expected)


def test_gradients_follow_a_factor_after_the_sum():
    decoder, inputs = drawn(dtype=torch.float32), case(1, 3, (4, 4), (9, 9))
    found = with_slopes(decoded_bce_sum, decoder, *inputs)
    scaled = with_slopes(decoded_bce_sum, decoder, *inputs, factor=1024.0)
    assert_same(scaled[1:], [1024 * slope for slope in found[1:]], 1e-6)


def test_pixels_are_those_in_a_mask_of_any_class_also_of_another_part(monkeypatch):
    # Both pixels lie in the mask of the second class alone; the first class, in another part, learns that it has none.
    monkeypatch.setattr(decoded_bce, "PIXELS_AT_ONCE", (1, 1))
    decoder, similarity = drawn(dtype=torch.float32), torch.randn(1, 2, 1, 1)
    ids, tables = torch.zeros(1, 2, 1, dtype=torch.int32), torch.tensor([[[0, 1]]], dtype=torch.uint8)
    expected = with_slopes(after_one_another, decoder, similarity, ids, tables)
    found = with_slopes(decoded_bce_sum, decoder, similarity, ids, tables)
    assert_same(found, expected)
    assert bool(found[1][0, 0].any())


def test_frozen_parts_get_no_gradient():
    decoder, (similarity, ids, tables) = drawn(dtype=torch.float32), case(1, 2, (3, 3), (6, 6))
    decoder.requires_grad_(False)
    similarity.requires_grad_()
    decoded_bce_sum(decoder, similarity, ids, tables).backward()
    assert bool(similarity.grad.any()) and all(p.grad is None for p in decoder.parameters())
    total = decoded_bce_sum(decoder.requires_grad_(True), similarity.detach(), ids, tables)
    total.backward()
    assert all(bool(p.grad.isfinite().all()) for p in decoder.parameters())


def test_without_gradients_nothing_is_kept():
    decoder, inputs = drawn(dtype=torch.float32), case(1, 2, (3, 3), (6, 6))
    with torch.no_grad():
        total = decoded_bce_sum(decoder, *inputs)
    assert not total.requires_grad
    torch.testing.assert_close(total, after_one_another(decoder, *inputs).detach())


def test_no_map_is_kept_for_the_backward_pass():
    decoder, (similarity, ids, tables) = drawn(dtype=torch.float32), case(2, 6, (8, 8), (32, 32))
    total = decoded_bce_sum(decoder, similarity.requires_grad_(), ids, tables)
    kept = sum(tensor.numel() for tensor in total.grad_fn.saved_tensors)
    assert kept == similarity.numel() + sum(tensor.numel() for tensor in decoder.layers((8, 8)).tensors())


def test_autocast_computes_maps_in_bfloat16_and_the_loss_in_float32():
    torch.manual_seed(1)
    decoder, (similarity, ids, tables) = MapDecoder(32), case(2, 3, (6, 6), (24, 24))
    expected = with_slopes(decoded_bce_sum, decoder, similarity, ids, tables)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = with_slopes(decoded_bce_sum, decoder, similarity.bfloat16(), ids, tables)
    assert found[0].dtype == torch.float32 and found[1].dtype == torch.bfloat16
    assert all(slope.dtype == torch.float32 and bool(slope.isfinite().all()) for slope in found[2:])
    assert float((found[0] - expected[0]).abs()) <= 1e-2 * float(expected[0])
    one, other = (torch.cat([slope.flatten() for slope in slopes[2:]]) for slopes in (found, expected))
    assert float(torch.cosine_similarity(one, other, dim=0)) > 0.99


def test_torch_compile_leaves_the_loop_as_it_is():
    decoder, (similarity, ids, tables) = drawn(dtype=torch.float32), case(1, 2, (3, 3), (6, 6))
    compiled = torch.compile(lambda maps: decoded_bce_sum(decoder, 2 * maps, ids, tables), backend="eager")
    torch.testing.assert_close(compiled(similarity), decoded_bce_sum(decoder, 2 * similarity, ids, tables))
