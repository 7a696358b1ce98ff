"""A frozen ViT with prompts: by hand with blocks that change nothing, against the straightforward form, at edges."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ovseg_cli.core.clip.prompted import PromptedTower, resize_bilinear
from ovseg_cli.core.errors import UsageError
from tests.core.clip.tiny import CONVNEXT, tiny_clip
from tests.core.methods.straight_one_stage import Straight

OTHER = {"image_size": 28, "layers": 2, "width": 48, "head_width": 12, "patch_size": 7}  # another patch, other heads


def make(clip, prompts=3, depth=-1, dropout=0.0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return PromptedTower(clip.visual, prompts, depth, dropout, **settings)


def straight(clip, own):
    weights = {f"prompted.{name}": value for name, value in own.state_dict().items()}
    return Straight(clip.visual, {**weights, "decoder.layers.0": torch.zeros(0)}, 1)


def pictures(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_what_enters_the_first_block_by_hand():
    clip = tiny_clip()
    visual, image = clip.visual, pictures(1, 3, 32, 32)
    visual.ln_pre = nn.Identity()
    own, place = visual.class_embedding, visual.positional_embedding
    patch = visual.conv1(image[:, :, 8:16, :8])[0, :, 0, 0]  # second row, first column of four: patch 4
    for twice, expected in ((True, 2 * own + place[0]), (False, own + place[0])):
        tokens, grid = make(clip, class_token_twice=twice).embed(visual, image)
        assert grid == (4, 4) and tokens.shape == (1, 17, 32)
        torch.testing.assert_close(tokens[0, 0], expected)
        torch.testing.assert_close(tokens[0, 1 + 4], patch + place[1 + 4])


@torch.no_grad()
def test_prompts_reach_features_through_attention_alone():
    """With blocks that add nothing, features are the embedded tokens behind two norms and the projection."""
    clip = tiny_clip()
    for block in clip.visual.transformer.resblocks:
        for last in (block.attn.out_proj, block.mlp.c_proj):
            last.weight.zero_()
            last.bias.zero_()
    own, image = make(clip), pictures(1, 3, 32, 32)
    tokens, _ = own.embed(clip.visual, image)
    expected = F.normalize(clip.visual.ln_post(own.prompt_norm(tokens)) @ clip.visual.proj, dim=-1)
    patches, picture = own(clip.visual, image)
    torch.testing.assert_close(picture, expected[:, 0])
    torch.testing.assert_close(patches.flatten(1, 2), expected[:, 1:])
    own.prompt_embeddings.add_(5)
    torch.testing.assert_close(own(clip.visual, image)[0], patches)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (32, 48), (64, 24)], ids=str)
@pytest.mark.parametrize("depth", [-1, 0, 1, 2])
def test_features_are_those_of_the_straightforward_form(depth, size):
    clip = tiny_clip(quick_gelu=True)
    own, images = make(clip, depth=depth), pictures(2, 3, *size)
    patches, picture = own(clip.visual, images)
    expected, expected_picture = straight(clip, own).encode(images)
    torch.testing.assert_close(patches.permute(0, 3, 1, 2), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(picture, expected_picture, atol=1e-5, rtol=1e-4)
    assert patches.shape == (2, size[0] // 8, size[1] // 8, 24)


def test_gradients_are_those_of_the_straightforward_form_and_clip_gets_none():
    clip = tiny_clip()
    own, images = make(clip), pictures(2, 3, 32, 40)
    patches, picture = own(clip.visual, images)
    (patches[..., 0].sum() + picture[:, 1].sum()).backward()
    model = straight(clip, own)
    model.weights = {name: value.clone().requires_grad_() for name, value in model.weights.items()}
    maps, one = model.encode(images)
    (maps[:, 0].sum() + one[:, 1].sum()).backward()
    for name, parameter in own.named_parameters():
        expected = model.weights[f"prompted.{name}"].grad
        torch.testing.assert_close(parameter.grad, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)
    assert not any(p.requires_grad or p.grad is not None for p in clip.parameters())


@torch.no_grad()
def test_any_plain_vit_and_any_size_work():
    clip = tiny_clip(OTHER)
    own = make(clip)
    assert own.depth == 1 and own.deep_prompt_embeddings.shape == (1, 3, 48)
    for height, width in ((28, 28), (20, 50), (7, 7), (1, 1), (3, 100)):
        patches, picture = own(clip.visual, pictures(1, 3, height, width))
        assert patches.shape == (1, max(1, height // 7), max(1, width // 7), 24) and picture.shape == (1, 24)
        torch.testing.assert_close(patches.norm(dim=-1), torch.ones(patches.shape[:-1]))


@torch.no_grad()
def test_a_rest_of_a_side_is_shrunk_into_the_grid():
    clip = tiny_clip()
    own, image = make(clip), pictures(1, 3, 35, 45)
    shrunk = F.interpolate(image, (32, 40), mode="bilinear", align_corners=False)
    torch.testing.assert_close(own(clip.visual, image)[0], own(clip.visual, shrunk)[0])


def test_weights_begin_as_in_the_code():
    clip = tiny_clip()
    own = PromptedTower(clip.visual, 500)
    bound = math.sqrt(6 / (3 * 8 * 8 + 32))
    for rows in (own.prompt_embeddings.detach(), own.deep_prompt_embeddings.detach()):
        assert float(rows.abs().max()) <= bound and float(rows.abs().max()) > 0.95 * bound
    assert own.prompt_proj.weight.detach().std().item() == pytest.approx(math.sqrt(2 / 32), rel=0.1)
    assert own.prompt_norm.eps == 1e-6 and bool((own.prompt_norm.weight == 1).all())


def test_depth_says_which_weights_there_are():
    clip = tiny_clip()
    assert make(clip, depth=-1).depth == 2
    shallow = make(clip, depth=0)
    assert shallow.state_dict().keys() == {"prompt_embeddings", "prompt_proj.weight", "prompt_proj.bias"}
    assert make(clip, depth=1).deep_prompt_embeddings.shape == (1, 3, 32)


@torch.no_grad()
def test_each_picture_drops_other_values_and_only_in_training():
    clip, images = tiny_clip(), pictures(1, 3, 32, 32).expand(2, -1, -1, -1)
    own = make(clip, dropout=0.5)
    patches, _ = own.train()(clip.visual, images)
    assert not torch.allclose(patches[0], patches[1])
    patches, _ = own.eval()(clip.visual, images)
    torch.testing.assert_close(patches[0], patches[1])


def test_a_position_table_on_its_own_grid_stays_and_a_constant_one_stays_constant():
    table = pictures(1 + 12, 5)
    assert resize_bilinear(table, (3, 4), (3, 4)) is table
    resized = resize_bilinear(torch.cat([table[:1], torch.full((12, 5), 7.0)]), (3, 4), (5, 2))
    assert resized[0].equal(table[0])
    torch.testing.assert_close(resized[1:], torch.full((10, 5), 7.0))


def test_a_tower_without_plain_blocks_is_refused():
    with pytest.raises(UsageError, match="takes no prompts") as caught:
        PromptedTower(tiny_clip(CONVNEXT).visual, 2)
    assert "plain ViT" in caught.value.mend


def test_more_depth_than_blocks_is_refused():
    with pytest.raises(UsageError, match=r"prompt_depth = 3: .* 3 blocks.* the 2 after the first") as caught:
        make(tiny_clip(), depth=3)
    assert "prompt_depth=2" in caught.value.mend


@torch.no_grad()
@pytest.mark.parametrize("depth", [-1, 0, 1])
def test_autocast_changes_rounding_alone(depth):
    clip = tiny_clip()
    own, images = make(clip, depth=depth), pictures(2, 3, 32, 32)
    expected, _ = own(clip.visual, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = own(clip.visual, images)
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0)
