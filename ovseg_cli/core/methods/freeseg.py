"""FreeSeg: Unified, Universal and Open-Vocabulary Image Segmentation (Qin et al., CVPR 2023), semantic segmentation.

Step 1 of two-stage open-vocabulary segmentation, and MAFT's default host. To be read beside section 3 of the paper:

1. *Masks.* A generator (core/nn/generator.py) proposes N = 100 masks, each with an embedding v. Its pixels read the
   class names before any mask is made (adaptive text interaction, section 3.3).
2. *Names by the host.* Host logits are 100 · cos(v, t) with the text rows t_1 .. t_K of a frozen CLIP and one learned
   row more, "no object". Softmax, then "no object" is dropped: m.
3. *Names by CLIP.* The picture inside each mask goes through the frozen CLIP, cosines with t, softmax: c.
4. *Both.* Seen classes m^l · c^(1-l), unseen ones m^(1-l) · c^l (core/nn/ensembles.py); score map: Σ_n score · mask.

Trained on seen classes only: the generator and the "no object" row. Frozen: CLIP, both towers; batch norms' statistics.
Loss (core/nn/mask_losses.py): queries are matched to one binary mask a class that is present; cross-entropy (no object
0.1), focal 20, dice 5, at every layer. Pixels without label, and so all pixels of unseen classes, lie in no mask: they
count as background of the masks, and their names never occur.

Paper and code:
* Paper: masks are cropped, filled and resized for CLIP (`scorer = "crops"`). The MAFT repository, which the released
  weights are used in, reads them in one pass of a CLIP whose class tokens are masked, not tuned ("masked-clip").
  Its frozen hosts crop the padding off the masks, not off the picture that CLIP reads, so that the two are shifted
  against each other where there is padding; kept, since its numbers are made so (`masks_on_canvas` mends it).
* Paper: learned task and class prompts, three tasks at once. MAFT repository, followed here: semantic segmentation
  with ViLD's 14 templates.
* The configuration names Mask2Former's point-sampled losses; the code builds MaskFormer's, on whole masks.
* Eleven predictions, ten loss weights: the prediction before the last is matched and dropped from the loss.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.clip import inputs
from ovseg_cli.core.clip.masked import check_start_layer, masked_features
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.methods.base import Source, check_masks
from ovseg_cli.core.methods.masked import Candidates, Canvas, MaskConfig, MaskMethod
from ovseg_cli.core.methods.trained import FAMILY_SOURCES, TrainedMethod
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.nn.ensembles import geometric_scores, host_scores
from ovseg_cli.core.nn.generator import STRIDE, FreeSegGenerator
from ovseg_cli.core.nn.generator_config import GeneratorConfig
from ovseg_cli.core.nn.host_training import generator_groups, pad_images, pad_labels
from ovseg_cli.core.nn.imagenet import load_backbone
from ovseg_cli.core.nn.mask_losses import LossWeights, class_logits, mask_losses, normalisers
from ovseg_cli.core.nn.matcher import MatchCost, Targets
from ovseg_cli.core.nn.region_crops import masked_crops
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.types import TextFeatures, TrainBatch


class FreeSegConfig(MaskConfig):
    """Settings of FreeSeg; the defaults are those of its ResNet-101 model on COCO-Stuff."""

    resize: Literal["square", "short-side", "none"] = Field(
        default="short-side", description="How a picture is brought to the generator."
    )
    side: int = Field(default=640, ge=0, description="Short side in pixels; 0 is 1.5 times the CLIP's image size.")
    generator: GeneratorConfig = Field(default=GeneratorConfig(), description="Sizes of the mask generator.")
    scorer: Literal["crops", "masked-clip"] = Field(
        default="crops",
        description="How CLIP reads a mask: cut out and filled, one picture a mask, or through masked class tokens.",
    )
    start_layer: int = Field(
        default=-1, ge=-1, description="First block in which masks hold (masked-clip); -1 is two thirds of the depth."
    )
    clip_side: int = Field(
        default=480,
        ge=0,
        description="Side in pixels of the square that masked-clip squashes the canvas to; 0 leaves it.",
    )
    keep_best: bool = Field(
        default=False,
        description="masked-clip: a mask too small for any patch keeps the one that it covers most.",
    )
    masks_on_canvas: bool = Field(
        default=False,
        description="masked-clip: masks cover the padded canvas, as the picture does; off: its unpadded part, which is "
        "then stretched.",
    )
    logit_scale: float = Field(default=0.0, ge=0, description="Multiplies CLIP's cosines; 0 is the CLIP's own scale.")
    host_scale: float = Field(default=100.0, gt=0, description="Multiplies the cosines of queries and names.")
    ensemble: bool = Field(default=True, description="Combine the host's scores with CLIP's; off: the host's alone.")
    ensemble_weight: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="The host's share in seen classes and CLIP's share in unseen ones; 0 leaves all to CLIP.",
    )
    mask_threshold: float = Field(
        default=0.5, ge=0, lt=1, description="A pixel belongs to a region where the mask's probability is above this."
    )


class FreeSegTraining(TrainingConfig):
    """How FreeSeg is trained; the defaults are those of COCO-Stuff, 32 pictures a step on 8 GPUs."""

    iterations: int = Field(default=60000, ge=1, description="Optimizer steps in all.")
    batch_size: int = Field(default=32, ge=1, description="Pictures in a step, over all processes together.")
    learning_rate: float = Field(default=1.5e-4, gt=0, description="Rate before the schedule's factor.")
    weight_decay: float = Field(default=1.5e-4, ge=0, description="Decay; norms and query embeddings have none.")
    backbone_rate: float = Field(default=0.1, ge=0, description="The backbone learns at this share of the rate.")
    clip_grad_norm: float = Field(default=0.01, ge=0, description="The norm of all gradients is cut to this.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32", description="Arithmetic of the forward pass."
    )
    backbone_weights: str = Field(
        default="imagenet",
        description="What the backbone begins with: imagenet, none, or a file with a ResNet of torchvision or timm.",
    )
    class_weight: float = Field(default=1.0, ge=0, description="Weight of the classification loss; and of its cost.")
    mask_weight: float = Field(default=20.0, ge=0, description="Weight of the focal mask loss; and of its cost.")
    dice_weight: float = Field(default=5.0, ge=0, description="Weight of the dice loss; and of its cost.")
    no_object_weight: float = Field(default=0.1, ge=0, description='Weight of "no object" in the classification loss.')
    short_sides: tuple[int, ...] = Field(
        default=tuple(range(320, 961, 64)), description="Short sides in pixels of which each picture gets one."
    )
    crop_size: int = Field(default=640, ge=0, description="Side in pixels of the random square that is cut out.")
    color_jitter: bool = Field(default=True, description="SSD's changes of colour.")

    def loss_weights(self) -> LossWeights:
        """Weights of losses and matching, which are the same numbers."""
        cost = MatchCost(self.class_weight, self.mask_weight, self.dice_weight)
        return LossWeights(self.class_weight, self.mask_weight, self.dice_weight, self.no_object_weight, cost)


class FreeSeg(MaskMethod, TrainedMethod):
    """Masks from a text-aware generator; names from its queries and from a frozen CLIP.

    Attributes:
        generator: The mask generator, trained.
        non_object_embedding: (1, D), the learned row "no object"; brought to unit length before use.
    """

    name = "freeseg"
    title = "FreeSeg"
    paper = "Qin et al., CVPR 2023"
    trains = "the mask generator, on seen classes"
    templates = "vild"
    Config = FreeSegConfig
    Training = FreeSegTraining
    config: FreeSegConfig
    sources: ClassVar[dict[str, Source]] = {
        **MaskMethod.sources,
        "resize": Source("code", "MAFT, test-time resize: short side 640, long side up to 2560"),
        "side": Source("code", "MAFT, MIN_SIZE_TEST 640"),
        "windows_per_batch": Source("ours", "crops that go through CLIP at once; changes speed and memory only"),
        "generator": Source("code", "FreeSeg and MAFT; encoder FFN 1024 and ten decoder layers are hard-coded there"),
        "scorer": Source("paper", "FreeSeg; the MAFT repository uses masked-clip for the same baseline"),
        "start_layer": Source("code", "MAFT, 8 of 12 for ViT-B/16; its authors name 16 of 24 for ViT-L/14"),
        "clip_side": Source("code", "MAFT, 480 x 480 hard-coded"),
        "keep_best": Source("code", "small masks vanish; the toy world's patches are too coarse for that"),
        "masks_on_canvas": Source("code", "MAFT repository, frozen hosts: masks are cropped, the picture is not"),
        "logit_scale": Source("code", "temperature 100, which is the scale of OpenAI's CLIPs"),
        "host_scale": Source("code", "temperature 100"),
        "ensemble": Source("code", "CLIP_ENSEMBLE true"),
        "ensemble_weight": Source("code", "0.8 on COCO, ADE20K and VOC; 0.4 across data sets"),
        "mask_threshold": Source("code", "MASK_THR 0.5"),
    }
    training_sources: ClassVar[dict[str, Source]] = {
        **FAMILY_SOURCES,
        "iterations": Source("code", "60k on COCO, 20k on VOC"),
        "batch_size": Source("code", "FreeSeg; MAFT's configuration says 2 where its base says 32"),
        "learning_rate": Source("code", "1.5e-4 on COCO; 2e-5 on VOC"),
        "weight_decay": Source("code", "1.5e-4 on COCO; 2e-5 on VOC; norms and embeddings none, as MaskFormer"),
        "backbone_rate": Source("code", "BACKBONE_MULTIPLIER 0.1"),
        "clip_grad_norm": Source("code", "full model, 0.01"),
        "schedule": Source("code", "poly, power 0.9"),
        "precision": Source("log", "float32"),
        "backbone_weights": Source("ours", "timm's net of the same form; the code has detectron2's R-103"),
        "class_weight": Source("code", "always 1; CLASS_WEIGHT in the configuration is ignored"),
        "mask_weight": Source("code", "MASK_WEIGHT 20"),
        "dice_weight": Source("code", "DICE_WEIGHT 5"),
        "no_object_weight": Source("code", "NO_OBJECT_WEIGHT 0.1"),
        "short_sides": Source("code", "320 to 960 in steps of 64"),
        "crop_size": Source("code", "640 on COCO; 512 on VOC"),
        "color_jitter": Source("code", "COLOR_AUG_SSD"),
    }

    def __init__(self, clip: ClipModel, config: FreeSegConfig | None = None):
        config = config or FreeSegConfig()
        if not config.generator.embed_width:
            generator = config.generator.model_copy(update={"embed_width": clip.embed_dim})
            config = config.model_copy(update={"generator": generator})
        super().__init__(clip, config)
        if config.generator.embed_width != clip.embed_dim:
            raise ShapeError(
                f"the generator's embed_width {config.generator.embed_width} and the CLIP's {clip.embed_dim} "
                "dimensions differ"
            )
        self.generator = FreeSegGenerator(config.generator)
        self.non_object_embedding = nn.Parameter(torch.randn(1, clip.embed_dim) * clip.embed_dim**-0.5)
        self.loss_weights = LossWeights()
        if config.scorer == "masked-clip":
            check_start_layer(clip.visual, self.start_layer)
        self.eval()

    @property
    def start_layer(self) -> int:
        """First block of CLIP in which masks hold."""
        if self.config.start_layer >= 0:
            return self.config.start_layer
        return len(self.clip.visual.transformer.resblocks) * 2 // 3

    @property
    def logit_scale(self) -> float:
        """Multiplies CLIP's cosines."""
        return self.config.logit_scale or self.clip.logit_scale

    def text_rows(self, text: TextFeatures) -> Tensor:
        """Return (M + 1, D): the names, then "no object", all of unit length."""
        return torch.cat([text.features, F.normalize(self.non_object_embedding, dim=-1)])

    def propose(self, canvases: Sequence[Canvas], text: TextFeatures) -> list[Candidates]:
        """Make the masks of canvases of one size: probabilities on the canvas, and the host's class logits."""
        config = self.config.generator
        rows = self.text_rows(text)
        output = self.generator(
            torch.stack([c.normalised(config.pixel_mean, config.pixel_std) for c in canvases]), rows
        )
        logits = class_logits(output.embeddings, rows, self.config.host_scale)
        masks = F.interpolate(output.mask_logits, canvases[0].size, mode="bilinear", align_corners=True).sigmoid()
        return [Candidates(*pair) for pair in zip(masks, logits, strict=True)]

    def score_candidates(self, canvas: Canvas, candidates: Candidates, text: TextFeatures) -> Tensor:
        """Return (N, M) class scores of masks that `propose` made."""
        logits = candidates.class_logits
        if logits is None:
            raise ShapeError("these masks come without class logits; FreeSeg scores only masks of its own generator")
        if not self.config.ensemble:
            return host_scores(logits)
        height, width = canvas.area
        empty = ~(candidates.masks[:, :height, :width] > self.config.mask_threshold).flatten(1).any(1)
        return self.fuse(logits, self.clip_logits(canvas, candidates.masks, text), text.seen, empty)

    def fuse(self, class_logits: Tensor, clip_logits: Tensor, seen: Tensor | None, empty: Tensor) -> Tensor:
        """Combine host and CLIP (point 4 of the file's description); returns (N, M)."""
        return geometric_scores(class_logits, clip_logits, self.config.ensemble_weight, seen, empty)

    def clip_logits(self, canvas: Canvas, masks: Tensor, text: TextFeatures) -> Tensor:
        """Return CLIP's scaled cosines (N, M) of masks (N, Hc, Wc) on the canvas; zeros for an empty crop."""
        read = self._masked_features if self.config.scorer == "masked-clip" else self._crop_features
        return self.logit_scale * F.normalize(read(canvas, masks), dim=-1) @ text.features.T

    def _masked_features(self, canvas: Canvas, masks: Tensor) -> Tensor:
        """Return (N, D): one pass over the whole canvas, squashed to a square, as the MAFT repository does."""
        if not self.config.masks_on_canvas:
            masks = masks[:, : canvas.area[0], : canvas.area[1]]
        image = canvas.normalised(self.clip.mean * 255, self.clip.std * 255)[None]
        if self.config.clip_side:
            image = F.interpolate(image, (self.config.clip_side,) * 2, mode="bilinear", align_corners=False)
        keep_best = self.config.keep_best
        return masked_features(self.clip.visual, image, masks[None], self.start_layer, keep_best=keep_best)[0]

    def _crop_features(self, canvas: Canvas, masks: Tensor) -> Tensor:
        """Return (N, D): one picture a mask, zeros where the mask is empty."""
        height, width = canvas.area
        image = inputs.normalise(canvas.image, self.clip.mean, self.clip.std)
        crops, valid = masked_crops(
            image,
            masks[:, :height, :width],
            self.clip.image_size,
            threshold=self.config.mask_threshold,
            align_corners=True,
        )
        features = image.new_zeros(len(masks), self.clip.embed_dim)
        if len(crops):
            parts = crops.split(self.config.windows_per_batch)
            features[valid] = torch.cat([self.clip.visual(part) for part in parts])
        return features

    @torch.no_grad()
    def classify_masks(self, image: Tensor, masks: Tensor, text: TextFeatures) -> Tensor:
        """Score masks of one picture by the frozen CLIP, as it scores the generator's.

        Args:
            image: (3, H, W) uint8 RGB.
            masks: (N, H, W), 0 to 1.
            text: Features of M names.

        Returns:
            (N, M) logits: scaled cosines; a mask without pixels gives a row of zeros.

        Raises:
            ShapeError: Masks and picture, or text and CLIP, do not fit together.
        """
        self.check_text(text)
        check_masks(masks, image)
        image = image.to(self.clip.device)
        canvas = Canvas(image.float(), (int(image.shape[-2]), int(image.shape[-1])), image)
        masks = masks.to(canvas.image)
        logits = self.clip_logits(canvas, masks, text.to(self.clip.device))
        return logits.masked_fill(~masks.flatten(1).any(1)[:, None], 0.0)

    def parameter_groups(self, training: TrainingConfig) -> list[dict[str, Any]]:
        """Return generator and "no object" row: the backbone slower, norms and query embeddings without decay."""
        assert isinstance(training, FreeSegTraining)
        self.loss_weights = training.loss_weights()
        self.clip.requires_grad_(False)
        self.generator.requires_grad_(True)
        self.non_object_embedding.requires_grad_(True)
        return generator_groups(
            self.generator,
            [self.non_object_embedding],
            training.learning_rate,
            training.weight_decay,
            training.backbone_rate,
        )

    def begin_training(self, training: TrainingConfig, reporter: Reporter) -> None:
        """Give the backbone its ImageNet weights.

        Raises:
            UsageError: There are none of its form.
            MachineError: They are not on this machine and cannot be downloaded.
        """
        assert isinstance(training, FreeSegTraining)
        load_backbone(self.generator.backbone, training.backbone_weights, reporter)

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        """Count masks and the weights of all queries."""
        return normalisers(batch["labels"], self.config.generator.queries, self.loss_weights.no_object)

    def losses(self, batch: TrainBatch, text: TextFeatures, totals: Mapping[str, float]) -> dict[str, Tensor]:
        """Return "ce", "mask" and "dice" of the last layer and, numbered, of the earlier ones.

        Args:
            batch: Pictures and labels of seen classes.
            text: Features of the seen classes.
            totals: `normalisers` of all parts of the batch.
        """
        images = pad_images(self.generator.normalise(batch["images"]), STRIDE)
        targets = [Targets.of_labels(one) for one in pad_labels(batch["labels"], STRIDE)]
        rows = self.text_rows(text)
        output = self.generator(images, rows)
        supervised = output.predictions()[:-1]  # the layer before the last has no loss weight
        return mask_losses(supervised, targets, rows, dict(totals), self.loss_weights, self.config.host_scale)

    def train_mode(self) -> None:
        """Switch the generator to training, its dropout with it; CLIP stays as it is."""
        self.eval()
        self.generator.train()
