"""PixelCLIP's inference: the two resizes of its published code, and its recorded scores on both backbones."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from ovseg_cli.core.clip.inputs import resize_bytes
from ovseg_cli.core.clip.tokenizer import NoTokenizer
from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.methods.pixelclip import PixelClip, PixelClipConfig
from ovseg_cli.core.types import TextFeatures
from tests.core.clip.parity_models import assert_close, load_recorded
from tests.core.clip.tiny import CONVNEXT, tiny_clip
from tests.core.methods.test_contract import names, picture

SMALL = {"prompts": 2, "prompt_length": 1, "prompt_templates": ("a {}",)}


def method_of(clip, **changes):
    return PixelClip(clip, PixelClipConfig(**{**SMALL, **changes}))


@pytest.fixture(scope="module")
def clip():
    return tiny_clip()


def by_pil(image, size):
    """Resize (3, H, W) uint8 as the published data loader does."""
    found = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(found).copy()).permute(2, 0, 1)


def shortest_edge(height, width, short, longest):
    """detectron2's ResizeShortestEdge."""
    scale = short / min(height, width)
    new = (short, scale * width) if height < width else (scale * height, short)
    if max(new) > longest:
        new = tuple(side * longest / max(new) for side in new)
    return tuple(int(side + 0.5) for side in new)


def test_two_steps_worked_by_hand(clip):
    """A column of 0 and 100 doubled by PIL is 0, 25, 75, 100; halved without averaging it is 12.5 and 87.5.

    In one step from 2 to 2 nothing would happen.
    """
    image = torch.tensor([0, 100], dtype=torch.uint8).view(1, 2, 1).expand(3, 2, 2)
    assert resize_bytes(image, (4, 2))[0, :, 0].tolist() == [0, 25, 75, 100]
    rows = resize_bytes(image, (4, 4)).float()
    assert F.interpolate(rows[None], (2, 2), mode="bilinear")[0, 0, :, 0].tolist() == [12.5, 87.5]
    big = torch.zeros(3, 16, 16, dtype=torch.uint8)
    big[:, 8:] = 100
    seen = [method_of(clip, side=16, first_short_side=first).prepare(big) for first in (0, 32)]
    grey = [values[0, :, 0] * clip.std[0] * 255 + clip.mean[0] * 255 for values in seen]
    assert grey[0].tolist() == pytest.approx([0.0] * 8 + [100.0] * 8, abs=1e-3)
    assert grey[1].tolist() == pytest.approx([0.0] * 7 + [12.5, 87.5] + [100.0] * 7, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 90), width=st.integers(1, 90), first=st.sampled_from([24, 64]), longest=st.integers(50, 99)
)
@example(height=51, width=68, first=64, longest=256)
@example(height=2, width=90, first=64, longest=80)
def test_two_steps_equal_the_published_ones_up_to_rounding(clip, height, width, first, longest):
    image = picture(height, width, seed=height * width)
    method = method_of(clip, side=32, first_short_side=first, max_long_side=longest)
    loaded = by_pil(image, shortest_edge(height, width, first, longest))
    values = (loaded.float() - 255 * clip.mean[:, None, None]) / (255 * clip.std[:, None, None])
    expected = F.interpolate(values[None], (32, 32), mode="bilinear", align_corners=False)[0]
    grey = (method.prepare(image) - expected).abs() * 255 * clip.std[:, None, None]
    assert float(grey.max()) <= 1.01  # PIL rounds some bytes the other way


@pytest.mark.parametrize(("size", "first"), [((96, 128), (160, 213)), ((213, 160), (96, 72)), ((60, 75), (60, 75))])
def test_nearly_all_bytes_are_those_of_pil(size, first):
    image = picture(*size)
    differ = (resize_bytes(image, first) != by_pil(image, first)).double()
    assert float(differ.mean()) <= 0.02 if size != first else not differ.any()


def test_pictures_whose_size_stays_go_in_at_once(clip):
    """Nothing is done to a picture that has its first size, nor where pictures are not resized."""
    image = picture(48, 96)
    for resize, first in (("square", 48), ("short-side", 48), ("none", 640)):
        once = method_of(clip, resize=resize, first_short_side=0).prepare(image)
        assert torch.equal(method_of(clip, resize=resize, first_short_side=first).prepare(image), once)


def test_what_is_no_picture_is_answered(clip):
    for wrong in (torch.zeros(3, 0, 8), torch.zeros(1, 8, 8), torch.zeros(8, 8)):
        with pytest.raises(ShapeError, match="a picture must be"):
            method_of(clip).predict([wrong.to(torch.uint8)], TextFeatures.of_classes(names(2)))


@pytest.mark.parametrize("vision", ["vit", "convnext"])
def test_encoder_sees_20_patches_and_features_go_to_64(vision):
    clip = tiny_clip(*([CONVNEXT] if vision == "convnext" else []))
    method = method_of(clip)
    assert method.prepare(picture(30, 50)).shape == (3, 20 * clip.patch_size, 20 * clip.patch_size)
    assert clip.patch_size == (32 if vision == "convnext" else 8)


@pytest.mark.parametrize("templates", ["select8", "single"])
@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_scores_match_the_recorded_ones(parity, kind, templates):
    """The recorded model was given the picture as the data loader hands it over: `first_short_side` is behind it."""
    recorded = load_recorded(parity, kind)
    recorded.clip.tokenizer = NoTokenizer(1, 1)  # what stands around the learned words is not read
    side, _ = recorded.config["clip_resolution"]
    method = method_of(recorded.clip, side=side, first_short_side=0)
    text = F.normalize(recorded.tensors[f"text.features_{templates}"].mean(1), dim=-1)
    size = tuple(recorded.config["test_output_hw"])
    image, expected = recorded.tensors["infer.image"], recorded.tensors[f"infer.sem_seg_{templates}"]
    assert_close(method.predict_scores([image], text, size)[0], expected)
    (prediction,) = method.predict([image], TextFeatures.of_classes(text))
    assert prediction.size == tuple(image.shape[-2:])


@pytest.mark.gpu
def test_pictures_on_a_gpu_get_the_same_bytes_up_to_rounding():
    image = picture(50, 70)
    for size in ((80, 112), (20, 28)):
        found = resize_bytes(image.cuda(), size)
        assert found.dtype == torch.uint8
        assert int((found.cpu().int() - by_pil(image, size).int()).abs().max()) <= 1
