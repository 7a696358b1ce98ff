"""ClearCLIP: the last block without residual and MLP, whose attention compares queries with queries.

Paper: Lan, Chen, Ke, Wang, Feng, Zhang, "ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language
Inference", ECCV 2024. Trained: nothing. Frozen: everything.

    u = W_out · softmax(s q qᵀ) v + b_out, which goes straight to the last LayerNorm and the projection

Paper and code agree. The code reads OpenAI's weights through open_clip with QuickGELU, as we do.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from ovseg_cli.core.clip.vit import LastBlock, Similarities
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.last_block import LastBlockConfig, LastBlockMethod

_BLOCK = LastBlock(Similarities(("qq",)), residual="none", mlp=False)


class ClearClipConfig(LastBlockConfig):
    """Settings of ClearCLIP."""

    side: int = Field(
        default=448, ge=0, description="Length of the square or of the short side in pixels; 0 is the CLIP's own."
    )
    window: int = Field(
        default=448, ge=0, description="Side of a sliding window in pixels of the resized picture; 0 is none."
    )
    stride: int = Field(
        default=224, ge=0, description="Step of the sliding window in pixels; 0 is the window's own side."
    )
    softmax_scale: float = Field(
        default=50.0,
        ge=0,
        description="Multiplies cosines before the softmax of a background threshold; 0 is the CLIP's own logit scale.",
    )


class ClearClip(LastBlockMethod):
    """ClearCLIP."""

    name: ClassVar[str] = "clearclip"
    title: ClassVar[str] = "ClearCLIP"
    paper: ClassVar[str] = "Lan et al., ECCV 2024"
    name_variants: ClassVar[tuple[str, ...]] = ("clearclip", "proxyclip", "sclip")
    Config = ClearClipConfig
    config: ClearClipConfig
    sources: ClassVar[dict[str, Source]] = {
        **LastBlockMethod.sources,
        "side": Source("code", "ClearCLIP's configs, short side 448"),
        "window": Source("code", "ClearCLIP, slide_crop 448"),
        "stride": Source("code", "ClearCLIP, slide_stride 224"),
        "softmax_scale": Source("code", "ClearCLIP, logit_scale 50"),
    }

    def block(self, images: Tensor) -> LastBlock:
        """Return what the last block does for (B, 3, H, W) normalised images."""
        return _BLOCK
