"""Whole pictures through `clip` and `maskclip` against PixelCLIP's own test-time path."""

import pytest
from torch.nn import functional as F

from ovseg_cli.core.methods.clip import Clip, ClipConfig
from ovseg_cli.core.methods.maskclip import MaskClip, MaskClipConfig
from tests.core.clip.parity_models import assert_close, load_recorded

GRID = 64  # pixelclip.md section 5: features go to 64 x 64 before they are normalised


@pytest.mark.parametrize("templates", ["select8", "single"])
@pytest.mark.parametrize("kind", ["vit", "conv"])
def test_scores_at_output_size_match_pixelclip(parity, kind, templates):
    recorded = load_recorded(parity, kind)
    height, width = recorded.config["clip_resolution"]
    assert height == width
    settings = {"resize": "square", "side": height, "antialias": False, "upsample_features": GRID}
    if kind == "vit":
        method = MaskClip(recorded.clip, MaskClipConfig(variant="value-cls", **settings))
    else:
        method = Clip(recorded.clip, ClipConfig(**settings))
    text = F.normalize(recorded.tensors[f"text.features_{templates}"].mean(1), dim=-1)
    size = tuple(recorded.config["test_output_hw"])
    scores = method.predict_scores([recorded.tensors["infer.image"]], text, size)
    assert_close(scores[0], recorded.tensors[f"infer.sem_seg_{templates}"])
