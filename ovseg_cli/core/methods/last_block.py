"""What SCLIP, ClearCLIP, NACLIP and ProxyCLIP share: CLIP's last block changed, and SCLIP's recipe around it.

The recipe, which the later three took over with the code: the short side resized without averaging, windows that
overlap, each window's scores brought to its pixels and averaged, 80 sentences a name, classes with several names (the
best one counts), a softmax at a fixed scale, and background where its best probability is below a threshold. Each
data set's numbers ship as `preset.methods.NAME` in its spec, its names as a name variant.

Left out: SCLIP's `area_thd` (on VOC-21 it gives classes that cover less than a tenth of the foreground up), half
precision, and the padding of windows.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip import inputs
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.dense import DenseConfig, DenseMethod
from ovseg_cli.core.nn import pamr
from ovseg_cli.core.nn.label_maps import full_scores
from ovseg_cli.core.types import DensePrediction, WindowPrediction


class LastBlockConfig(DenseConfig):
    """Settings of methods that change CLIP's last block."""

    max_long_side: int = Field(
        default=2048, ge=1, description="Pictures are scaled down where the long side would exceed this (not squares)."
    )
    window: int = Field(
        default=224, ge=0, description="Side of a sliding window in pixels of the resized picture; 0 is none."
    )
    stride: int = Field(
        default=112, ge=0, description="Step of the sliding window in pixels; 0 is the window's own side."
    )
    antialias: bool = Field(
        default=False, description="Average over all pixels when shrinking a picture, as PIL does; off: bilinear only."
    )
    position: Literal["explicit", "scale-factor"] = Field(
        default="scale-factor",
        description="How a ViT's position table is resized: bicubic to the grid's size, or by a scale of (h+0.1)/side.",
    )
    softmax_scale: float = Field(
        default=40.0,
        ge=0,
        description="Multiplies cosines before the softmax of a background threshold; 0 is the CLIP's own logit scale.",
    )
    background_threshold: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Where the data has a background class: probability below which a pixel becomes background unless "
        "--background-threshold says otherwise; 0 is none.",
    )
    pamr_steps: int = Field(
        default=0, ge=0, description="Steps of pixel-adaptive mask refinement at the picture's own size; 0 is none."
    )
    pamr_dilations: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(8, 16), min_length=1, description="Distances of the neighbours in the refinement, in pixels."
    )


class LastBlockMethod(DenseMethod):
    """A method that changes the last block of CLIP's ViT and nothing else."""

    templates: ClassVar[str | None] = "imagenet"
    changes_attention: ClassVar[bool] = True
    Config = LastBlockConfig
    config: LastBlockConfig
    sources: ClassVar[dict[str, Source]] = {
        **DenseMethod.sources,
        "max_long_side": Source("code", "SCLIP's configs, Resize scale=(2048, 336)"),
        "window": Source("code", "SCLIP, slide_crop 224"),
        "stride": Source("code", "SCLIP, slide_stride 112"),
        "antialias": Source("code", "mmcv resizes bilinearly and does not average"),
        "position": Source("code", "bicubic by a scale of (h+0.1)/side, as DINO"),
        "softmax_scale": Source("code", "SCLIP, logit_scale 40"),
        "background_threshold": Source("code", "SCLIP, prob_thd 0; the data sets with background set it"),
        "pamr_steps": Source("code", "SCLIP, pamr_steps 0"),
        "pamr_dilations": Source("code", "SCLIP and NACLIP, pamr_stride (8, 16)"),
    }

    @property
    def background_threshold(self) -> float | None:
        """Probability below which a pixel becomes background where the user says nothing."""
        return self.config.background_threshold or None

    def _prediction(
        self, image: Tensor, canvas: Tensor, boxes: list[inputs.Box], grids: list[Tensor]
    ) -> DensePrediction | WindowPrediction:
        """Put a picture's windows together; with refinement, all scores at the picture's own size."""
        prediction = super()._prediction(image, canvas, boxes, grids)
        if not self.config.pamr_steps:
            return prediction
        colours = F.interpolate(canvas[None], prediction.size, mode="bilinear", align_corners=False)[0]
        scores = full_scores(prediction, prediction.size)
        refined = pamr.refine(colours, scores, self.config.pamr_steps, self.config.pamr_dilations)
        return DensePrediction(refined, prediction.size)
