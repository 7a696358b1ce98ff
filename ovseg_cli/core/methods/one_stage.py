"""What ZegCLIP and TagCLIP share: a prompted CLIP, a query for each name, a decoder that gives each query its mask.

One stage: no proposals, no region is named by itself. With v the patch features and g the picture's feature of the
prompted tower (clip/prompted.py), t the text rows, the descriptor's queries (nn/descriptors.py) go through the decoder
(nn/attention_masks.py), whose last masks are the logits of the names. Scores are sigmoids of the logits at full size,
from which `gamma` is subtracted where a class was seen; windows are averaged after that, as in both codes.

Settings of training:

* inductive: names and labels of seen classes alone; all other pixels are negatives of every seen class.
* transductive: a second training, from the weights of an inductive one. All names are known. Every step the model
  labels pixels by the best of the unseen names. *Honest*: all pixels without a seen label, since a label tells nobody
  whether such a pixel is of an unseen class or of none. *Starred*: those of unseen classes alone, whose place (not
  class) is read from the ground truth, as the starred rows of the papers do. No threshold and no teacher, as in the
  code; labels are made without dropout.
* supervised: all names, all labels.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.clip import inputs
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.prompted import PromptedTower
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.base import Source, check_masks
from ovseg_cli.core.methods.masked import IMAGENET_MEAN, IMAGENET_STD
from ovseg_cli.core.methods.trained import LabelView, TrainedMethod, freeze_except
from ovseg_cli.core.methods.training_config import Grey, TrainingConfig
from ovseg_cli.core.methods.windows import WindowConfig, WindowMethod, score_windows, windows_of
from ovseg_cli.core.nn.attention_masks import MaskDecoder
from ovseg_cli.core.nn.descriptors import Kind
from ovseg_cli.core.nn.mask_class_losses import mask_class_sums, present_pairs
from ovseg_cli.core.nn.sigmoid_planes import sigmoid_plane
from ovseg_cli.core.types import UNSEEN_PIXEL, Prediction, SigmoidPrediction, TextFeatures, TrainBatch

STRIP = 1 << 24  # scores of a picture that are pooled into masks at once


class OneStageConfig(WindowConfig):
    """Settings of both; the defaults are those of the codes on COCO-Stuff."""

    side: int = Field(default=512, ge=0, description="Length of the square or of the short side in pixels.")
    max_long_side: int = Field(
        default=16384, ge=1, description="Pictures are scaled down where the long side would exceed this (not squares)."
    )
    windows_per_batch: int = Field(
        default=4, ge=1, description="Windows or pictures of equal size that go through the encoder at once."
    )
    window: int = Field(
        default=512, ge=0, description="Side of a sliding window in pixels of the resized picture; 0 is none."
    )
    stride: int = Field(
        default=426, ge=0, description="Step of the sliding window in pixels; 0 is the window's own side."
    )
    statistics: Literal["imagenet", "clip"] = Field(
        default="imagenet", description="Mean and deviation that pictures are normalised with."
    )
    prompts: int = Field(default=100, ge=1, description="Learned tokens beside the patches.")
    prompt_depth: int = Field(
        default=-1, ge=-1, description="Blocks after the first with prompts of their own; -1 all, 0 only the input."
    )
    class_token_twice: bool = Field(
        default=True, description="The class embedding is added to the class token twice; released weights need it."
    )
    descriptor: Kind = Field(
        default="product", description="What a query is made from: text · picture beside text, both, or text alone."
    )
    decoder_layers: int = Field(default=3, ge=1, description="Layers of the decoder; the last gives the masks.")
    decoder_heads: int = Field(default=8, ge=1, description="Heads of every attention of the decoder.")
    decoder_ffn: int = Field(default=4, ge=1, description="Width of the decoder's feed-forward parts, in dimensions.")
    head_init: Literal["copies", "xavier"] = Field(
        default="copies",
        description="First weights of descriptor and decoder: torch's own, the same in every layer; or Xavier-uniform.",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Of prompts and decoder, in training.")
    gamma: float = Field(
        default=0.1, ge=0, le=1, description="Subtracted from the scores (0 to 1) of seen classes in every window."
    )
    across: Literal["plain", "calibrated"] = Field(
        default="plain",
        description="On names of another data set: as in the papers' tables, without gamma (and trust); or calibrated "
        "by the names that were seen.",
    )


class OneStageTraining(TrainingConfig):
    """How both are trained; the defaults are those of the codes on COCO-Stuff, inductive."""

    iterations: int = Field(default=80000, ge=1, description="Optimizer steps in all.")
    learning_rate: float = Field(default=2e-4, gt=0, description="Rate before the schedule's factor.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decay of all trained weights, norms too.")
    final_learning_rate: float = Field(default=0.005, ge=0, le=1, description="Share of the rate left at the end.")
    warmup: int = Field(default=1500, ge=0, description="Steps in which the rate rises linearly.")
    warmup_start: float = Field(default=1e-6, ge=0, le=1, description="Share of the rate at the start of the warm-up.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32", description="Arithmetic of the forward pass."
    )
    short_sides: tuple[int, ...] = Field(default=(512,), description="Short sides in pixels; each picture gets one.")
    train_long_side: int = Field(default=2048, ge=0, description="Largest long side of a picture; 0 is no limit.")
    scale_range: tuple[float, float] = Field(default=(0.5, 2.0), description="Random factor of both.")
    crop_size: int = Field(default=512, ge=0, description="Side in pixels of the random square that is cut out.")
    crop_max_share: float = Field(default=0.75, gt=0, le=1, description="Largest share of one class in a crop.")
    color_jitter: bool = Field(default=True, description="mmsegmentation's photometric distortion.")
    pad_value: Grey | tuple[Grey, Grey, Grey] = Field(
        default=(124, 116, 104), description="Colour around pictures; ImageNet's mean, which is 0 for the network."
    )
    setting: Literal["inductive", "transductive", "supervised"] = Field(
        default="inductive", description="Seen names alone; self-training on all names; or all names and labels."
    )
    self_training: Literal["honest", "starred"] = Field(
        default="honest",
        description="Transductive: label all pixels without a seen label, or only those of unseen classes, whose place "
        "is read from the ground truth.",
    )
    pseudo_threshold: float = Field(
        default=0.0, ge=0, lt=1, description="Transductive: pixels whose best unseen score is lower get no label."
    )
    init: str = Field(
        default="", description="Transductive: the inductive run to start from; none trains or finds one first."
    )
    focal_weight: float = Field(default=100.0, ge=0, description="Weight of the focal loss of the masks.")
    dice_weight: float = Field(default=1.0, ge=0, description="Weight of the dice loss of the masks.")

    @model_validator(mode="after")
    def _setting_fits(self) -> "OneStageTraining":
        if self.setting != "transductive":
            for name in ("self_training", "pseudo_threshold", "init"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} belongs to self-training; it needs setting=transductive")
        return self


METHOD_SOURCES: dict[str, Source] = {
    **WindowMethod.sources,
    "side": Source("code", "512, short side"),
    "max_long_side": Source("code", "the long side has no limit"),
    "window": Source("code", "512"),
    "stride": Source("code", "426"),
    "statistics": Source("code", "ImageNet's, not CLIP's"),
    "prompts": Source("code", "100 on COCO-Stuff, 10 on VOC"),
    "prompt_depth": Source("code", "11 of the 12 blocks"),
    "class_token_twice": Source("code", "a quirk; the paper does not mention it"),
    "descriptor": Source("paper", "relationship descriptor, [T · H ; T]"),
    "decoder_layers": Source("code", "3"),
    "decoder_heads": Source("code", "8"),
    "decoder_ffn": Source("code", "4 d"),
    "head_init": Source("code", "ZegCLIP: torch's own, layers are copies; TagCLIP: Xavier, each layer its own"),
    "dropout": Source("code", "0.1"),
    "gamma": Source("code", "0.1 in the inductive setting, none in the others"),
    "across": Source("code", "cross-data-set configurations"),
}
TRAINING_SOURCES: dict[str, Source] = {
    "optimizer": Source("code", "AdamW"),
    "betas": Source("code", "0.9, 0.999"),
    "iterations": Source("code", "80000 on COCO-Stuff, 20000 on VOC; transductive half of it"),
    "batch_size": Source("code", "4 GPUs of 4 pictures (ZegCLIP), 8 of 2 (TagCLIP)"),
    "learning_rate": Source("code", "2e-5 times 10 for every trained weight"),
    "weight_decay": Source("code", "0.01; the rule that spares norms never applies"),
    "schedule": Source("code", "poly, power 0.9, to 1e-6"),
    "final_learning_rate": Source("code", "1e-6 of 2e-4"),
    "warmup": Source("code", "1500 steps, linear"),
    "warmup_start": Source("code", "1e-6"),
    "clip_grad_norm": Source("code", "none"),
    "precision": Source("code", "float32"),
    "short_sides": Source("code", "fits into 2048 x 512 times a factor"),
    "train_long_side": Source("code", "2048 times the factor"),
    "scale_range": Source("code", "0.5 to 2"),
    "crop_size": Source("code", "512"),
    "crop_max_share": Source("code", "0.75"),
    "flip": Source("code", "one half"),
    "color_jitter": Source("code", "PhotoMetricDistortion"),
    "pad_value": Source("code", "0 after the normalisation"),
    "setting": Source("paper", "three settings"),
    "self_training": Source("paper", "'+ST' and starred rows; what tells them apart is inferred"),
    "pseudo_threshold": Source("code", "none"),
    "init": Source("code", "the half-way checkpoint of the inductive training"),
    "dice_weight": Source("code", "1"),
}


class OneStageMethod(WindowMethod, TrainedMethod):
    """A prompted CLIP with a decoder of masks.

    Attributes:
        prompted: Prompts of the image tower; the CLIP itself stays as it is.
        decoder: From queries and patches to masks.
        recipe: Settings of the training, from `parameter_groups` on.
    """

    Config = OneStageConfig
    Training = OneStageTraining
    config: OneStageConfig
    templates = "zegclip"
    templates_on: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(("voc-20", "voc-21"), ("a photo of a {}",))
    sources: ClassVar[dict[str, Source]] = METHOD_SOURCES
    training_sources: ClassVar[dict[str, Source]] = TRAINING_SOURCES

    descriptor: nn.Module
    decoder: MaskDecoder

    def __init__(self, clip: ClipModel, config: OneStageConfig | None = None):
        super().__init__(clip, config)
        own = self.config
        if clip.embed_dim % own.decoder_heads:
            raise UsageError(
                f"decoder_heads = {own.decoder_heads} does not divide the {clip.embed_dim} dimensions of {clip.name}.",
                "Choose a divisor: --set decoder_heads=4",
            )
        self.prompted = PromptedTower(clip.visual, own.prompts, own.prompt_depth, own.dropout, own.class_token_twice)
        self.recipe: OneStageTraining = self.Training()
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN) / 255, persistent=False)
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD) / 255, persistent=False)

    # What a method of this family says about itself

    @abstractmethod
    def mask_logits(self, images: Tensor, text: TextFeatures, is_plain: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return logits (B, M, h, w) of (B, 3, H, W) normalised images, and (B, h, w) of the trust map or None.

        Args:
            images: Any size.
            text: Features of M names.
            is_plain: Without what serves calibration alone (the papers' cross-data-set configurations).
        """

    def gate(self, seen: Tensor) -> Tensor | None:
        """Return which rows are weighted by the trust map, (M,) int8 as in `SigmoidPrediction`, or None."""
        return None

    @classmethod
    def label_view(cls, training: TrainingConfig) -> LabelView:
        """Say which names and labels each setting reads."""
        recipe = cast(OneStageTraining, training)
        if recipe.setting == "supervised":
            return LabelView("all", "all")
        if recipe.setting == "transductive":
            return LabelView("all", "seen", marks_unseen=recipe.self_training == "starred")
        return LabelView()

    @classmethod
    def implied(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Scores are calibrated in the inductive setting alone."""
        return {} if settings.get("setting", "inductive") == "inductive" else {"gamma": 0.0}

    @classmethod
    def first_step(cls, training: TrainingConfig) -> dict[str, Any] | None:
        """Self-training starts from an inductive run, which has none of its settings."""
        recipe = cast(OneStageTraining, training)
        if recipe.setting != "transductive" or recipe.init:
            return None
        return {"setting": "inductive", "self_training": "honest", "pseudo_threshold": 0.0}

    @classmethod
    def caveats(cls, training: Mapping[str, Any]) -> list[str]:
        """Say where the place of unseen classes was read."""
        if (training.get("setting"), training.get("self_training")) != ("transductive", "starred"):
            return []
        return ["Starred self-training: it read from the ground truth where unseen classes are, not which."]

    # Scoring

    @property
    def probability_scale(self) -> float:
        """Scores lie between 0 and 1: this makes a clear winner of ten names one of about 0.99 (ours)."""
        return 10.0

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], text: TextFeatures) -> list[Prediction]:
        """Score pictures against names.

        Args:
            images: Pictures of any size, each (3, H, W) uint8 RGB.
            text: Features of M names; `seen` and `at_home` decide about calibration (`across`).

        Returns:
            One prediction a picture, with the logits of its windows.
        """
        canvases = [self.prepare(image) for image in images]
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        return list(self.predict_canvases(canvases, sizes, text))

    @torch.no_grad()
    def predict_canvases(
        self, canvases: Sequence[Tensor], sizes: Sequence[tuple[int, int]], text: TextFeatures
    ) -> list[SigmoidPrediction]:
        """Score pictures that are resized and normalised already, each (3, H', W'); `sizes` are those of the maps."""
        text = text.to(self.clip.device)
        seen = self.seen_rows(text)
        boxes, grids = self.window_logits(canvases, text, is_plain=seen is None)
        gate = None if seen is None else self.gate(seen)
        penalty = None if seen is None or not self.config.gamma else self.config.gamma * seen.float()
        predictions = []
        for canvas, size, windows, logits in zip(canvases, sizes, boxes, grids, strict=True):
            rows, trust = logits[:, : len(text.features)], logits[:, -1] if gate is not None else None
            shape = (int(canvas.shape[-2]), int(canvas.shape[-1]))
            predictions.append(SigmoidPrediction(rows, windows, shape, size, penalty, trust, gate))
        return predictions

    def window_logits(
        self, canvases: Sequence[Tensor], text: TextFeatures, is_plain: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Score the windows of pictures.

        Args:
            canvases: Prepared pictures, each (3, H', W').
            text: Features of M names, on the CLIP's device.
            is_plain: Without what serves calibration alone.

        Returns:
            For each picture its windows (N, 4) and their logits (N, M, h, w); where there is a trust map it is a
            further row, the last.
        """
        self.check_text(text)
        boxes = [windows_of(canvas, self.config.window, self.config.stride) for canvas in canvases]

        def score(batch: Tensor) -> Tensor:
            logits, trust = self.mask_logits(batch, text, is_plain)
            return logits if trust is None else torch.cat([logits, trust[:, None]], dim=1)

        found = score_windows(canvases, boxes, self.config.windows_per_batch, score)
        return [torch.tensor(windows) for windows in boxes], [torch.stack(logits) for logits in found]

    @property
    def calibration(self) -> str | None:
        """Name what tells seen from unseen scores, as the settings are; None where nothing does."""
        return "gamma" if self.config.gamma else None

    def remark(self, text: TextFeatures) -> str | None:
        """Say where calibration is left out: the names are not those of the training, or nobody knows these."""
        if self.calibration is None or self.seen_rows(text) is not None:
            return None
        if text.seen is None:
            return (
                f"Nobody knows which names this {self.title} was trained on: scored without {self.calibration}; "
                "`ovseg convert --data` says it."
            )
        return (
            f"These are not the names that this {self.title} was trained on: scored without {self.calibration}, as the "
            "papers' tables across data sets are; --set across=calibrated takes the classes that were seen by name."
        )

    def seen_rows(self, text: TextFeatures) -> Tensor | None:
        """Return (M,) bool, the rows that calibration takes for seen; None where nothing is calibrated."""
        return text.seen if text.at_home or self.config.across == "calibrated" else None

    def prepare(self, image: Tensor) -> Tensor:
        """Resize and normalise one picture: (3, H, W) uint8 to (3, h, w) on the CLIP's device; see `resized`."""
        return self.normalise(self.resized(image, antialias=False))

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise (..., 3, H, W) of values 0 to 255 by the statistics that the settings name."""
        if self.config.statistics == "clip":
            return inputs.normalise(images, self.clip.mean, self.clip.std)
        return inputs.normalise(images, self.pixel_mean, self.pixel_std)  # type: ignore[arg-type]

    @torch.no_grad()
    def classify_masks(self, image: Tensor, masks: Tensor, text: TextFeatures) -> Tensor:
        """Score masks of one picture by the mean score of their pixels.

        Args:
            image: (3, H, W) uint8 RGB.
            masks: (N, H, W), 0 to 1.
            text: Features of M names.

        Returns:
            (N, M) logits of the mean scores. An empty mask gives a row of zeros.
        """
        check_masks(masks, image)
        height, width = int(image.shape[-2]), int(image.shape[-1])
        plane = sigmoid_plane(self.predict_canvases([self.prepare(image)], [(height, width)], text)[0], (height, width))
        masks = masks.to(self.clip.device).float()
        sums = masks.new_zeros(len(masks), plane.num_rows)
        step = max(1, STRIP // (width * plane.num_rows))
        for top in range(0, height, step):
            ys = (top, min(top + step, height))
            sums += masks[:, ys[0] : ys[1]].flatten(1) @ plane.block(ys, (0, width)).values().flatten(0, 1)
        areas = masks.sum((1, 2))[:, None]
        return torch.where(areas > 0, torch.logit(sums / areas.clamp_min(1e-6), eps=1e-6), 0.0)

    # Training

    def parameter_groups(self, training: TrainingConfig) -> list[dict[str, Any]]:
        """Return all weights but the CLIP's, in one group."""
        self.recipe = cast(OneStageTraining, training)
        own = [p for name, p in self.named_parameters() if not name.startswith("clip.")]
        freeze_except(self, own)
        return [{"params": own}]

    def train_mode(self) -> None:
        """Switch to training; the CLIP has no dropout and stays as it is."""
        self.train()
        self.clip.eval()

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        """Count the pairs of a picture and a class in it."""
        return {"pairs": float(present_pairs(batch["labels"]))}

    def losses(self, batch: TrainBatch, text: TextFeatures, totals: Mapping[str, float]) -> dict[str, Tensor]:
        """Return "focal" and "dice" of the masks, weighted.

        Args:
            batch: Pictures and labels of the training vocabulary.
            text: Features of the training vocabulary.
            totals: `normalisers` of all parts of the batch.
        """
        logits, trust = self.mask_logits(self.normalise(batch["images"].float()), text)
        return self.loss_terms(logits, trust, batch["labels"], text, max(totals["pairs"], 1.0))

    def loss_terms(
        self, logits: Tensor, trust: Tensor | None, labels: Tensor, text: TextFeatures, pairs: float
    ) -> dict[str, Tensor]:
        """Return the weighted terms of logits (B, M, h, w); labels (B, H, W), negative ones of no class."""
        focal, dice = mask_class_sums(by_class(logits, text), labels)
        return {"focal": self.recipe.focal_weight * focal / pairs, "dice": self.recipe.dice_weight * dice / pairs}

    @torch.no_grad()
    def own_labels(self, batch: TrainBatch, text: TextFeatures) -> Tensor | None:
        """Label pixels by the best of the unseen names (transductive); see the head of this file for which pixels."""
        if self.recipe.setting != "transductive":
            return None
        self.eval()
        device, labels = self.clip.device, batch["labels"]
        text = text.to(device)
        assert text.seen is not None, "the training vocabulary knows which of its names are seen"
        logits, _ = self.mask_logits(self.normalise(batch["images"].to(device).float()), text)
        unseen = (~text.seen).nonzero()[:, 0]
        size = (int(labels.shape[1]), int(labels.shape[2]))
        best, place = F.interpolate(logits[:, unseen].float(), size, mode="bilinear", align_corners=False).max(1)
        made = text.class_of_row[unseen][place].to(labels.device)
        open_pixels = self._open_pixels(batch) & (torch.sigmoid(best) >= self.recipe.pseudo_threshold).to(labels.device)
        return torch.where(open_pixels, made, labels)

    def _open_pixels(self, batch: TrainBatch) -> Tensor:
        """Return (B, H, W) bool, the pixels that may be given a label; never those outside a picture."""
        labels = batch["labels"]
        if self.recipe.self_training == "starred":
            return labels == UNSEEN_PIXEL
        height, width = (torch.arange(n, device=labels.device) for n in labels.shape[1:])
        areas = batch["areas"].to(labels.device)
        inside = (height[None, :, None] < areas[:, 0, None, None]) & (width[None, None] < areas[:, 1, None, None])
        return (labels < 0) & inside


def by_class(logits: Tensor, text: TextFeatures) -> Tensor:
    """Return (B, K, h, w) of (B, M, h, w): where several names of a class compete, the best one's logit."""
    if logits.shape[1] == text.num_classes:
        return logits
    rows = [(text.class_of_row == k).nonzero()[:, 0] for k in range(text.num_classes)]
    return torch.stack([logits[:, row].amax(1) for row in rows], dim=1)


def on_grid(masks: Tensor, patches: Tensor) -> Tensor:
    """Return masks (B, M, h·w) of patches (B, h, w, D) as maps (B, M, h, w)."""
    return masks.unflatten(-1, (int(patches.shape[1]), int(patches.shape[2])))
