"""PixelCLIP's decoder: the recorded numbers, its layers one by one, every map alone, any size."""

import copy

import pytest
import torch

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.map_decoder import MapDecoder
from tests.core import straight_pixelclip as straight
from tests.core.clip.parity_models import assert_close, load_recorded


def drawn(seed=0, width=32, dtype=torch.float64):
    """A decoder whose biases and norms matter."""
    torch.manual_seed(seed)
    decoder = MapDecoder(width).to(dtype)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def weights_of(decoder):
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in decoder.named_parameters()}


def recorded_decoder(recorded):
    state = {n.removeprefix("head."): t for n, t in recorded.state.items() if n.startswith("head.")}
    decoder = MapDecoder(len(state["conv0.bias"]))
    decoder.load_state_dict(state)  # names and shapes are the code's
    return decoder


@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_maps_are_the_recorded_ones(parity, kind):
    recorded = load_recorded(parity, kind)
    with torch.no_grad():
        maps = recorded_decoder(recorded)(recorded.tensors["train.similarity"])
    assert_close(maps, recorded.tensors["train.decoder_out"])


def test_a_decoder_of_zeros_gives_the_last_bias():
    decoder = drawn()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.fill_(3 if name == "proj.bias" else 0)
        assert decoder(torch.randn(1, 2, 2, 3, dtype=torch.float64)).equal(
            torch.full((1, 2, 8, 12), 3.0, dtype=torch.float64)
        )


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 3), (5, 5), (7, 6)])
def test_layers_one_by_one_give_the_same_maps_and_gradients(size):
    decoder, maps = drawn(), torch.randn(2, 3, *size, dtype=torch.float64)
    weights = weights_of(decoder)
    own, plain = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    found, expected = decoder(own), straight.decode(weights, plain)
    torch.testing.assert_close(found, expected)
    slopes = torch.randn_like(expected)
    found.backward(slopes)
    expected.backward(slopes)
    torch.testing.assert_close(own.grad, plain.grad)
    for name, parameter in decoder.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, msg=lambda text, name=name: f"{name}: {text}")


def test_in_float32_maps_agree_to_rounding():
    decoder = drawn(width=64, dtype=torch.float32)
    maps = torch.randn(1, 4, 20, 20)
    with torch.no_grad():
        assert_close(decoder(maps), straight.decode(dict(decoder.named_parameters()), maps))


def test_each_map_is_decoded_alone():
    decoder, maps = drawn(), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        together = decoder(maps)
        for b in range(2):
            for k in range(3):
                torch.testing.assert_close(decoder(maps[b, None, k, None])[0, 0], together[b, k])


def test_autocast_rounds_no_merged_kernel():
    decoder, maps = drawn(dtype=torch.float32), torch.randn(1, 2, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layers, rough = decoder.layers((6, 6)), decoder(maps)
    assert all(tensor.dtype == torch.float32 for tensor in layers.tensors())
    for found, wanted in zip(layers.tensors(), decoder.layers((6, 6)).tensors(), strict=True):
        assert found.equal(wanted)
    exact = decoder(maps)
    assert 0 < float((rough - exact).detach().abs().max() / exact.detach().abs().max()) < 0.1


def test_first_values_are_torchs_own():
    torch.manual_seed(3)
    found = MapDecoder().state_dict()
    torch.manual_seed(3)
    expected = torch.nn.Conv2d(1, 64, 3)
    assert found["conv0.weight"].equal(expected.weight) and found["conv0.bias"].equal(expected.bias)
    assert bool((found["conv2.double_conv.4.weight"] == 1).all())
    assert sum(tensor.numel() for tensor in found.values()) == 118_145  # as counted in the published code


def test_a_copy_is_a_decoder_of_its_own():
    decoder = drawn()
    other = copy.deepcopy(decoder)
    with torch.no_grad():
        other.proj.bias.add_(1)
        maps = torch.randn(1, 1, 3, 3, dtype=torch.float64)
        torch.testing.assert_close(other(maps), decoder(maps) + 1)


@pytest.mark.parametrize("width", [0, 16, 48])
def test_norms_need_whole_groups(width):
    with pytest.raises(ShapeError, match=f"{width} channels.* multiple of 32"):
        MapDecoder(width)


def test_no_maps_give_no_maps():
    with torch.no_grad():
        assert drawn()(torch.zeros(2, 0, 3, 3, dtype=torch.float64)).shape == (2, 0, 12, 12)
