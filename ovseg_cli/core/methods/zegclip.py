"""ZegCLIP: Towards Adapting CLIP for Zero-shot Semantic Segmentation (Zhou et al., CVPR 2023).

CLIP's two-stage uses name regions; ZegCLIP asks its patches directly. To be read beside section 3 of the paper:

1. *Deep prompt tuning*: CLIP is frozen, prompts enter every block (core/clip/prompted.py).
2. *Relationship descriptor*: q_c = W [g · t_c ; t_c] + b, so that a name's query knows the picture (nn/descriptors.py).
3. *Decoder*: three layers of attention to mask; a query's attention scores are its mask (nn/attention_masks.py).
4. *Non-mutually-exclusive loss*: each class is a binary mask of its own; focal and dice (nn/mask_class_losses.py).

Trained: prompts with their projection and norm, the descriptor, the decoder. Frozen: CLIP. The three settings and the
calibration by gamma are those of the family (methods/one_stage.py).

Queries never meet each other: a name's scores do not depend on which other names are asked, so names go through the
decoder in chunks of `ROWS_AT_ONCE`, with the same result.

Paper and code:
* The paper does not mention that the class embedding enters twice and that features leave through two LayerNorms; the
  released weights need both.
* Weight of the focal loss: 100 in the code of training, 20 in that of the cross-data-set evaluation, which trains
  nothing. The author named both when a user's COCO result was 7 points low.
* The decoder's layers begin as copies of one, as in the code.
* Pictures are normalised by ImageNet's statistics, as in the code.
* Names stand in 15 sentences, on VOC in one without a period, as in the code.
* Parts of the published decoder that have neither effect nor gradient (self-attention, the end of the last layer) are
  not built.
* Self-training starts from the end of an inductive run; the code starts from the middle of its schedule.
"""

from typing import ClassVar

import torch
from torch import Tensor

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.one_stage import (
    TRAINING_SOURCES,
    OneStageConfig,
    OneStageMethod,
    OneStageTraining,
    on_grid,
)
from ovseg_cli.core.nn.attention_masks import MaskDecoder, xavier
from ovseg_cli.core.nn.descriptors import Descriptor
from ovseg_cli.core.types import TextFeatures

ROWS_AT_ONCE = 256


class ZegClipConfig(OneStageConfig):
    """Settings of ZegCLIP; all are the family's."""


class ZegClipTraining(OneStageTraining):
    """How ZegCLIP is trained; all settings are the family's."""


class ZegClip(OneStageMethod):
    """ZegCLIP."""

    name = "zegclip"
    title = "ZegCLIP"
    paper = "Zhou et al., CVPR 2023"
    trains = "prompts and decoder, on seen classes"
    Config = ZegClipConfig
    Training = ZegClipTraining
    config: ZegClipConfig
    training_sources: ClassVar[dict[str, Source]] = {
        **TRAINING_SOURCES,
        "focal_weight": Source("code", "100 in training; 20 stands in files that train nothing"),
    }

    def __init__(self, clip: ClipModel, config: ZegClipConfig | None = None):
        super().__init__(clip, config)
        own, dim = self.config, clip.embed_dim
        self.descriptor = Descriptor(dim, own.descriptor)
        self.decoder = MaskDecoder(
            dim, own.decoder_layers, own.decoder_heads, own.decoder_ffn * dim, own.dropout, init=own.head_init
        )
        if own.head_init == "xavier":
            xavier(self.descriptor)
        self.eval()

    def mask_logits(self, images: Tensor, text: TextFeatures, is_plain: bool = False) -> tuple[Tensor, None]:
        """Return logits (B, M, h, w) of (B, 3, H, W) normalised images; there is no trust map."""
        patches, picture = self.prompted(self.clip.visual, images)
        memory, queries = patches.flatten(1, 2), self.descriptor(picture, text.features)
        chunks = [queries] if self.training else queries.split(ROWS_AT_ONCE, dim=1)
        return on_grid(torch.cat([self.decoder(chunk, memory) for chunk in chunks], dim=1), patches), None
