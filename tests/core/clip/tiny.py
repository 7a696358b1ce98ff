"""A tiny random CLIP with a word tokenizer, made in milliseconds: ViT or ConvNeXt, any test may use it."""

import torch

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.tokenizer import WordTokenizer
from ovseg_cli.core.clip.towers import build_module

WORDS = ("a", "photo", "of", "the", "cat", "dog", "grass", "sky", "red", "toy")
VIT = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
CONVNEXT = {
    "timm_model_name": "convnext_base",
    "image_size": 64,
    "timm_model_kwargs": {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 24]},
}


def tiny_config(vision: dict = VIT, quick_gelu: bool = False, embed_dim: int = 24) -> dict:
    text = {"context_length": 12, "vocab_size": tiny_tokenizer().vocab_size, "width": 32, "heads": 2, "layers": 2}
    return {"embed_dim": embed_dim, "vision_cfg": dict(vision), "text_cfg": text, "quick_gelu": quick_gelu}


def tiny_tokenizer() -> WordTokenizer:
    return WordTokenizer(WORDS, context_length=12, reserve=16)


def tiny_clip(vision: dict = VIT, seed: int = 0, quick_gelu: bool = False) -> ClipModel:
    config = tiny_config(vision, quick_gelu)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build_module(config)
    return ClipModel(module, "tiny", config, tiny_tokenizer())
