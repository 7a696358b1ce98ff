"""Attention to mask: by hand, against the straightforward decoder, and what is and is not built."""

import math

import pytest
import torch

from ovseg_cli.core.nn.attention_masks import CrossAttention, MaskDecoder
from tests.core.methods.straight_one_stage import Straight, with_dead_end

DIM, HEADS, FFN = 12, 3, 20


def decoder(layers=3, self_attention=False, init="xavier", dropout=0.0, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MaskDecoder(DIM, layers, HEADS, FFN, dropout, self_attention, init).eval()


def straight(own):
    return Straight(None, with_dead_end({f"decoder.{name}": value for name, value in own.state_dict().items()}), HEADS)


def inputs(classes=5, patches=7, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, classes, DIM, generator=generator), torch.randn(batch, patches, DIM, generator=generator)


@torch.no_grad()
def test_masks_by_hand():
    # q = (1, 2), k = (3, 4), projections are the identity. One head: (3 + 8) / sqrt(2).
    # Two heads of one number each: the mean of 3 / 1 and 8 / 1.
    for heads, expected in ((1, 11 / math.sqrt(2)), (2, 5.5)):
        attention = CrossAttention(2, heads, only_masks=True)
        for part in (attention.q, attention.k):
            part.weight.copy_(torch.eye(2))
            part.bias.zero_()
        masks = attention.masks(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]]))
        assert masks.item() == pytest.approx(expected)


@torch.no_grad()
@pytest.mark.parametrize("self_attention", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_masks_of_every_layer_are_those_of_the_straightforward_decoder(layers, self_attention):
    own, (queries, memory) = decoder(layers, self_attention), inputs()
    expected = straight(own).decode(queries, memory)
    torch.testing.assert_close(own(queries, memory), expected[-1][1], atol=1e-5, rtol=1e-4)
    for layer, (left, masks) in zip(own.layers, expected, strict=True):
        torch.testing.assert_close(layer.masks(queries, memory), masks, atol=1e-5, rtol=1e-4)
        if not layer.only_masks:
            queries = layer(queries, memory)
            torch.testing.assert_close(queries, left, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("self_attention", [False, True])
def test_gradients_are_those_of_the_straightforward_decoder(self_attention):
    own, (queries, memory) = decoder(self_attention=self_attention), inputs()
    weight = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(3))
    (own(queries, memory) * weight).sum().backward()
    model = straight(own)
    model.weights = {name: value.clone().requires_grad_() for name, value in model.weights.items()}
    (model.decode(queries, memory)[-1][1] * weight).sum().backward()
    built = dict(own.named_parameters())
    for name, value in model.weights.items():
        name = name.removeprefix("decoder.")
        assert (value.grad is None) == (name not in built), name  # what is not built has no gradient there either
        if value.grad is not None:
            torch.testing.assert_close(built[name].grad, value.grad, atol=1e-4, rtol=1e-3)


def test_only_what_has_an_effect_is_built():
    own = decoder(self_attention=True)
    parts = [{name.split(".")[0] for name, _ in layer.named_parameters()} for layer in own.layers]
    full = {"multihead_attn", "linear1", "linear2", "norm2", "norm3"}
    assert parts == [full | {"self_attn", "norm1"}, full, {"multihead_attn"}]
    assert {name.split(".")[1] for name, _ in own.layers[-1].named_parameters()} == {"q", "k"}
    assert not any("self_attn" in name for name, _ in decoder().named_parameters())


def test_layers_begin_as_copies_or_each_by_itself():
    copies = decoder(init="copies")
    first = copies.layers[0].state_dict()
    for layer in copies.layers:
        assert all(value.equal(first[name]) for name, value in layer.state_dict().items())
    drawn = decoder(init="xavier")
    bound = math.sqrt(6 / (FFN + DIM))
    weights = [layer.linear1.weight for layer in drawn.layers[:2]]
    assert not weights[0].equal(weights[1])
    assert all(0.9 * bound < float(weight.detach().abs().max()) <= bound for weight in weights)


@torch.no_grad()
def test_queries_meet_only_in_self_attention():
    queries, memory = inputs()
    alone = decoder()
    torch.testing.assert_close(alone(queries[:, :2], memory), alone(queries, memory)[:, :2], atol=1e-6, rtol=1e-5)
    met = decoder(self_attention=True)
    assert not torch.allclose(met(queries[:, :2], memory), met(queries, memory)[:, :2], atol=1e-4)


@torch.no_grad()
def test_dropout_acts_in_training_alone():
    own, (queries, memory) = decoder(dropout=0.5), inputs()
    assert own(queries, memory).equal(own(queries, memory))
    own.train()
    assert not own(queries, memory).equal(own(queries, memory))


@torch.no_grad()
def test_one_query_and_one_patch_work():
    queries, memory = inputs(classes=1, patches=1, batch=1)
    assert decoder(self_attention=True)(queries, memory).shape == (1, 1, 1)
