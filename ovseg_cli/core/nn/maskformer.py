"""MaskFormer's mask generator: ResNet, feature pyramid, DETR decoder. ZSSeg and ZegFormer stand on it.

Published: Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation", NeurIPS 2021. What
the two hosts change is the class head: an embedding of CLIP's width instead of class logits.
"""

from torch import Tensor, nn

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.nn.detr_decoder import DetrDecoder
from ovseg_cli.core.nn.fpn import FpnDecoder
from ovseg_cli.core.nn.generator_output import GeneratorOutput
from ovseg_cli.core.nn.maskformer_config import MaskFormerConfig
from ovseg_cli.core.nn.resnet import ResNet

STRIDE = 32
"""The canvas' sides are multiples of this."""


class MaskFormerGenerator(nn.Module):
    """Masks and their class embeddings, without names.

    Keys are those of the published checkpoints: `backbone.*`, `sem_seg_head.{pixel_decoder,predictor}.*`.

    Args:
        config: Sizes.
        embed_width: Width of the class embeddings where the sizes leave it open.
    """

    def __init__(self, config: MaskFormerConfig | None = None, embed_width: int = 512):
        super().__init__()
        self.config = config = config or MaskFormerConfig()
        self.backbone = ResNet(config.backbone)
        channels = config.backbone.channels
        self.sem_seg_head = nn.ModuleDict(
            {
                "pixel_decoder": FpnDecoder(channels, config.pyramid_width, config.mask_width, config.groups),
                "predictor": DetrDecoder(
                    channels[config.memory],
                    config.width,
                    config.mask_width,
                    config.embed_width or embed_width,
                    config.embed_hidden,
                    config.queries,
                    config.decoder_layers,
                    config.heads,
                    config.decoder_ffn,
                    config.dropout,
                ),
            }
        )

    def forward(self, images: Tensor) -> GeneratorOutput:
        """Propose masks.

        Args:
            images: (B, 3, H, W), normalised with ImageNet's mean and deviation; H and W multiples of 32.

        Returns:
            Embeddings (B, Q, D), mask logits (B, Q, H/4, W/4), and those of the earlier layers.

        Raises:
            ShapeError: The canvas is no multiple of 32.
        """
        if images.shape[-2] % STRIDE or images.shape[-1] % STRIDE:
            raise ShapeError(f"the canvas {tuple(images.shape)} must have a height and width that {STRIDE} divides")
        maps = self.backbone(images)
        mask_features = self.sem_seg_head["pixel_decoder"](maps)
        return self.sem_seg_head["predictor"](maps[self.config.memory], mask_features)
