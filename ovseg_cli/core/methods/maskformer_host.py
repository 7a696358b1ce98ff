"""What ZSSeg and ZegFormer share: MaskFormer, trained on seen classes, whose queries are compared with text.

"Step 1": set prediction with one binary mask a class that is present. Pixels without a seen label are in no mask, so
they act as background in the mask losses, as in both codes; names of unseen classes never occur.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.methods.base import Source, check_masks
from ovseg_cli.core.methods.masked import IMAGENET_MEAN, IMAGENET_STD, Candidates, Canvas, MaskConfig, MaskMethod
from ovseg_cli.core.methods.trained import FAMILY_SOURCES, TrainedMethod
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.nn.host_training import generator_groups, pad_images, pad_labels
from ovseg_cli.core.nn.imagenet import load_backbone
from ovseg_cli.core.nn.mask_losses import LossWeights, class_logits, mask_losses, normalisers
from ovseg_cli.core.nn.maskformer import STRIDE, MaskFormerGenerator
from ovseg_cli.core.nn.maskformer_config import MaskFormerConfig
from ovseg_cli.core.nn.matcher import MatchCost, Targets
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.types import TextFeatures, TrainBatch


class MaskFormerHostConfig(MaskConfig):
    """Settings of both hosts."""

    side: int = Field(
        default=640, ge=0, description="Short side of a picture in pixels; 0 is 1.5 times the CLIP's image size."
    )
    generator: MaskFormerConfig = Field(default=MaskFormerConfig(), description="Sizes of MaskFormer.")
    host_scale: float = Field(default=100.0, gt=0, description="Multiplies the cosines of queries and names.")
    logit_scale: float = Field(default=0.0, ge=0, description="Multiplies CLIP's cosines; 0 is the CLIP's own scale.")
    region_side: int = Field(
        default=0, ge=0, description="Side in pixels of the region pictures that CLIP reads; 0 is the CLIP's own."
    )


class MaskFormerHostTraining(TrainingConfig):
    """How both are trained; the defaults are those of COCO-Stuff, 32 pictures a step on 8 GPUs."""

    iterations: int = Field(default=60_000, ge=1, description="Optimizer steps in all.")
    batch_size: int = Field(default=32, ge=1, description="Pictures in a step, over all processes together.")
    backbone_rate: float = Field(default=0.1, gt=0, description="The backbone learns at this share of the rate.")
    clip_grad_norm: float = Field(default=0.01, ge=0, description="The norm of all gradients is cut to this.")
    backbone_weights: str = Field(
        default="imagenet",
        description="What the backbone begins with: imagenet, none, or a file with a ResNet of torchvision or timm.",
    )
    class_weight: float = Field(default=1.0, ge=0, description="Weight of the classification loss; and of its cost.")
    mask_weight: float = Field(default=20.0, ge=0, description="Weight of the focal mask loss; and of its cost.")
    dice_weight: float = Field(default=1.0, ge=0, description="Weight of the dice loss; and of its cost.")
    no_object_weight: float = Field(
        default=0.1, gt=0, le=1, description='Weight of "no object" in the classification loss.'
    )
    short_sides: tuple[int, ...] = Field(
        default=tuple(range(320, 961, 64)), description="Short sides in pixels of which each picture gets one."
    )
    crop_size: int = Field(default=640, ge=0, description="Side in pixels of the random square that is cut out.")
    color_jitter: bool = Field(default=True, description="SSD's changes of colour.")

    def loss_weights(self) -> LossWeights:
        """Weights of losses and matching, which are the same numbers."""
        cost = MatchCost(self.class_weight, self.mask_weight, self.dice_weight)
        return LossWeights(self.class_weight, self.mask_weight, self.dice_weight, self.no_object_weight, cost)


class MaskFormerHost(MaskMethod, TrainedMethod):
    """MaskFormer, which is trained, and a CLIP, which is not.

    Attributes:
        generator: MaskFormer; its class embeddings are as wide as the CLIP's.
        loss_weights: Those of the training run.
    """

    Config: ClassVar[type[MaskConfig]] = MaskFormerHostConfig
    config: MaskFormerHostConfig
    Training = MaskFormerHostTraining
    loss_weights: LossWeights = MaskFormerHostTraining().loss_weights()
    sources: ClassVar[dict[str, Source]] = {
        **MaskMethod.sources,
        "resize": Source("code", "test-time resize: short side 640 on COCO-Stuff, long side up to 2560"),
        "side": Source("code", "MIN_SIZE_TEST: 640 on COCO-Stuff, 512 on VOC and ADE20K"),
        "windows_per_batch": Source("ours", "regions that go through CLIP at once; changes speed and memory only"),
        "host_scale": Source("code", "temperature 100 in ZSSeg, 1 / 0.01 in ZegFormer"),
        "logit_scale": Source("code", "temperature 100 in ZSSeg, CLIP's own in ZegFormer: the same for OpenAI's CLIPs"),
        "region_side": Source("code", "224, the image size of ViT-B/16"),
    }
    training_sources: ClassVar[dict[str, Source]] = {
        **FAMILY_SOURCES,
        "iterations": Source("code", "MAX_ITER: COCO-Stuff 60k in both"),
        "batch_size": Source("code", "IMS_PER_BATCH: COCO-Stuff 32 in both"),
        "learning_rate": Source("code", "BASE_LR 1e-4"),
        "weight_decay": Source("code", "1e-4; norms and query embeddings none, as MaskFormer"),
        "backbone_rate": Source("code", "BACKBONE_MULTIPLIER 0.1"),
        "backbone_weights": Source("ours", "timm's nets of the same form; the codes have detectron2's R-103 and R-101"),
        "clip_grad_norm": Source("code", "full model, 0.01"),
        "schedule": Source("code", "poly, power 0.9, no warm-up"),
        "class_weight": Source("code", "always 1"),
        "mask_weight": Source("code", "MASK_WEIGHT 20"),
        "dice_weight": Source("code", "DICE_WEIGHT 1"),
        "no_object_weight": Source("code", "NO_OBJECT_WEIGHT 0.1"),
        "short_sides": Source("code", "320 to 960 in steps of 64 on COCO-Stuff"),
        "crop_size": Source("code", "640 on COCO-Stuff; 512 on VOC"),
        "color_jitter": Source("code", "COLOR_AUG_SSD"),
    }

    def __init__(self, clip: ClipModel, config: MaskFormerHostConfig | None = None):
        super().__init__(clip, config)
        sizes = self.config.generator
        if sizes.embed_width not in (0, clip.embed_dim):
            raise ShapeError(
                f"generator: an embed_width of {sizes.embed_width} and the CLIP's {clip.embed_dim} dimensions differ."
            )
        self.generator = MaskFormerGenerator(sizes, clip.embed_dim)

    @abstractmethod
    def text_rows(self, text: TextFeatures) -> Tensor:
        """Return (M + 1, D): what the queries are compared with, "no object" last."""

    @abstractmethod
    def region_logits(self, canvas: Canvas, masks: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        """Let CLIP name the regions of masks (N, Hc, Wc), probabilities on the padded canvas.

        Returns:
            (N, M) logits, zeros where a mask has no region; (N,) bool, which masks have one.
        """

    # --- masks and names

    def propose(self, canvases: Sequence[Canvas], text: TextFeatures) -> list[Candidates]:
        """Make the masks of canvases of one size, all Q of each, with MaskFormer's own class logits."""
        rows = self.text_rows(text)
        output = self.generator(torch.stack([c.normalised(IMAGENET_MEAN, IMAGENET_STD) for c in canvases]))
        logits = class_logits(output.embeddings, rows, self.config.host_scale)
        masks = F.interpolate(output.mask_logits, canvases[0].size, mode="bilinear", align_corners=False).sigmoid()
        return [Candidates(*pair) for pair in zip(masks, logits, strict=True)]

    @torch.no_grad()
    def classify_masks(self, image: Tensor, masks: Tensor, text: TextFeatures) -> Tensor:
        """Score masks of one picture by the frozen CLIP, as it scores MaskFormer's.

        Args:
            image: (3, H, W) uint8 RGB.
            masks: (N, H, W), 0 to 1.
            text: Features of M names.

        Returns:
            (N, M) logits: scaled cosines; zeros where a mask is empty or has no region.

        Raises:
            ShapeError: Masks and picture, or text and CLIP, do not fit together.
        """
        self.check_text(text)
        check_masks(masks, image)
        image = image.to(self.clip.device)
        canvas = Canvas(image.float(), (int(image.shape[-2]), int(image.shape[-1])), image)
        masks = masks.to(canvas.image)
        logits, valid = self.region_logits(canvas, masks, text.to(self.clip.device))
        return logits * (valid & masks.flatten(1).any(1))[:, None]

    @property
    def region_side(self) -> int:
        """Side of the region pictures in pixels."""
        return self.config.region_side or self.clip.image_size

    def encode_regions(self, regions: Tensor, rows: Tensor) -> Tensor:
        """Return CLIP's scaled cosines (n, M) of region pictures (n, 3, side, side) and text rows (M, D)."""
        if not len(regions):
            return rows.new_zeros(0, len(rows))
        parts = regions.split(self.config.windows_per_batch)
        features = torch.cat([self.clip.encode_image(part) for part in parts])
        return (self.config.logit_scale or self.clip.logit_scale) * F.normalize(features, dim=-1) @ rows.T

    # --- training

    def parameter_groups(self, training: TrainingConfig) -> list[dict[str, Any]]:
        """Return everything but the CLIP: the backbone slower, norms and query embeddings without decay."""
        assert isinstance(training, MaskFormerHostTraining)
        self.loss_weights = training.loss_weights()
        self.requires_grad_(True)
        self.clip.requires_grad_(False)
        beside = list(self.parameters(recurse=False))
        return generator_groups(
            self.generator, beside, training.learning_rate, training.weight_decay, training.backbone_rate
        )

    def begin_training(self, training: TrainingConfig, reporter: Reporter) -> None:
        """Give the backbone its ImageNet weights.

        Raises:
            UsageError: There are none of its form.
            MachineError: They are not on this machine and cannot be downloaded.
        """
        assert isinstance(training, MaskFormerHostTraining)
        load_backbone(self.generator.backbone, training.backbone_weights, reporter)

    def train_mode(self) -> None:
        """Switch MaskFormer to training, its dropout with it; CLIP stays as it is."""
        self.eval()
        self.generator.train()

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        """Count masks, and the class weights of all queries."""
        return normalisers(batch["labels"], self.config.generator.queries, self.loss_weights.no_object)

    def losses(self, batch: TrainBatch, text: TextFeatures, totals: Mapping[str, float]) -> dict[str, Tensor]:
        """Return "ce", "mask" and "dice" of the last layer and, numbered, of the earlier ones.

        Args:
            batch: Pictures and labels of seen classes.
            text: Features of the seen classes.
            totals: `normalisers` of all parts of the batch.
        """
        images = pad_images(self._normalised(batch["images"]), STRIDE)
        targets = [Targets.of_labels(one) for one in pad_labels(batch["labels"], STRIDE)]
        rows = self.text_rows(text)
        output = self.generator(images)
        return mask_losses(output.predictions(), targets, rows, dict(totals), self.loss_weights, self.config.host_scale)

    def _normalised(self, pictures: Tensor) -> Tensor:
        """Return (B, 3, H, W) float32 by ImageNet's mean and deviation, of uint8 pictures."""
        mean, std = (torch.tensor(v, device=pictures.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return (pictures.float() - mean) / std
