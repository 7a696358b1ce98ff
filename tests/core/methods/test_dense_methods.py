"""What the dense methods share: resizing, batches, windows, feature up-sampling, mask pooling."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from ovseg_cli.core.clip.inputs import normalise
from ovseg_cli.core.errors import ShapeError, UsageError
from ovseg_cli.core.methods.clip import Clip, ClipConfig
from ovseg_cli.core.methods.maskclip import MaskClip, MaskClipConfig
from ovseg_cli.core.nn.label_maps import full_scores
from ovseg_cli.core.types import DensePrediction, TextFeatures, WindowPrediction
from tests.core.clip.tiny import CONVNEXT, tiny_clip
from tests.core.methods.test_contract import names, picture

TEXT = TextFeatures.of_classes(names(5))


@pytest.fixture(scope="module")
def clip():
    return tiny_clip()


def test_default_short_side_is_one_and_a_half_image_sizes(clip):
    method = Clip(clip)
    assert clip.image_size == 32 and method.prepare(picture(64, 96)).shape == (3, 48, 72)
    assert method.predict([picture(64, 96)], TEXT)[0].logits.shape == (5, 6, 9)


def test_windows_are_cut_from_the_size_that_the_aspect_ratio_gives(clip):
    assert Clip(clip, ClipConfig(side=40, window=32)).prepare(picture(50, 75)).shape == (3, 40, 60)
    assert Clip(clip, ClipConfig(side=40)).prepare(picture(50, 75)).shape == (3, 40, 64)  # 7.5 patches


def test_own_size_gives_one_score_for_each_patch_of_the_picture(clip):
    method = Clip(clip, ClipConfig(resize="none"))
    assert method.predict([picture(96, 96)], TEXT)[0].logits.shape == (5, 12, 12)


@torch.no_grad()
def test_scores_are_the_cosines_of_features_and_names(clip):
    method = Clip(clip, ClipConfig(resize="none"))
    image = picture(32, 48)
    dense = clip.dense(normalise(image[None].float(), clip.mean, clip.std))
    expected = F.cosine_similarity(dense[0][None], TEXT.features[:, None, None], dim=-1)
    prediction = method.predict([image], TEXT)[0]
    assert isinstance(prediction, DensePrediction)
    torch.testing.assert_close(prediction.logits, expected, atol=1e-5, rtol=0)


def slow_windows(method, image, window, stride):
    """mmseg's way: scores of each window up-sampled and added to the canvas, then divided by the counts."""
    canvas = method.prepare(image)
    height, width = canvas.shape[-2:]
    total, count = torch.zeros(5, height, width), torch.zeros(height, width)
    for row in range(max(height - window + stride - 1, 0) // stride + 1):
        for column in range(max(width - window + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + window, height), min(column * stride + window, width)
            top, left = max(bottom - window, 0), max(right - window, 0)
            part = method.score(canvas[None, :, top:bottom, left:right], TEXT.features)
            total[:, top:bottom, left:right] += F.interpolate(part, (bottom - top, right - left), mode="bilinear")[0]
            count[top:bottom, left:right] += 1
    return F.interpolate((total / count)[None], image.shape[-2:], mode="bilinear")[0]


@torch.no_grad()
@pytest.mark.parametrize("size", [(60, 100), (33, 80), (20, 90)])
@pytest.mark.parametrize(("window", "stride"), [(32, 16), (24, 24), (32, 10)])
def test_windows_equal_the_plain_way(clip, size, window, stride):
    method = Clip(clip, ClipConfig(side=40, window=window, stride=stride, windows_per_batch=3))
    image = picture(*size)
    prediction = method.predict([image], TEXT)[0]
    assert isinstance(prediction, WindowPrediction)
    expected = slow_windows(method, image, window, stride)
    torch.testing.assert_close(full_scores(prediction, size), expected, atol=1e-5, rtol=1e-4)


def test_windows_of_several_pictures_share_batches(clip, monkeypatch):
    method = Clip(clip, ClipConfig(resize="none", window=32, stride=16, windows_per_batch=8))
    sizes = []
    monkeypatch.setattr(method, "features", lambda x: sizes.append(len(x)) or clip.dense(x))
    predictions = method.predict([picture(32, 64), picture(48, 48), picture(64, 32)], TEXT)
    assert sizes == [8, 2]  # 3 + 4 + 3 windows
    assert [len(p.boxes) for p in predictions] == [3, 4, 3]


def test_a_window_as_large_as_the_picture_equals_the_whole_picture(clip):
    whole = Clip(clip, ClipConfig(resize="none")).predict([picture(48, 64)], TEXT)[0]
    window = Clip(clip, ClipConfig(resize="none", window=64)).predict([picture(48, 64)], TEXT)[0]
    torch.testing.assert_close(window.logits[0], whole.logits)


def test_windows_without_a_gap_are_asked_for(clip):
    with pytest.raises(ValidationError, match="leaves gaps"):
        ClipConfig(window=32, stride=40)
    with pytest.raises(ValidationError, match="needs a window"):
        ClipConfig(stride=40)


@torch.no_grad()
def test_features_are_upsampled_before_they_are_normalised(clip):
    method = Clip(clip, ClipConfig(resize="none", upsample_features=11))
    canvas = method.prepare(picture(32, 48))[None]
    maps = F.interpolate(clip.dense(canvas).permute(0, 3, 1, 2), (11, 11), mode="bilinear")
    expected = F.cosine_similarity(maps[0][None], TEXT.features[:, :, None, None], dim=1)
    torch.testing.assert_close(method.predict([picture(32, 48)], TEXT)[0].logits, expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("size", [(40, 56), (30, 17)])
def test_pooling_masks_equals_pooling_upsampled_features(clip, size):
    """The short way (transposed up-sampling of the mask) against the one that holds all features at full size."""
    method = Clip(clip, ClipConfig())
    image, masks = picture(*size), (torch.rand(4, *size) > 0.6).float() * torch.rand(4, *size)
    maps = method.features(method.prepare(image)[None]).permute(0, 3, 1, 2)
    full = F.interpolate(maps, size, mode="bilinear")[0]
    pooled = (full[None] * masks[:, None]).sum((2, 3)) / masks.sum((1, 2))[:, None]
    expected = clip.logit_scale * F.normalize(pooled, dim=1) @ TEXT.features.T
    torch.testing.assert_close(method.classify_masks(image, masks, TEXT), expected, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_masks_down_averages_the_patches_of_the_binarised_mask(clip):
    method = Clip(clip, ClipConfig(resize="none", mask_pooling="masks-down"))
    image, masks = picture(32, 48), torch.zeros(2, 32, 48)
    masks[0, :20, :24] = 1  # the patches (0..1, 0..2), and exactly half of row 2, which is not more than half
    masks[1, 0, 0] = 1  # too small for any patch: an empty row
    features = method.features(method.prepare(image)[None])[0]
    expected = clip.logit_scale * F.normalize(features[:2, :3].mean((0, 1)), dim=0) @ TEXT.features.T
    logits = method.classify_masks(image, masks, TEXT)
    torch.testing.assert_close(logits[0], expected, atol=1e-3, rtol=1e-4)
    assert float(logits[1].abs().max()) == 0


def test_both_variants_of_maskclip_run_and_differ(clip):
    image = picture(40, 40)
    results = [
        MaskClip(clip, MaskClipConfig(variant=v)).predict([image], TEXT)[0].logits for v in ("original", "value-cls")
    ]
    raw = Clip(clip).predict([image], TEXT)[0].logits
    assert not torch.allclose(results[0], results[1], atol=1e-4)
    assert not torch.allclose(results[0], raw, atol=1e-4)


def test_what_does_not_fit_together_is_answered(clip):
    method = Clip(clip)
    with pytest.raises(ShapeError, match=r"\(5, 7\).*24 dimensions"):
        method.predict([picture(8, 8)], TextFeatures.of_classes(torch.ones(5, 7)))
    with pytest.raises(ShapeError, match=r"\(1, 8, 8\)"):
        method.predict([picture(8, 8)[:1]], TEXT)
    with pytest.raises(ShapeError, match="at least one pixel"):
        method.predict([torch.zeros(3, 0, 8, dtype=torch.uint8)], TEXT)
    with pytest.raises(ShapeError, match="differ in height or width"):
        method.classify_masks(picture(8, 8), torch.ones(1, 8, 9), TEXT)


def test_towers_are_refused_before_any_picture_is_read():
    convnext = tiny_clip(CONVNEXT)
    assert Clip(convnext).predict([picture(70, 50)], TEXT)[0].logits.shape[0] == 5
    with pytest.raises(UsageError, match="ConvNeXt image tower"):
        MaskClip(convnext)
    with pytest.raises(UsageError, match="no dense features"):
        Clip(tiny_clip({"image_size": 32, "layers": [1, 1, 1, 1], "width": 32}))
