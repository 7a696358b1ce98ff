"""A mask generator in FreeSeg's form, small enough for tests."""

import torch

from ovseg_cli.core.nn.generator import FreeSegGenerator
from ovseg_cli.core.nn.generator_config import GeneratorConfig
from ovseg_cli.core.nn.resnet_config import ResNetConfig

BACKBONE = ResNetConfig(blocks=(1, 1, 2, 2), stem_width=8, width=4, res2_width=16, multi_grid=(1, 2), norm="group-norm")


def small_config(**changes) -> GeneratorConfig:
    settings = {
        "backbone": BACKBONE,
        "width": 16,
        "mask_width": 16,
        "encoder_layers": 2,
        "encoder_ffn": 20,
        "heads": 2,
        "points": 4,
        "groups": 4,
        "interaction_width": 8,
        "interaction_heads": 2,
        "queries": 7,
        "decoder_layers": 3,
        "decoder_ffn": 24,
        "embed_width": 10,
        "embed_hidden": 14,
    }
    return GeneratorConfig(**{**settings, **changes})


def small_generator(seed: int = 0, **changes) -> FreeSegGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FreeSegGenerator(small_config(**changes)).eval()
