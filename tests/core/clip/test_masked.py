import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg_cli.core.clip.masked import (
    continue_prefix,
    kept_patches,
    masked_features,
    masked_from,
    patches_from,
    run_prefix,
    unmasked_from,
)
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.clip.vit import embed, project, run_blocks
from ovseg_cli.core.errors import ShapeError, UsageError
from tests.core.clip.one_sequence import one_sequence
from tests.core.clip.tiny import CONVNEXT, VIT, tiny_clip, tiny_config

DEPTH = VIT["layers"]


@pytest.fixture(scope="module")
def visual():
    return tiny_clip().visual.double()


def pictures(batch=1, size=(32, 48), seed=0):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(batch=1, count=5, size=(20, 28), seed=1):
    return torch.rand(batch, count, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_patches_one_block():
    """A tower of width 2, one head, one block whose parts are so simple that the answer can be worked out by hand."""
    vision = {"image_size": 1, "layers": 1, "width": 2, "head_width": 2, "patch_size": 1}
    text = {"context_length": 2, "vocab_size": 4, "width": 2, "heads": 1, "layers": 1}
    visual = build_module({"embed_dim": 2, "vision_cfg": vision, "text_cfg": text}).visual.double()
    for parameter in visual.parameters():
        torch.nn.init.zeros_(parameter)
    visual.conv1.weight.data[:, 0, 0, 0] = torch.tensor([1.0, -1.0])
    visual.class_embedding.data[:] = torch.tensor([0.0, 2.0])
    block = visual.transformer.resblocks[0]
    for norm in (visual.ln_pre, visual.ln_post, block.ln_1, block.ln_2):
        norm.weight.data.fill_(1.0)
        norm.eps = 0.0
    block.attn.in_proj_weight.data[4:] = torch.eye(2)  # v = y; q = k = 0, so all that is seen weighs the same
    block.attn.out_proj.weight.data[:] = torch.eye(2)
    visual.proj.data[:] = torch.eye(2)
    visual.ln_post = torch.nn.Identity()
    return visual


@torch.no_grad()
def test_two_patches_and_one_block_by_hand():
    # LayerNorm of two numbers is (±1, ∓1): class token (-1, 1), left patch (of value 3) (1, -1), right (of -5) (-1, 1)
    visual = two_patches_one_block()
    image = torch.tensor([[3.0, -5.0]], dtype=torch.float64).expand(1, 3, 1, 2).clone()
    image[:, 1:] = 0
    masks = torch.tensor([[[[1, 0]], [[0, 1]], [[1, 1]], [[0, 0]]]]).bool()
    out = masked_features(visual, image, masks, 0)[0]
    # own (-1, 1) plus the mean of itself and what it sees: left only -> mean 0; right only -> (-1, 1);
    # both -> (-1/3, 1/3); nothing -> itself, (-1, 1)
    expected = torch.tensor([[-1, 1], [-2, 2], [-4 / 3, 4 / 3], [-2, 2]], dtype=torch.float64)
    assert torch.allclose(out, expected, atol=1e-12)


def test_exactly_one_half_is_kept():
    masks = torch.tensor([0.5, 0.5 - 2**-20]).view(2, 1, 1).expand(2, 6, 6)
    assert kept_patches(masks, (3, 3)).flatten(1).all(1).tolist() == [True, False]


def test_mask_is_sampled_not_averaged():
    # 8 pixels to 2 cells: bilinear reads pixels 1, 2 and 5, 6 only; the mean of the first cell would be 3/4
    mask = torch.tensor([1.0, 0.4, 0.4, 1.0, 0.0, 1.0, 0.0, 0.0]).expand(1, 8, 8)
    assert kept_patches(mask, (2, 2))[0, 0].tolist() == [False, True]


def test_vanished_mask_keeps_its_best_cell_when_asked():
    masks = torch.zeros(3, 16, 16)
    masks[0, 0, 15] = 1.0  # a corner pixel that no sample reads
    masks[1] = 1.0
    grid = (4, 4)
    assert kept_patches(masks, grid).flatten(1).sum(1).tolist() == [0, 16, 0]
    kept = kept_patches(masks, grid, keep_best=True)
    assert kept.flatten(1).sum(1).tolist() == [1, 16, 0]  # an empty mask stays empty
    assert kept[0, 0, 3]


def test_threshold_is_a_choice():
    masks = torch.full((1, 4, 4), 0.3)
    assert not kept_patches(masks, (2, 2)).any()
    assert kept_patches(masks, (2, 2), threshold=0.25).all()


def test_whole_numbers_are_refused_as_masks():
    with pytest.raises(ShapeError, match="uint8"):
        kept_patches(torch.zeros(1, 4, 4, dtype=torch.uint8), (2, 2))


@torch.no_grad()
@pytest.mark.parametrize("start", range(DEPTH))
@pytest.mark.parametrize("size", [(32, 32), (40, 24), (8, 56), (45, 33)])
def test_equals_the_one_sequence_form(visual, start, size):
    images, masks = pictures(2, size), probabilities(2)
    reference = one_sequence(visual, images, masks, start)
    out = masked_features(visual, images, masks, start)
    assert torch.allclose(out, reference[:, : masks.shape[1]], atol=1e-12)
    patches = patches_from(visual, run_prefix(visual, images, start))
    assert torch.allclose(patches.flatten(1, 2), reference[:, masks.shape[1] :], atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize(
    "vision", [{**VIT, "ls_init_value": 0.1}, {**VIT, "no_ln_pre": True}, {**VIT, "mlp_ratio": 2.0}]
)
def test_other_plain_towers(vision):
    visual = tiny_clip(vision).visual.double()
    images, masks = pictures(), probabilities()
    reference = one_sequence(visual, images, masks, 1)[:, : masks.shape[1]]
    assert torch.allclose(masked_features(visual, images, masks, 1), reference, atol=1e-12)


@torch.no_grad()
def test_full_mask_gives_the_picture_feature_when_patches_ignore_the_class_token(visual):
    # in the last block only the class token is read, so a mask over all patches is plain CLIP there
    clip = tiny_clip()
    images = pictures(2).float()
    out = masked_features(clip.visual, images, torch.ones(2, 3, 4, 6), DEPTH - 1, position="explicit")
    assert torch.allclose(out, clip.encode_image(images)[:, None].expand(-1, 3, -1), atol=1e-5)


@torch.no_grad()
def test_unmasked_pass_is_plain_clip_wherever_it_is_cut(visual):
    images = pictures(2)
    tokens, grid = embed(visual, images, "align-corners")
    plain = project(visual, run_blocks(visual, tokens, 0, DEPTH))[:, 0]
    for start in range(DEPTH):
        assert torch.allclose(unmasked_from(visual, continue_prefix(visual, tokens, grid, start)), plain, atol=1e-12)


def test_shared_prefix_gives_the_gradients_of_separate_passes(visual):
    images, kept = pictures(2), kept_patches(probabilities(2), (4, 6))
    parameters = [p.requires_grad_() for p in visual.transformer.parameters()]

    def loss_of(first, second):
        return masked_from(visual, first, kept).square().sum() + unmasked_from(visual, second).sum()

    shared = run_prefix(visual, images, 2)
    together = torch.autograd.grad(loss_of(shared, shared), parameters)
    apart = torch.autograd.grad(loss_of(run_prefix(visual, images, 2), run_prefix(visual, images, 2)), parameters)
    visual.requires_grad_(False)
    for a, b in zip(together, apart, strict=True):
        assert torch.allclose(a, b, atol=1e-9, rtol=1e-9)


def test_masks_get_no_gradient(visual):
    masks = probabilities().requires_grad_()
    assert not masked_features(visual, pictures(), masks, 1).requires_grad


@torch.no_grad()
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_rows_follow_their_masks(data):
    """Permuted masks permute rows; a subset, padding rows, chunks and the rest of the batch change no row."""
    visual = tiny_clip().visual.double()
    start, count = data.draw(st.integers(0, DEPTH - 1)), data.draw(st.integers(1, 6))
    images, masks = pictures(2), probabilities(2, count, seed=data.draw(st.integers(0, 99)))
    whole = masked_features(visual, images, masks, start)
    order = data.draw(st.permutations(range(count)))
    rows = order[: data.draw(st.integers(1, count))]
    padded = torch.cat([masks[:1, rows], torch.zeros(1, data.draw(st.integers(0, 3)), *masks.shape[2:])], dim=1)
    out = masked_features(visual, images[:1], padded, start, chunk=data.draw(st.integers(1, 7)))
    assert torch.allclose(out[:, : len(rows)], whole[:1, rows], atol=1e-12)


@torch.no_grad()
def test_no_masks_and_one_mask(visual):
    images = pictures(2)
    assert masked_features(visual, images, probabilities(2, 0), 1).shape == (2, 0, 24)
    one = probabilities(2, 1)
    assert torch.equal(masked_features(visual, images, one[:, 0], 1), masked_features(visual, images, one, 1))


@torch.no_grad()
def test_masks_must_fit_the_pictures(visual):
    with pytest.raises(ShapeError, match="2 pictures"):
        masked_features(visual, pictures(2), probabilities(1), 1)


@pytest.mark.parametrize("start", [-1, DEPTH, DEPTH + 7])
def test_start_layer_must_exist(visual, start):
    with pytest.raises(UsageError, match=f"this CLIP has {DEPTH} blocks. Choose a block from 0 to {DEPTH - 1}"):
        masked_features(visual, pictures(), probabilities(), start)


@pytest.mark.parametrize("vision", [CONVNEXT, {**VIT, "pool_type": "avg"}])
def test_towers_without_a_class_token_are_refused(vision):
    config = tiny_config(vision)
    with pytest.raises(UsageError, match="class token of a plain ViT"):
        run_prefix(build_module(config).visual, pictures(), 0)
