"""Mask classification in both orders: tokens projected and then averaged, or averaged and then projected (FC-CLIP)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ovseg_cli.core.clip.inputs import normalise
from ovseg_cli.core.methods.clip import Clip, ClipConfig
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.tiny import CONVNEXT, VIT, tiny_clip
from tests.core.methods.test_contract import names, picture
from tests.core.methods.tiny_methods import tiny_method

TEXT = TextFeatures.of_classes(names(5))
DENSE = ("clip", "maskclip", "sclip", "clearclip", "naclip", "proxyclip", "pixelclip")
POOLINGS = ("features-up", "masks-down")
TOWERS = {"vit": VIT, "convnext": CONVNEXT}


def test_worked_by_hand(monkeypatch):
    """Two patches with tokens (2, -2, 0, 0) and (0, 0, 1, -1), and a mask of both.

    A LayerNorm brings both to one length, so that projected first they count alike: (1, -1, 1, -1), whose cosine with
    (1, -1, 0, 0) is 1/√2. Averaged first the longer one counts more: (2, -2, 1, -1), cosine 4/√20.
    """
    clip = tiny_clip({**VIT, "width": 4, "head_width": 4})
    with torch.no_grad():
        clip.visual.proj.copy_(torch.eye(4, clip.embed_dim))
    tokens = torch.tensor([[[[2.0, -2, 0, 0], [0, 0, 1, -1]]]])
    text = TextFeatures.of_classes(F.pad(torch.tensor([[1.0, -1, 0, 0]]) / 2**0.5, (0, clip.embed_dim - 4)))
    for first, expected in ((False, 0.5**0.5), (True, 4 / 20**0.5)):
        method = Clip(clip, ClipConfig(resize="none", pool_before_projection=first))
        monkeypatch.setattr(method, "tokens", lambda images: tokens)
        logits = method.classify_masks(picture(8, 16), torch.ones(1, 8, 16), text)
        assert float(logits) / clip.logit_scale == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def fc_clip(clip, image, masks):
    """FC-CLIP's order, as its code has it: masks to the grid, above one half, sums over sizes, head, cosine."""
    maps = unprojected(clip, normalise(image[None].float(), clip.mean, clip.std))
    small = F.interpolate(masks[None], maps.shape[-2:], mode="bilinear", align_corners=False)
    small = (small > 0.5).float()
    pooled = torch.einsum("bchw,bqhw->bqc", maps, small / (small.sum((2, 3), keepdim=True) + 1e-8))[0]
    return clip.logit_scale * F.normalize(projected(clip, pooled), dim=1) @ TEXT.features.T


def unprojected(clip, images):
    """Return (B, C, h, w), what reaches the last norm, by looking at it."""
    if hasattr(clip.visual, "trunk"):
        return clip.visual.trunk.forward_features(images)
    seen = []
    hook = clip.visual.ln_post.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    clip.dense(images)
    hook.remove()
    return seen[0].permute(0, 3, 1, 2)


def projected(clip, vectors):
    """Return (n, D) of (n, C): timm's head pools 1 × 1 maps and norms them."""
    visual = clip.visual
    if hasattr(visual, "trunk"):
        return visual.head(visual.trunk.head(vectors[:, :, None, None]))
    return visual.ln_post(vectors) @ visual.proj


@pytest.mark.parametrize("tower", TOWERS)
def test_masks_down_averaged_first_is_fc_clip(tower):
    clip = tiny_clip(TOWERS[tower])
    image = picture(96, 64)
    masks = F.interpolate((torch.rand(1, 6, 6, 4) > 0.4).float(), (96, 64))[0]
    config = ClipConfig(resize="none", mask_pooling="masks-down", pool_before_projection=True)
    logits = Clip(clip, config).classify_masks(image, masks, TEXT)
    torch.testing.assert_close(logits, fc_clip(clip, image, masks), atol=1e-3, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("size", [(64, 96), (70, 61)])
def test_features_up_averaged_first_equals_tokens_at_full_size(tower, size):
    """The short way (masks through the transposed up-sampling) against the one that holds all tokens at full size."""
    clip = tiny_clip(TOWERS[tower])
    method = Clip(clip, ClipConfig(side=64, pool_before_projection=True))
    image, masks = picture(*size), (torch.rand(4, *size) > 0.6).float() * torch.rand(4, *size)
    tokens = method.tokens(method.prepare(image)[None]).permute(0, 3, 1, 2)
    full = F.interpolate(tokens, size, mode="bilinear")[0]
    pooled = (full[None] * masks[:, None]).sum((2, 3)) / masks.sum((1, 2))[:, None]
    expected = clip.logit_scale * F.normalize(projected(clip, pooled), dim=1) @ TEXT.features.T
    torch.testing.assert_close(method.classify_masks(image, masks, TEXT), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("tower", TOWERS)
def test_empty_masks_and_no_masks(tower, pooling):
    clip = tiny_clip(TOWERS[tower])
    norm = clip.visual.ln_post if tower == "vit" else clip.visual.trunk.head.norm
    torch.nn.init.ones_(norm.bias)  # what the norm makes of no token at all
    method = Clip(clip, ClipConfig(mask_pooling=pooling, pool_before_projection=True))
    masks = torch.ones(3, 40, 56)
    masks[1] = 0
    logits = method.classify_masks(picture(40, 56), masks, TEXT)
    assert logits.isfinite().all() and float(logits[1].abs().max()) == 0 and float(logits[0].abs().max()) > 0
    assert method.classify_masks(picture(40, 56), masks[:0], TEXT).shape == (0, 5)


@pytest.fixture(scope="module")
def both_orders():
    """Each dense method, tokens projected first and averaged first, masks on the patch grid."""
    config = {"resize": "none", "mask_pooling": "masks-down"}
    return {n: [tiny_method(n, **config, pool_before_projection=first) for first in (False, True)] for n in DENSE}


@settings(max_examples=6, deadline=None)
@given(row=st.integers(0, 3), column=st.integers(0, 5), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", DENSE)
def test_a_mask_of_one_patch_has_the_same_scores_in_both_orders(both_orders, name, row, column, seed):
    image = torch.randint(256, (3, 32, 48), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    masks = torch.zeros(2, 32, 48)
    masks[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    masks[1] = 1
    after, before = (method.classify_masks(image, masks, TEXT) for method in both_orders[name])
    torch.testing.assert_close(after[0], before[0], atol=1e-3, rtol=1e-4)
    assert not torch.allclose(after[1], before[1], atol=1e-3)  # of all patches: the setting reaches the method


def test_every_dense_method_has_the_setting():
    from ovseg_cli.core import registry
    from ovseg_cli.core.methods.dense import DenseMethod

    classes = {name: entry.load() for name, entry in registry.METHODS.items()}
    dense = {name for name, found in classes.items() if issubclass(found, DenseMethod)}
    assert dense == set(DENSE)
    assert all("pool_before_projection" in classes[name].Config.model_fields for name in dense)
    assert all(classes[name].sources["pool_before_projection"].kind == "code" for name in dense)
