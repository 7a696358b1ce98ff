"""ZegFormer: Decoupling Zero-Shot Semantic Segmentation (Ding et al., CVPR 2022).

Grouping pixels needs no names; naming groups does. To be read beside section 3 of the paper:

1. *Groups.* MaskFormer makes N = 100 masks, each with an embedding v (one linear layer from the query).
2. *Names by MaskFormer.* Logits 100 · cos(v, t) with the text rows t_1 .. t_K of a frozen CLIP, and 100 · v · b with a
   learned background vector b, v at unit length. Softmax, then the background is dropped: m.
3. *Names by CLIP.* The picture inside each mask, cropped to its box, goes through CLIP (core/nn/region_crops.py);
   cosines with text under other sentences, the background logit of step 2 beside them, softmax, dropped again: c.
4. *Both.* Seen classes m^l · s^(1-l), s the mean of c over seen classes; unseen ones m^(1-l) · c^l; l = 2/3
   (core/nn/ensembles.py). Score map: Σ_n score · mask, minus 0.1 for seen classes (calibration).

Trained on seen classes only: MaskFormer (R-101 backbone with the plain stem, pyramid, decoder, heads) and b. Frozen:
CLIP, both towers.

Paper and code:
* Code, kept: b is not brought to unit length. Boxes end at the last pixel's index, not one after it, and a box without
  area becomes the whole canvas. Regions are cut from the padded canvas. Empty masks are named like others.
* Code, kept: CLIP reads 32 sentences (many say "masked" or "cropped"), the queries 8 ("imagenet-select") or "single",
  in the VOC configurations and in COCO-Stuff's evaluation, although its training read 8.
* Not kept: CLIP in half precision. Where a class has several names, the code averages all name × sentence features at
  once; here names are averaged first, then sentences (core/clip/text.py).
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.masked import Candidates, Canvas
from ovseg_cli.core.methods.maskformer_host import MaskFormerHost, MaskFormerHostConfig
from ovseg_cli.core.nn.ensembles import host_scores, zegformer_scores
from ovseg_cli.core.nn.maskformer_config import ZegFormerSizes
from ovseg_cli.core.nn.region_crops import zegformer_regions
from ovseg_cli.core.types import TextFeatures


class ZegFormerConfig(MaskFormerHostConfig):
    """Settings of ZegFormer; the defaults are those of its ResNet-101 model on COCO-Stuff."""

    generator: ZegFormerSizes = Field(default=ZegFormerSizes(), description="Sizes of MaskFormer.")
    ensemble: bool = Field(default=True, description="Combine MaskFormer's scores with CLIP's; off: its own alone.")
    fusion: Literal["seen_unseen", "all", "none"] = Field(
        default="seen_unseen",
        description="How scores are combined: by seen and unseen, alike in all classes, or CLIP's alone.",
    )
    ensemble_weight: float = Field(
        default=2 / 3, ge=0, le=1, description="MaskFormer's share in seen classes and CLIP's share in unseen ones."
    )
    region_style: Literal["cropmask", "mask", "crop"] = Field(
        default="cropmask", description="What CLIP sees of a mask: masked and cropped, masked, or cropped."
    )
    seen_penalty: float = Field(
        default=0.1, ge=0, description="Taken from the scores of seen classes before the arg-max (calibration)."
    )


class ZegFormer(MaskFormerHost):
    """MaskFormer compared with text, and CLIP on masked regions.

    Attributes:
        background: (1, D), the learned background vector, used at its own length.
    """

    name = "zegformer"
    title = "ZegFormer"
    paper = "Ding et al., CVPR 2022"
    trains = "MaskFormer, on seen classes"
    templates = "imagenet-select"
    extra_templates: ClassVar[dict[str, str]] = {"region": "zegformer-regions"}
    Config = ZegFormerConfig
    config: ZegFormerConfig
    sources: ClassVar[dict[str, Source]] = {
        **MaskFormerHost.sources,
        "generator": Source("code", "R-101 configurations: plain stem, no dilation, one linear class layer"),
        "ensemble": Source("code", "CLIP_CLASSIFICATION true"),
        "fusion": Source("code", "ENSEMBLING; `all` is ENSEMBLING_ALL_CLS"),
        "ensemble_weight": Source("code", "lambda_balance, 2/3"),
        "region_style": Source("code", "CLIP_CLS_STYLE cropmask"),
        "seen_penalty": Source("code", "GZERO_CALIBRATE: 0.1 on COCO-Stuff and VOC, 0 on ADE20K-Full"),
    }

    def __init__(self, clip: ClipModel, config: ZegFormerConfig | None = None):
        super().__init__(clip, config)
        self.background = nn.Parameter(torch.empty(1, clip.embed_dim))
        nn.init.kaiming_uniform_(self.background, a=math.sqrt(5))

    @property
    def seen_penalty(self) -> float:
        """Subtracted from the scores of seen classes where the user says nothing."""
        return self.config.seen_penalty

    def text_rows(self, text: TextFeatures) -> Tensor:
        """Return (M + 1, D): the names at unit length, then the background vector at its own."""
        return torch.cat([text.features, self.background])

    def score_candidates(self, canvas: Canvas, candidates: Candidates, text: TextFeatures) -> Tensor:
        """Return (N, M) class scores; masks that come without class logits are named by CLIP alone."""
        own = candidates.class_logits
        if own is not None and not self.config.ensemble:
            return host_scores(own)
        logits, valid = self.region_logits(canvas, candidates.masks, text)
        return logits.softmax(-1) if own is None else self.fuse(own, logits, text.seen, ~valid)

    def fuse(self, class_logits: Tensor, clip_logits: Tensor, seen: Tensor | None, empty: Tensor) -> Tensor:
        """Combine MaskFormer and CLIP (point 4 of the file's description), empty masks too; returns (N, M)."""
        return zegformer_scores(class_logits, clip_logits, self.config.fusion, seen, self.config.ensemble_weight)

    def region_logits(self, canvas: Canvas, masks: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        """Let CLIP name regions of the padded canvas, with the text for regions: (N, M), and (N,) bool, all True."""
        image = canvas.normalised(255 * self.clip.mean, 255 * self.clip.std)
        regions = zegformer_regions(image, masks, self.region_side, self.config.region_style)
        logits = self.encode_regions(regions, text.extra.get("region", text.features))
        return logits, torch.ones(len(masks), dtype=torch.bool, device=masks.device)
