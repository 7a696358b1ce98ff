"""ZSSeg: A Simple Baseline for Open-Vocabulary Semantic Segmentation (Xu et al., ECCV 2022).

Two stages, to be read beside section 3 of the paper:

1. *Masks.* MaskFormer proposes N = 100 masks, each with an embedding v.
2. *Names by MaskFormer.* Logits 100 · cos(v, t) with the text rows t_1 .. t_K of a frozen CLIP and one learned row
   more, "no object". Softmax, then "no object" is dropped: m.
3. *Names by CLIP.* Each mask is cut out by its tight box, the pixels around it painted in CLIP's mean colour, the crop
   resized to 224 x 224 (core/nn/region_crops.py); cosines with t, softmax: c.
4. *Both.* Seen classes m^l · c^(1-l), unseen ones m^(1-l) · c^l (core/nn/ensembles.py); score map: Σ_n score · mask.

Trained on seen classes only: MaskFormer (R-101c backbone, pyramid, decoder, heads) and the "no object" row. Frozen:
CLIP, both towers.

Paper and code:
* CLIP's opinion takes no part in "no object": it is dropped before CLIP's softmax, after MaskFormer's.
* Code, kept: a mask without a pixel above the threshold has c = 1; at l = 0 CLIP alone names all classes, where the
  formula would leave unseen ones to MaskFormer; without flags all classes count as unseen.
* The published zero-shot models read learned prompts (16 vectors before the name). Here texts are sentences, as in the
  code's "single", "imagenet" and "vild" configurations; "vild" is the default, as in its cross-dataset model.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.clip import inputs
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.masked import Candidates, Canvas
from ovseg_cli.core.methods.maskformer_host import MaskFormerHost, MaskFormerHostConfig
from ovseg_cli.core.nn.ensembles import clip_scores, geometric_scores, host_scores
from ovseg_cli.core.nn.region_crops import masked_crops
from ovseg_cli.core.types import TextFeatures


class ZSSegConfig(MaskFormerHostConfig):
    """Settings of ZSSeg; the defaults are those of its ResNet-101 model on COCO-Stuff."""

    ensemble: bool = Field(default=True, description="Combine MaskFormer's scores with CLIP's; off: its own alone.")
    ensemble_weight: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="MaskFormer's share in seen classes and CLIP's share in unseen ones; 0 leaves all to CLIP.",
    )
    mask_threshold: float = Field(
        default=0.5, ge=0, lt=1, description="A pixel belongs to a crop where the mask's probability is above this."
    )
    expand: float = Field(default=1.0, gt=0, description="Factor of a crop's width and height about its centre.")


class ZSSeg(MaskFormerHost):
    """MaskFormer compared with text, and CLIP on masked crops.

    Attributes:
        non_object_embedding: (1, D), the learned row "no object"; brought to unit length before use.
    """

    name = "zsseg"
    title = "ZSSeg"
    paper = "Xu et al., ECCV 2022"
    trains = "MaskFormer, on seen classes"
    templates = "vild"
    Config = ZSSegConfig
    config: ZSSegConfig
    sources: ClassVar[dict[str, Source]] = {
        **MaskFormerHost.sources,
        "generator": Source("code", "R-101c configurations: deeplab stem, res5 dilated by 1, 2, 4"),
        "ensemble": Source("code", "CLIP_ENSEMBLE true"),
        "ensemble_weight": Source("code", "0.8 on COCO-Stuff, 0.7 on VOC; across data sets 0.5 or 0.4"),
        "mask_threshold": Source("code", "MASK_THR 0.5; 0.4 across data sets"),
        "expand": Source("code", "MASK_EXPAND_RATIO 1.0"),
    }

    def __init__(self, clip: ClipModel, config: ZSSegConfig | None = None):
        super().__init__(clip, config)
        self.non_object_embedding = nn.Parameter(torch.randn(1, clip.embed_dim) * clip.embed_dim**-0.5)

    def text_rows(self, text: TextFeatures) -> Tensor:
        """Return (M + 1, D): the names, then "no object", all of unit length."""
        return torch.cat([text.features, F.normalize(self.non_object_embedding, dim=-1)])

    def score_candidates(self, canvas: Canvas, candidates: Candidates, text: TextFeatures) -> Tensor:
        """Return (N, M) class scores; masks that come without class logits are named by CLIP alone."""
        own = candidates.class_logits
        if own is not None and not self.config.ensemble:
            return host_scores(own)
        logits, valid = self.region_logits(canvas, candidates.masks, text)
        return clip_scores(logits, ~valid) if own is None else self.fuse(own, logits, text.seen, ~valid)

    def fuse(self, class_logits: Tensor, clip_logits: Tensor, seen: Tensor | None, empty: Tensor) -> Tensor:
        """Combine MaskFormer and CLIP (point 4 of the file's description); returns (N, M)."""
        return geometric_scores(class_logits, clip_logits, self.config.ensemble_weight, seen, empty)

    def region_logits(self, canvas: Canvas, masks: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        """Let CLIP name masked crops of the picture, the canvas' padding cut off: (N, M), and (N,) bool."""
        height, width = canvas.area
        crops, valid = masked_crops(
            inputs.normalise(canvas.image, self.clip.mean, self.clip.std),
            masks[:, :height, :width],
            self.region_side,
            threshold=self.config.mask_threshold,
            expand=self.config.expand,
        )
        logits = text.features.new_zeros(len(masks), len(text.features))
        logits[valid] = self.encode_regions(crops, text.features)
        return logits, valid
