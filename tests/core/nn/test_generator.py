"""FreeSeg's generator: its parts by hand, the slips that the weights need, and what shapes tell."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.generator import normalise, official_state
from ovseg_cli.core.nn.generator_config import IMAGE_MEAN, IMAGE_STD, GeneratorConfig, half_statistics
from ovseg_cli.core.nn.mask_decoder import MaskDecoder, Mlp, outside
from ovseg_cli.core.nn.pixel_decoder import Pyramid
from ovseg_cli.core.nn.text_interaction import TextInteraction
from tests.core.nn.small import small_config, small_generator


def unit(rows, width=10, seed=0):
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def images(count=2, height=64, width=96, seed=0):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def predict(generator, *arguments):
    return generator(*arguments)


def test_output_has_the_promised_shapes_and_one_prediction_a_layer_and_one_before():
    generator = small_generator()
    output = predict(generator, images(), unit(5))
    assert output.embeddings.shape == (2, 7, 10) and output.mask_logits.shape == (2, 7, 16, 24)
    assert len(output.aux) == generator.config.decoder_layers
    assert all(e.shape == (2, 7, 10) and m.shape == (2, 7, 16, 24) for e, m in output.aux)
    assert len(output.predictions()) == 4 and output.predictions()[0][1] is output.mask_logits


def test_companions_change_nothing():
    generator, batch = small_generator(), images(3)
    together, alone = predict(generator, batch, unit(4)), predict(generator, batch[1:2], unit(4))
    torch.testing.assert_close(together.mask_logits[1:2], alone.mask_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.embeddings[1:2], alone.embeddings, atol=1e-4, rtol=1e-4)


def test_order_of_names_changes_nothing_and_other_names_do():
    generator, text = small_generator(), unit(5)
    before = predict(generator, images(1), text)
    turned = predict(generator, images(1), text[[3, 1, 0, 4, 2]])
    torch.testing.assert_close(before.mask_logits, turned.mask_logits, atol=1e-4, rtol=1e-4)
    other = predict(generator, images(1), unit(5, seed=9))
    assert not torch.allclose(before.mask_logits, other.mask_logits, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 160), (96, 64)])
def test_any_canvas_of_whole_strides_works(height, width):
    output = predict(small_generator(), images(1, height, width), unit(2))
    assert output.mask_logits.shape == (1, 7, height // 4, width // 4) and bool(output.mask_logits.isfinite().all())


def test_other_canvases_and_texts_are_refused():
    with pytest.raises(ShapeError, match="that 32 divides"):
        small_generator()(images(1, 48, 64), unit(2))
    with pytest.raises(ShapeError, match="embed_width 10"):
        small_generator()(images(1), unit(2, width=12))


def test_dropout_works_in_training_alone():
    generator, batch, text = small_generator(dropout=0.5), images(1), unit(3)
    assert predict(generator, batch, text).mask_logits.equal(predict(generator, batch, text).mask_logits)
    generator.train()
    assert not predict(generator, batch, text).mask_logits.equal(predict(generator, batch, text).mask_logits)


def test_every_parameter_but_the_last_masks_own_gets_a_gradient():
    generator = small_generator()
    output = generator(images(2), unit(3))
    sum(m.sum() + e.square().sum() for e, m in output.predictions()).backward()
    assert [name for name, p in generator.named_parameters() if p.grad is None] == []


# --- text interaction


@torch.no_grad()
def test_interaction_by_hand():
    """One head, identity projections: normalised pixels plus gamma times the text that they look at."""
    interaction = TextInteraction(4, 4, 4, 1, 0.0).eval()
    for linear in (
        interaction.attn.q_proj,
        interaction.attn.k_proj,
        interaction.attn.v_proj,
        interaction.attn.out_proj,
    ):
        linear.weight.copy_(torch.eye(4))
    pixels, text = torch.randn(1, 4, 2, 3), torch.randn(3, 4)
    first, second = interaction([pixels, pixels], text)
    norm = nn.LayerNorm(4)
    q = norm(pixels.flatten(2).transpose(1, 2))[0]
    k = norm(text)
    expected = q + 0.1 * (q @ k.T / 2).softmax(-1) @ k
    torch.testing.assert_close(first[0].flatten(1).T, expected)
    torch.testing.assert_close(second[0].flatten(1).T, expected, atol=1e-4, rtol=1e-4)  # LN of LN is nearly LN


@torch.no_grad()
def test_text_is_normalised_once_more_at_each_map():
    interaction = TextInteraction(4, 6, 8, 2, 0.0).eval()
    interaction.layer_norm_k_1.weight.uniform_(0.5, 2)
    interaction.layer_norm_k_1.bias.normal_()
    pixels, text = torch.randn(1, 4, 2, 3), torch.randn(3, 6)
    third = interaction([pixels] * 3, text)[2]
    twice = interaction.layer_norm_k_1(interaction.layer_norm_k_1(text))
    torch.testing.assert_close(third, interaction([pixels], twice)[0])
    assert not torch.allclose(third, interaction([pixels], text)[0], atol=1e-3)


# --- decoder


def test_queries_look_inside_their_mask_and_everywhere_if_there_is_none():
    logits = torch.tensor([[[[3.0, -3.0], [3.0, -3.0]], [[-1.0, -1.0], [-1.0, -1.0]], [[0.0, 0.0], [0.0, -9.0]]]])
    assert outside(logits, (2, 2)).tolist() == [
        [[False, True, False, True], [False] * 4, [False, False, False, True]]
    ]  # exactly one half is inside


def test_masks_are_brought_to_the_level_before_they_are_cut():
    logits = torch.tensor([[[[5.0, -1.0, -9.0, -9.0]]]])
    assert outside(logits, (1, 2)).tolist() == [[[False, True]]]  # means 2 and -9


@torch.no_grad()
def test_a_blocked_cell_changes_nothing():
    torch.manual_seed(0)
    decoder = MaskDecoder(8, 6, 5, 7, queries=3, layers=1, heads=2, ffn=9).eval()
    levels = [torch.randn(1, 8, 2, 2) for _ in range(3)]
    features = torch.randn(1, 6, 4, 4)
    start = decoder(Pyramid(levels, features)).aux[0][1]
    blocked = outside(start, (2, 2))[0]
    query, cell = next((q, c) for q in range(3) for c in range(4) if blocked[q, c])
    changed = [levels[0].clone(), *levels[1:]]
    changed[0].flatten(2)[0, :, cell] += 5
    before = decoder.transformer_cross_attention_layers[0]
    queries, where = decoder.query_feat.weight[None], decoder.query_embed.weight[None]
    results = [
        before(queries, where, m[0].flatten(2).transpose(1, 2), torch.zeros(4, 8), blocked[None])
        for m in (levels, changed)
    ]
    assert results[0][0, query].equal(results[1][0, query])


@torch.no_grad()
def test_levels_take_turns_from_the_coarsest():
    torch.manual_seed(0)
    decoder = MaskDecoder(8, 6, 5, 7, queries=3, layers=4, heads=2, ffn=9).eval()
    levels, features = [torch.randn(1, 8, 2**i, 2**i) for i in (1, 2, 3)], torch.randn(1, 6, 8, 8)
    whole = decoder(Pyramid(levels, features))
    for level, first_changed in ((0, 1), (1, 2), (2, 3)):  # aux 0 is the bare queries
        changed = [m + 3 * torch.randn_like(m) if i == level else m for i, m in enumerate(levels)]
        found = [*decoder(Pyramid(changed, features)).aux, None]
        same = [found[i][0].equal(whole.aux[i][0]) for i in range(4)]
        assert same == [i < first_changed for i in range(4)]


def test_mlp_has_relu_between_and_none_at_the_end():
    mlp = Mlp([1, 1, 1])
    for layer in mlp.layers:
        nn.init.constant_(layer.weight, -1.0)
        nn.init.zeros_(layer.bias)
    assert mlp(torch.tensor([[2.0], [-2.0]])).flatten().tolist() == [0.0, -2.0]


# --- configuration and names


def test_sizes_are_read_back_from_shapes():
    config = small_config()
    state = small_generator().state_dict()
    known = {"interaction_heads": 2, "groups": 4, "backbone": config.backbone}
    assert GeneratorConfig.from_state_dict(state, **known).model_dump() == config.model_dump()


def test_older_name_of_the_queries_is_understood():
    state = small_generator().state_dict()
    old = {k.replace("predictor.query_feat", "predictor.static_query"): v for k, v in state.items()}
    old |= {"clip_adapter.x": torch.zeros(1), "IPCLIP.x": torch.zeros(1), "criterion.empty_weight": torch.zeros(1)}
    known = {"interaction_heads": 2, "groups": 4, "backbone": small_config().backbone}
    assert GeneratorConfig.from_state_dict(old, **known).queries == 7
    renamed = official_state(old)
    assert renamed.keys() == state.keys()


def test_an_entry_that_tells_a_size_is_named_where_it_is_missing():
    state = small_generator().state_dict()
    key = "sem_seg_head.pixel_decoder.mask_features.weight"
    with pytest.raises(KeyError, match="mask_features"):
        GeneratorConfig.from_state_dict({k: v for k, v in state.items() if k != key})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"heads": 3}, "width by heads"),
        ({"groups": 5}, "width by groups"),
        ({"width": 6, "heads": 1, "groups": 1}, "sine positions"),
        ({"interaction_heads": 3}, "interaction_width by interaction_heads"),
        ({"mask_width": 8}, "must equal width"),
        ({"hidden": 3}, "hidden"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        small_config(**settings)


def test_published_sizes_are_the_defaults():
    config = GeneratorConfig()
    assert (config.queries, config.decoder_layers, config.encoder_ffn, config.interaction_width) == (
        100,
        10,
        1024,
        2048,
    )
    assert config.backbone.blocks == (3, 4, 23, 3) and config.backbone.multi_grid == (1, 2, 4)


def test_pictures_lose_mean_and_deviation():
    picture = torch.tensor(IMAGE_MEAN)[:, None, None] + torch.tensor(IMAGE_STD)[:, None, None] * 2
    torch.testing.assert_close(normalise(picture, IMAGE_MEAN, IMAGE_STD), torch.full((3, 1, 1), 2.0))
    generator = small_generator(pixel_mean=(1, 2, 3), pixel_std=(1, 1, 2))
    assert generator.normalise(torch.full((3, 1, 1), 5, dtype=torch.uint8)).flatten().tolist() == [4.0, 3.0, 1.0]


def test_rounded_constants_of_a_checkpoint_are_noticed():
    exact = torch.tensor([122.7709383, 116.7460125, 104.09373615]).view(1, 3, 1, 1)
    key = "clip_adapter.pixel_mean"
    assert half_statistics({}) == {} and half_statistics({key: exact}) == {}
    rounded = half_statistics({key: exact.half().float()})
    assert rounded["pixel_mean"] == tuple(torch.tensor(IMAGE_MEAN).half().float().tolist())
    assert rounded["pixel_std"] == tuple(torch.tensor(IMAGE_STD).half().float().tolist())
    assert GeneratorConfig(**rounded).pixel_mean[0] == 123.6875
