"""MaskFormer's generator: against the formulas written out, against transformers' own modules, and at the edges."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.detr_decoder import DetrDecoder
from ovseg_cli.core.nn.fpn import FpnDecoder
from ovseg_cli.core.nn.maskformer import MaskFormerGenerator
from ovseg_cli.core.nn.maskformer_config import MaskFormerConfig, ZegFormerSizes
from ovseg_cli.core.nn.positions import sine_positions
from ovseg_cli.core.nn.resnet_config import ResNetConfig

CHANNELS = {"res2": 6, "res3": 10, "res4": 12, "res5": 14}
BACKBONE = ResNetConfig(
    blocks=(1, 1, 2, 1), stem="basic", stem_width=8, width=4, res2_width=16, multi_grid=(1,), norm="group-norm"
)


def small(**changes):
    sizes = {
        "backbone": BACKBONE,
        "pyramid_width": 16,
        "groups": 4,
        "mask_width": 8,
        "width": 24,
        "queries": 5,
        "decoder_layers": 3,
        "decoder_ffn": 20,
        "heads": 4,
        "embed_width": 12,
        "embed_hidden": 18,
    }
    return MaskFormerConfig(**{**sizes, **changes})


def shaken(module, seed=0):
    """Draw every parameter anew, so that no bias is zero and no norm is plain."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1) * 0.5)
    return module.eval()


def maps_of(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    strides = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
    return {
        name: torch.randn(2, c, height // strides[name], width // strides[name], generator=generator)
        for name, c in CHANNELS.items()
    }


# --- written out


def attention(queries, keys, values, state, heads):
    """Multi-head attention from its definition: no fused kernel, no batch-first switch."""
    q, k, v = (
        F.linear(x, w, b)
        for x, w, b in zip(
            (queries, keys, values), state["in_proj_weight"].chunk(3), state["in_proj_bias"].chunk(3), strict=True
        )
    )
    mixed = []
    for a, b, c in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        mixed.append((a @ b.transpose(1, 2) / math.sqrt(a.shape[-1])).softmax(-1) @ c)
    return F.linear(torch.cat(mixed, -1), state["out_proj.weight"], state["out_proj.bias"])


def part(state, prefix):
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def written_out(decoder, coarse, mask_features, heads):
    """The last prediction, step by step as MaskFormer's code describes them."""
    state = decoder.state_dict()
    memory = F.conv2d(coarse, state["input_proj.weight"], state["input_proj.bias"])
    waves = sine_positions(tuple(memory.shape[-2:]), memory.shape[1], memory).flatten(1).T
    memory = memory.flatten(2).transpose(1, 2)
    where = state["query_embed.weight"][None].repeat(len(coarse), 1, 1)
    x = torch.zeros_like(where)
    width = (x.shape[-1],)
    for i in range(len(decoder.transformer["decoder"].layers)):
        layer = part(state, f"transformer.decoder.layers.{i}.")
        norms = [(layer[f"norm{n}.weight"], layer[f"norm{n}.bias"]) for n in (1, 2, 3)]
        x = F.layer_norm(x + attention(x + where, x + where, x, part(layer, "self_attn."), heads), width, *norms[0])
        mixed = attention(x + where, memory + waves, memory, part(layer, "multihead_attn."), heads)
        x = F.layer_norm(x + mixed, width, *norms[1])
        hidden = F.linear(x, layer["linear1.weight"], layer["linear1.bias"]).relu()
        x = F.layer_norm(x + F.linear(hidden, layer["linear2.weight"], layer["linear2.bias"]), width, *norms[2])
    x = F.layer_norm(x, width, state["transformer.decoder.norm.weight"], state["transformer.decoder.norm.bias"])
    return _mlp(x, part(state, "class_embed.layers.")), torch.einsum(
        "bqe,behw->bqhw", _mlp(x, part(state, "mask_embed.layers.")), mask_features
    )


def _mlp(x, state):
    depth = len(state) // 2
    for i in range(depth):
        x = F.linear(x, state[f"{i}.weight"], state[f"{i}.bias"])
        x = x.relu() if i + 1 < depth else x
    return x


def test_decoder_equals_its_steps_written_out():
    decoder = shaken(DetrDecoder(14, 24, 8, 12, 18, queries=5, layers=3, heads=4, ffn=20))
    coarse, mask_features = torch.randn(2, 14, 2, 3), torch.randn(2, 8, 16, 24)
    found = decoder(coarse, mask_features)
    embeddings, masks = written_out(decoder, coarse, mask_features, 4)
    torch.testing.assert_close(found.embeddings, embeddings, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.mask_logits, masks, atol=1e-4, rtol=1e-4)
    assert len(found.aux) == 2 and found.aux[0][0].shape == found.embeddings.shape


def test_earlier_predictions_are_those_of_a_shallower_decoder():
    deep, flat = (DetrDecoder(14, 24, 8, 12, 18, queries=5, layers=n, heads=4, ffn=20) for n in (3, 2))
    flat.load_state_dict({k: v for k, v in shaken(deep).state_dict().items() if k in flat.state_dict()})
    inputs = torch.randn(1, 14, 2, 3), torch.randn(1, 8, 8, 12)
    found, wanted = deep(*inputs), flat.eval()(*inputs)
    torch.testing.assert_close(found.aux[-1], (wanted.embeddings, wanted.mask_logits))


def test_pyramid_equals_its_steps_written_out():
    decoder, maps = shaken(FpnDecoder(CHANNELS, 16, 8, groups=4)), maps_of(64, 96)
    state = decoder.state_dict()

    def normed(x, name):
        weight = state[f"{name}.weight"]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        return F.group_norm(x, 4, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"])

    y = normed(maps["res5"], "layer_4").relu()
    for number, name in ((3, "res4"), (2, "res3"), (1, "res2")):
        y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
        y = normed(normed(maps[name], f"adapter_{number}") + y, f"layer_{number}").relu()
    wanted = F.conv2d(y, state["mask_features.weight"], state["mask_features.bias"], padding=1)
    torch.testing.assert_close(decoder(maps), wanted, atol=1e-4, rtol=1e-4)


# --- another implementation


@pytest.mark.slow
def test_generator_parts_equal_those_of_transformers():
    theirs = pytest.importorskip("transformers.models.maskformer.modeling_maskformer")
    maps = maps_of(64, 96)
    pyramid = shaken(FpnDecoder(CHANNELS, 32, 8))
    other = theirs.MaskFormerPixelDecoder(14, lateral_widths=[6, 10, 12], feature_size=32, mask_feature_size=8)
    names = {"mask_projection": "mask_features", "fpn.stem.0": "layer_4", "fpn.stem.1": "layer_4.norm"}
    for i, number in enumerate((3, 2, 1)):
        for place, name in (("proj", "adapter"), ("block", "layer")):
            names[f"fpn.layers.{i}.{place}.0"] = f"{name}_{number}"
            names[f"fpn.layers.{i}.{place}.1"] = f"{name}_{number}.norm"
    _copy(other, pyramid, names)
    torch.testing.assert_close(pyramid(maps), other(list(maps.values())).last_hidden_state, atol=1e-4, rtol=1e-4)

    decoder = shaken(DetrDecoder(14, 24, 8, 12, 18, queries=5, layers=2, heads=4, ffn=20))
    sizes = {"d_model": 24, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 20, "num_queries": 5}
    config = theirs.MaskFormerConfig(decoder_config=theirs.MaskFormerDetrConfig(**sizes))
    other = theirs.MaskFormerTransformerModule(14, config).eval()
    _copy_decoder(other, decoder)
    queries = other(maps["res5"]).last_hidden_state
    found = decoder(maps["res5"], torch.zeros(2, 8, 1, 1)).embeddings
    torch.testing.assert_close(found, decoder.class_embed(queries), atol=1e-4, rtol=1e-4)


def _copy(target, source, names):
    state = source.state_dict()
    mapped = {}
    for key in target.state_dict():
        place, _, leaf = key.rpartition(".")
        mapped[key] = state[f"{names[place]}.{leaf}"]
    target.load_state_dict(mapped)


def _copy_decoder(target, source):
    state = {key.removeprefix("transformer."): value for key, value in source.state_dict().items()}
    attentions = {"self_attn": "self_attn", "encoder_attn": "multihead_attn"}
    plain = {
        "self_attn_layer_norm": "norm1",
        "encoder_attn_layer_norm": "norm2",
        "final_layer_norm": "norm3",
        "mlp.fc1": "linear1",
        "mlp.fc2": "linear2",
    }
    mapped = {}
    for leaf in ("weight", "bias"):
        mapped[f"decoder.layernorm.{leaf}"] = state[f"decoder.norm.{leaf}"]
        mapped[f"input_projection.{leaf}"] = state[f"input_proj.{leaf}"]
        for i in range(len(target.decoder.layers)):
            here = f"decoder.layers.{i}."
            mapped |= {f"{here}{a}.{leaf}": state[f"{here}{b}.{leaf}"] for a, b in plain.items()}
            for a, b in attentions.items():
                for name, rows in zip("qkv", state[f"{here}{b}.in_proj_{leaf}"].chunk(3), strict=True):
                    mapped[f"{here}{a}.{name}_proj.{leaf}"] = rows
                mapped[f"{here}{a}.o_proj.{leaf}"] = state[f"{here}{b}.out_proj.{leaf}"]
    target.load_state_dict({**mapped, "queries_embedder.weight": state["query_embed.weight"]})


# --- the whole


def test_masks_have_stride_four_and_embeddings_the_clips_width():
    generator = MaskFormerGenerator(small())
    output = generator(torch.randn(2, 3, 64, 96))
    assert output.embeddings.shape == (2, 5, 12) and output.mask_logits.shape == (2, 5, 16, 24)
    assert len(output.aux) == 2


def test_companions_in_a_batch_change_nothing():
    generator, images = shaken(MaskFormerGenerator(small())), torch.randn(3, 3, 32, 64)
    together, alone = generator(images), generator(images[1:2])
    torch.testing.assert_close(together.mask_logits[1:2], alone.mask_logits, atol=1e-4, rtol=1e-4)


def test_dropout_acts_in_training_only():
    generator, images = MaskFormerGenerator(small(dropout=0.5)), torch.randn(1, 3, 32, 32)
    generator.train()
    assert not generator(images).embeddings.equal(generator(images).embeddings)
    generator.eval()
    assert generator(images).embeddings.equal(generator(images).embeddings)


def test_every_parameter_gets_a_gradient():
    generator = MaskFormerGenerator(small())
    output = generator(torch.randn(2, 3, 64, 64))
    sum((e.square().sum() + m.square().sum() for e, m in output.predictions()), torch.zeros(())).backward()
    assert [name for name, p in generator.named_parameters() if p.grad is None] == []


def test_a_canvas_that_32_does_not_divide_is_refused():
    with pytest.raises(ShapeError, match="32 divides"):
        MaskFormerGenerator(small())(torch.zeros(1, 3, 64, 65))


# --- checkpoints


@pytest.mark.parametrize(
    "config",
    [
        small(),
        small(embed_hidden=0, memory="res3"),
        small(memory="res4", width=64),
        ZegFormerSizes(embed_width=512),
        MaskFormerConfig(embed_width=512),
    ],
    ids=["two layers", "one layer", "no projection", "ZegFormer", "ZSSeg"],
)
def test_sizes_are_read_from_shapes(config):
    with torch.device("meta"):
        state = MaskFormerGenerator(config).state_dict()
    known = {"heads": config.heads, "groups": config.groups}
    assert MaskFormerConfig.from_state_dict(state, **known).model_dump() == config.model_dump()


def test_a_checkpoint_without_a_part_names_it():
    with torch.device("meta"):
        state = MaskFormerGenerator(small()).state_dict()
    key = "sem_seg_head.pixel_decoder.mask_features.weight"
    with pytest.raises(KeyError, match=key):
        MaskFormerConfig.from_state_dict({k: v for k, v in state.items() if k != key})


def test_keys_are_those_of_the_published_checkpoints():
    with torch.device("meta"):
        keys = set(MaskFormerGenerator(MaskFormerConfig()).state_dict())
    head = "sem_seg_head."
    assert {key.split(".")[0] for key in keys} == {"backbone", "sem_seg_head"}
    for stage in (1, 2, 3, 4):
        assert {f"{head}pixel_decoder.layer_{stage}.{leaf}" for leaf in ("weight", "norm.weight", "norm.bias")} <= keys
        assert (f"{head}pixel_decoder.adapter_{stage}.weight" in keys) == (stage < 4)
    layer = f"{head}predictor.transformer.decoder.layers.5."
    leaves = [
        "self_attn.in_proj_weight",
        "multihead_attn.out_proj.bias",
        "linear1.weight",
        "linear2.bias",
        "norm3.bias",
    ]
    leaves += ["self_attn.in_proj_bias", "norm1.weight", "norm2.weight"]
    assert {layer + leaf for leaf in leaves} <= keys
    predictor = ["transformer.decoder.norm.weight", "query_embed.weight", "input_proj.weight", "input_proj.bias"]
    predictor += ["mask_embed.layers.2.bias", "class_embed.layers.1.weight"]
    assert {f"{head}predictor.{leaf}" for leaf in predictor} <= keys
    with torch.device("meta"):
        assert f"{head}predictor.projection_layer.weight" in MaskFormerGenerator(ZegFormerSizes()).state_dict()


@pytest.mark.parametrize(
    "changes", [{"heads": 5}, {"groups": 3}, {"width": 26, "heads": 2}, {"queries": 0}, {"quereis": 4}]
)
def test_sizes_that_do_not_fit_together_are_refused(changes):
    with pytest.raises(ValidationError):
        small(**changes)


def test_norms_and_heads_start_as_published():
    decoder = FpnDecoder(CHANNELS, 64, 8)
    bound = math.sqrt(3 / (64 * 9))  # Caffe2's "Xavier": uniform with variance 1 / fan-in
    assert 0.95 * bound < float(decoder.layer_1.weight.detach().abs().max()) <= bound
    assert (
        isinstance(decoder.layer_1.norm, nn.GroupNorm) and float(decoder.mask_features.bias.detach().abs().max()) == 0
    )
