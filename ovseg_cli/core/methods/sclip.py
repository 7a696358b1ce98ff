"""SCLIP: in the last attention, each token attends where its query is like other queries and its key like other keys.

Paper: Wang, Mei, Yuille, "SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference", ECCV 2024. Trained:
nothing. Frozen: everything.

    attention = softmax(s q qᵀ) + softmax(s k kᵀ), a sum: the weights of a token add up to 2; residual and MLP stay

Where paper and code disagree: the tables of the paper and of the repository differ by up to three points (VOC-21 59.1
and 59.6, COCO-Object 30.5 and 33.5); the recipes here are the repository's. Its `area_thd` on VOC-21 is not here.
"""

from typing import ClassVar

from torch import Tensor

from ovseg_cli.core.clip.vit import LastBlock, Similarities
from ovseg_cli.core.methods.last_block import LastBlockConfig, LastBlockMethod

_BLOCK = LastBlock(Similarities(("qq", "kk")))


class SclipConfig(LastBlockConfig):
    """Settings of SCLIP; all are shared ones."""


class Sclip(LastBlockMethod):
    """SCLIP."""

    name: ClassVar[str] = "sclip"
    title: ClassVar[str] = "SCLIP"
    paper: ClassVar[str] = "Wang et al., ECCV 2024"
    name_variants: ClassVar[tuple[str, ...]] = ("sclip",)
    Config = SclipConfig
    config: SclipConfig

    def block(self, images: Tensor) -> LastBlock:
        """Return what the last block does for (B, 3, H, W) normalised images."""
        return _BLOCK
