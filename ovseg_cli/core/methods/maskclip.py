"""MaskCLIP: each patch keeps its own value in the last attention, instead of a mix of all values.

Paper: Zhou, Loy, Dai, "Extract Free Dense Labels from CLIP", ECCV 2022. Trained: nothing. Frozen: everything.

Two forms are published under this name, and their numbers differ:
- `original`: the paper's code for ViT. Each token's residual is its own input; the block's MLP runs.
- `value-cls`: as CAT-Seg and PixelCLIP write it. Every token's residual is the class token's input; the MLP runs.

Where paper and code disagree: the paper describes the change for the attention pooling of a ResNet, where there is no
residual and no MLP; for ViT we follow the code. The released ViT config runs exact GELU and LayerNorm eps 1e-6 on
OpenAI's weights, which were trained with QuickGELU and 1e-5; we run what the weights were trained with, as the
repositories that compare with MaskCLIP do. Key smoothing and prompt denoising, options of the paper that are off in
the rows called MaskCLIP, are not here.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ovseg_cli.core.clip.dense import PATHS
from ovseg_cli.core.clip.vit import LastBlock
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.dense import DenseConfig, DenseMethod

_PATHS = {"original": "value", "value-cls": "value-cls"}


class MaskClipConfig(DenseConfig):
    """Settings of MaskCLIP."""

    variant: Literal["original", "value-cls"] = Field(
        default="original",
        description="Residual of the last block: each token's own (MaskCLIP's code), or the class token's (CAT-Seg).",
    )


class MaskClip(DenseMethod):
    """MaskCLIP."""

    name: ClassVar[str] = "maskclip"
    title: ClassVar[str] = "MaskCLIP"
    paper: ClassVar[str] = "Zhou et al., ECCV 2022"
    changes_attention: ClassVar[bool] = True
    Config = MaskClipConfig
    config: MaskClipConfig
    sources: ClassVar[dict[str, Source]] = {
        **DenseMethod.sources,
        "variant": Source("code", "MaskCLIP's ViT backbone with return_qkv; CAT-Seg's and PixelCLIP's clip model"),
    }

    def block(self, images: Tensor) -> LastBlock:
        """Return the last block in which each patch keeps its own value."""
        return PATHS[_PATHS[self.config.variant]]
