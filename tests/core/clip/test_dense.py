import pytest
import torch
from torch.nn import functional as F

from ovseg_cli.core.clip.dense import PATHS, fit_patches, tower_of
from ovseg_cli.core.clip.vit import LastBlock, Similarities, resize_positions
from ovseg_cli.core.errors import UsageError
from tests.core.clip.tiny import CONVNEXT, VIT, tiny_clip


def slow_attention(block, tokens, pair):
    """Softmax attention written out head by head, with no fused kernel."""
    y = block.ln_1(tokens)
    parts = dict(zip("qkv", F.linear(y, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1), strict=True))
    width = tokens.shape[-1] // block.attn.num_heads
    heads = []
    for h in range(block.attn.num_heads):
        a, b, v = (parts[name][..., h * width : (h + 1) * width] for name in (*pair, "v"))
        heads.append((a @ b.transpose(1, 2) / width**0.5).softmax(-1) @ v)
    return block.attn.out_proj(torch.cat(heads, -1))


def slow_dense(clip, images, pair="qk", residual=True, mlp=True):
    visual = clip.visual
    tokens = visual._embeds(images)
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    block = visual.transformer.resblocks[-1]
    out = slow_attention(block, tokens, pair) + (tokens if residual else 0)
    out = out + block.mlp(block.ln_2(out)) if mlp else out
    grid = [side // clip.patch_size for side in images.shape[-2:]]
    return (visual.ln_post(out[:, 1:]) @ visual.proj).unflatten(1, grid)


@pytest.fixture(scope="module", params=[False, True], ids=["gelu", "quickgelu"])
def vit(request):
    return tiny_clip(quick_gelu=request.param)


@torch.no_grad()
@pytest.mark.parametrize("pair", ["qk", "qq", "kk"])
@pytest.mark.parametrize(("residual", "mlp"), [(True, True), (False, False)])
def test_fused_path_equals_the_slow_one(vit, pair, residual, mlp):
    images = torch.randn(2, 3, vit.image_size, vit.image_size)
    block = LastBlock(Similarities((pair,)), residual="own" if residual else "none", mlp=mlp)
    expected = slow_dense(vit, images, pair, residual, mlp)
    torch.testing.assert_close(vit.dense(images, block), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_raw_path_is_the_model_itself(vit):
    images = torch.randn(2, 3, vit.image_size, vit.image_size)
    tokens = vit.visual.transformer(vit.visual._embeds(images))
    expected = vit.visual.ln_post(tokens[:, 1:]) @ vit.visual.proj
    torch.testing.assert_close(vit.dense(images).flatten(1, 2), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_value_paths_by_hand(vit):
    """Identity attention: one linear map a token, then the residual that each variant takes."""
    images = torch.randn(1, 3, vit.image_size, vit.image_size)
    visual, block = vit.visual, vit.visual.transformer.resblocks[-1]
    z = visual._embeds(images)
    for earlier in visual.transformer.resblocks[:-1]:
        z = earlier(z)
    width = z.shape[-1]
    value = F.linear(block.ln_1(z), block.attn.in_proj_weight[-width:], block.attn.in_proj_bias[-width:])
    value = block.attn.out_proj(value)
    own, cls = value + z, value + z[:, :1]
    for path, u in (("value", own), ("value-cls", cls), ("value-only", value)):
        u = u if path == "value-only" else u + block.mlp(block.ln_2(u))
        expected = visual.ln_post(u[:, 1:]) @ visual.proj
        torch.testing.assert_close(vit.dense(images, path).flatten(1, 2), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("vision", [VIT, CONVNEXT], ids=["vit", "convnext"])
@pytest.mark.parametrize("size", [(32, 64), (96, 32), (33, 71), (1, 40), (7, 300), (1, 1)])
@pytest.mark.parametrize("position", ["explicit", "scale-factor"])
def test_any_size_gives_one_feature_a_patch(vision, size, position):
    clip = tiny_clip(vision)
    dense = clip.dense(torch.randn(2, 3, *size), "raw", position)
    grid = tuple(max(1, side // clip.patch_size) for side in size)
    assert dense.shape == (2, *grid, clip.embed_dim)
    assert bool(dense.isfinite().all())


@torch.no_grad()
def test_a_rest_is_shrunk_and_not_cut_off():
    images = torch.zeros(1, 3, 40, 47)
    images[..., 40:] = 1  # the seven columns that a patch convolution would never see
    fitted = fit_patches(images, 8)
    assert fitted.shape[-2:] == (40, 40) and float(fitted[..., -1].mean()) == 1
    assert fit_patches(fitted, 8) is fitted


@torch.no_grad()
@pytest.mark.parametrize("vision", [VIT, CONVNEXT], ids=["vit", "convnext"])
def test_the_grid_has_the_orientation_of_the_picture(vision):
    """Rows and columns are not swapped: changing patch (0, 4) changes feature (0, 4) most."""
    clip = tiny_clip(vision)
    images = torch.zeros(1, 3, 2 * clip.patch_size, 6 * clip.patch_size)
    changed = images.clone()
    changed[..., : clip.patch_size, 4 * clip.patch_size : 5 * clip.patch_size] = 3.0  # patch (0, 4)
    block = LastBlock(residual="own") if vision is VIT else "raw"
    difference = (clip.dense(images, block) - clip.dense(changed, block)).abs().sum(-1)[0]
    assert difference.shape == (2, 6)
    assert int(difference.argmax()) == 4


def test_position_rules_agree_on_the_trained_grid_and_differ_elsewhere():
    table = torch.randn(1 + 16, 5)
    for rule in ("explicit", "scale-factor"):
        assert resize_positions(table, (4, 4), (4, 4), rule) is table
        resized = resize_positions(table, (4, 4), (3, 7), rule)
        assert resized.shape == (22, 5) and resized[0].equal(table[0])
    explicit, scaled = (resize_positions(table, (4, 4), (7, 7), r) for r in ("explicit", "scale-factor"))
    assert 1e-3 < float((explicit - scaled).abs().max()) < 1


def test_a_grid_of_equal_count_but_other_shape_is_still_resized():
    table = torch.randn(1 + 16, 5)
    assert not resize_positions(table, (4, 4), (2, 8), "explicit").equal(table)


@torch.no_grad()
def test_constant_positions_stay_constant_at_any_size():
    table = torch.full((1 + 16, 5), 0.5)
    resized = resize_positions(table, (4, 4), (5, 9), "explicit")
    torch.testing.assert_close(resized, torch.full((46, 5), 0.5))


def test_dense_features_have_gradients_for_training():
    clip = tiny_clip()
    clip.visual.requires_grad_(True)
    clip.dense(torch.randn(1, 3, 32, 32), "value-cls").sum().backward()
    last = clip.visual.transformer.resblocks[-1].attn.in_proj_weight.grad
    width = last.shape[1]
    assert float(last[: 2 * width].abs().max()) == 0  # queries and keys of the last block are unused
    assert float(last[2 * width :].abs().max()) > 0


def test_what_a_tower_cannot_do_is_refused():
    clip = tiny_clip(CONVNEXT)
    assert tower_of(clip.visual).kind == "convnext" and clip.patch_size == 32
    with pytest.raises(UsageError, match="no attention"):
        clip.dense(torch.zeros(1, 3, 64, 64), "value")
    with pytest.raises(UsageError, match="Did you mean 'value-cls'"):
        clip.dense(torch.zeros(1, 3, 64, 64), "value-clss")
    with pytest.raises(UsageError, match="position rule"):
        clip.dense(torch.zeros(1, 3, 64, 64), "raw", "bicubic")
    with pytest.raises(UsageError, match="no dense features"):
        resnet = tiny_clip({"image_size": 32, "layers": [1, 1, 1, 1], "width": 32})
        resnet.dense(torch.zeros(1, 3, 32, 32))


@torch.no_grad()
def test_whole_picture_feature_equals_open_clip_and_takes_any_size():
    clip = tiny_clip()
    images = torch.randn(2, 3, 32, 32)
    from ovseg_cli.core.clip.dense import pooled_features

    torch.testing.assert_close(
        pooled_features(clip.visual, images), clip.module.encode_image(images), atol=2e-5, rtol=0
    )
    assert clip.encode_image(torch.randn(2, 3, 40, 64)).shape == (2, clip.embed_dim)


def test_every_named_path_is_described():
    assert set(PATHS) == {"raw", "value", "value-cls", "value-only"}
