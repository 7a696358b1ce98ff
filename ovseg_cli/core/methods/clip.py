"""CLIP, read densely: each patch token of the image tower is compared with the names as if it were the whole picture.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; the paper
itself classifies whole pictures. Trained: nothing. Frozen: everything.

This is the row that papers call "CLIP" or "raw CLIP" in tables of dense prediction: the last block of the ViT runs
unchanged, its patch tokens go through the last LayerNorm and the projection. The published numbers for it differ by
points between papers (pixelclip.md 10.3 collects 16.2 and 18.6 for VOC-21), with the resolution and prompts they use.
On a ConvNeXt tower it is PixelCLIP's baseline "without global pooling".
"""

from typing import ClassVar

from torch import Tensor

from ovseg_cli.core.clip.dense import PATHS
from ovseg_cli.core.clip.vit import LastBlock
from ovseg_cli.core.methods.dense import DenseConfig, DenseMethod


class ClipConfig(DenseConfig):
    """Settings of dense CLIP; all are shared ones."""


class Clip(DenseMethod):
    """Dense CLIP."""

    name: ClassVar[str] = "clip"
    title: ClassVar[str] = "CLIP"
    paper: ClassVar[str] = "Radford et al., ICML 2021, read densely"
    Config = ClipConfig
    config: ClipConfig

    def block(self, images: Tensor) -> LastBlock:
        """Return the last block as it is."""
        return PATHS["raw"]
