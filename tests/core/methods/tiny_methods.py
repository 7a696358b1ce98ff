"""Every registered method, small enough to be built and run in a test: random weights, a tiny CLIP, few masks."""

from typing import Any

from ovseg_cli.core import registry
from ovseg_cli.core.methods.base import Method
from ovseg_cli.core.methods.masked import SourceMethod
from ovseg_cli.core.methods.sources import GeneratorSource
from ovseg_cli.core.reporter import Silent
from tests.core.clip.tiny import tiny_clip

BACKBONE = {
    "blocks": [1, 1, 1, 1],
    "stem_width": 8,
    "width": 4,
    "res2_width": 16,
    "norm": "group-norm",
    "multi_grid": [1],
}
MASKFORMER = {
    "backbone": BACKBONE,
    "pyramid_width": 16,
    "groups": 4,
    "mask_width": 8,
    "width": 16,
    "queries": 6,
    "decoder_layers": 2,
    "decoder_ffn": 16,
    "heads": 2,
}
FREESEG = {
    "backbone": BACKBONE,
    "width": 16,
    "mask_width": 16,
    "encoder_layers": 1,
    "encoder_ffn": 16,
    "heads": 2,
    "groups": 4,
    "interaction_width": 16,
    "interaction_heads": 2,
    "queries": 6,
    "decoder_layers": 2,
    "decoder_ffn": 16,
}
WINDOWS = {"resize": "none", "window": 32, "stride": 16}
ONE_STAGE = {"resize": "none", "window": 0, "stride": 0, "prompts": 2, "decoder_heads": 4}
SETTINGS: dict[str, dict[str, Any]] = {
    "freeseg": {"resize": "none", "generator": FREESEG},
    "zsseg": {"resize": "none", "generator": MASKFORMER},
    "zegformer": {"resize": "none", "generator": MASKFORMER},
    "maft": {"resize": "none", "clip_side": 48},
    "ipclip": {"resize": "none", "clip_side": 48},
    "sclip": WINDOWS,
    "clearclip": WINDOWS,
    "naclip": WINDOWS,
    "proxyclip": {**WINDOWS, "proxy": "test_vit", "proxy_weights": "random"},
    "zegclip": ONE_STAGE,
    "tagclip": ONE_STAGE,
    "pixelclip": {"resize": "none", "prompts": 5, "prompt_length": 2},
}


def tiny_method(name: str, seed: int = 0, **settings: Any) -> Method:
    """Build a method by name; methods whose masks come from elsewhere get superpixels."""
    import torch

    method_class = registry.METHODS[name].load()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        method = method_class(tiny_clip(), method_class.Config(**{**SETTINGS.get(name, {}), **settings})).eval()
    if isinstance(method, SourceMethod):
        method.set_source(GeneratorSource.make("superpixels", {"max_masks": 8}, "cpu", Silent()))
    return method
