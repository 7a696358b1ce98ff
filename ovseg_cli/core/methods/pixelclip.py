"""PixelCLIP: Towards Open-Vocabulary Semantic Segmentation Without Semantic Labels (Shin et al., NeurIPS 2024).

CLIP's image tower learns pixels from masks that have no names, to be read beside section 3:

1. *Masks* of a vision foundation model: SAM's (any cached proposals), or k-means of DINO tokens of the crop itself
   (`proposals = live`).
2. *Learnable class prompts.* k "names" of l vectors each go through the frozen text encoder (nn/class_prompts.py).
3. *Semantic clustering.* A momentum copy of the image tower sees the weak view; its features are averaged over each
   mask; Sinkhorn-Knopp over the masks of the whole global batch assigns each to one of the k names (nn/sinkhorn.py).
   A name's target is the union of its masks.
4. *Prediction.* The tower sees the strong view; its cosines with the names pass, map by map, a small decoder
   (nn/map_decoder.py) and are compared with the targets by binary cross-entropy, on pixels in a mask alone.
5. *Inference.* The tuned image tower and ordinary names: cosines of dense features. Nothing else is kept.

Trained: the ViT's attention and positions, or all of a ConvNeXt; prompts; decoder. Frozen: the rest, the text encoder.
No label and no class name is read (`class_names = data` reads names, still no label).

Paper and code:
* Rate of the prompts: 2e-5 in the paper, 2e-3 in the code, which made the released weights (`prompt_rate`).
* The code's Sinkhorn starts from a softmax, the paper's from an exponential: after three rounds they differ.
* Several processes: the code averages the processes' means, ours is the mean over the whole batch; the code fails where
  a process has no mask. A picture without masks adds nothing; a name that nobody is near stays empty.
* The code, with several training sentences, replaces wrong words in all but the first; ours replaces the right ones.
* Pictures smaller than 64 pixels are cut at inference by the code; here they are not.
* The prompts' first words are drawn from seed 0 whatever the seed of a run, as in the code.
* Live clusters end at the picture's edge; the code clusters the padding of small pictures too. Blur is Pillow's.
* Paper, Table 5: without clustering. Not in the code; here each mask is a name of its own: its target is itself, its
  feature that of the momentum copy.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_cli.core.clip import inputs
from ovseg_cli.core.clip.dense import PATHS, dense_features, tower_of
from ovseg_cli.core.clip.masked import check_start_layer, kept_patches, masked_from, run_prefix
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.prompts import resolve_templates
from ovseg_cli.core.clip.vit import LastBlock
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods import tuned_tower
from ovseg_cli.core.methods.base import Source, check_picture
from ovseg_cli.core.methods.dense import DenseConfig, DenseMethod
from ovseg_cli.core.methods.trained import LabelView, SecondView, Total, TrainedMethod
from ovseg_cli.core.methods.training_config import Grey, TrainingConfig
from ovseg_cli.core.nn.class_prompts import ClassPrompts
from ovseg_cli.core.nn.covered_bce import covered_pixels
from ovseg_cli.core.nn.decoded_bce import decoded_bce_sum
from ovseg_cli.core.nn.map_decoder import MapDecoder
from ovseg_cli.core.nn.mask_groups import MaskGroups, grouped_targets, masks_on_grid
from ovseg_cli.core.nn.region_pooling import region_sums
from ovseg_cli.core.nn.sinkhorn import alone, sinkhorn
from ovseg_cli.core.runs import HOST, LIVE
from ovseg_cli.core.types import TextFeatures, TrainBatch

TOWER, PROMPTS = "tower.", "class_prompts."
"""Prefixes of the weights of a run."""
GRID = 20
"""Features on a side of the squares that the paper's encoders see: 320 pixels for ViT-B/16, 640 for ConvNeXt."""


class PixelClipConfig(DenseConfig):
    """Settings of PixelCLIP; the defaults are those of its code."""

    resize: Literal["square", "short-side", "none"] = Field(
        default="square",
        description="How a picture is brought to the encoder: squashed to a square, short side, or as it is.",
    )
    side: int = Field(
        default=0, ge=0, description="Length of the square or of the short side in pixels; 0 is 20 patches."
    )
    first_short_side: int = Field(
        default=640,
        ge=0,
        description="Short side in pixels that a picture is brought to before the encoder's size, its long side up to "
        "max_long_side; 0 is none, and resize = none leaves it out.",
    )
    antialias: bool = Field(
        default=False, description="Average over all pixels when shrinking a picture, as PIL does; off: bilinear only."
    )
    upsample_features: int = Field(
        default=64,
        ge=0,
        description="Features are resized to a square grid of this side before the cosine; 0 keeps the patch grid.",
    )
    prompts: int = Field(default=64, ge=2, description="Learnable class prompts (k).")
    prompt_length: int = Field(default=4, ge=1, description="Learned vectors of each prompt (l).")
    prompt_templates: tuple[str, ...] = Field(
        default=("single",),
        min_length=1,
        description="Sentences around the prompts, or the names of class_names = data, in training, each with one {}, "
        "or the name of a set of them; several cost as many times the text encoder.",
    )

    @field_validator("prompt_templates", mode="before")
    @classmethod
    def _one_sentence(cls, value: Any) -> Any:
        """A single sentence, or the name of a set, needs no list around it."""
        return (value,) if isinstance(value, str) else value


class PixelClipTraining(TrainingConfig):
    """How PixelCLIP is trained; the defaults are those of its code on SA-1B, 4 GPUs of 12 pictures."""

    iterations: int = Field(default=10000, ge=1, description="Optimizer steps in all.")
    batch_size: int = Field(default=48, ge=1, description="Pictures in a step, over all processes and parts together.")
    learning_rate: float = Field(default=2e-4, gt=0, description="Rate of the decoder before the schedule's factor.")
    encoder_rate: float = Field(default=0.01, ge=0, description="Rate of the image tower, in learning rates.")
    prompt_rate: float = Field(default=10.0, ge=0, description="Rate of the prompts, in learning rates.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Decay; norms have none.")
    schedule: Literal["constant", "poly", "cosine"] = Field(default="cosine", description="How the rate falls.")
    final_learning_rate: float = Field(default=0.5, ge=0, le=1, description="Share of the rate left at the end.")
    clip_grad_norm: float = Field(default=0.01, ge=0, description="The norm of all gradients is cut to this.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32", description="Arithmetic of the forward pass."
    )
    short_sides: tuple[int, ...] = Field(default=(1024,), description="Short sides in pixels; each picture gets one.")
    train_long_side: int = Field(default=1333, ge=0, description="Largest long side of a picture; 0 is no limit.")
    crop_size: int = Field(default=640, ge=0, description="Side in pixels of the random square that is cut out.")
    color_jitter: bool = Field(default=True, description="SSD's changes of colour, in both views.")
    pad_value: Grey | tuple[Grey, Grey, Grey] = Field(
        default=(123, 117, 104), description="Colour around pictures; the network sees exact zeros there."
    )
    proposals: str = Field(
        default="sam",
        description="Where masks come from: a generator, a cache of `ovseg propose`, or a run of a host; `live` "
        "clusters the DINO tokens of each training crop anew.",
    )
    proposal_settings: dict[str, Any] = Field(default={}, description="Settings of that generator; of DINO for live.")
    tune: Literal["auto", "attention", "full", "conv", "none"] = Field(
        default="auto",
        description="Trained weights of the image tower: attention and positions, all, convolutions, or none; auto is "
        "attention for a ViT and all for a ConvNeXt.",
    )
    clustering: bool = Field(default=True, description="Group masks by Sinkhorn-Knopp; off: each mask stands alone.")
    class_names: Literal["learned", "data"] = Field(
        default="learned",
        description="Names that masks are grouped by: learned prompts, or the fixed names of the data set, each mask "
        "by the nearest.",
    )
    teacher_momentum: float = Field(
        default=0.999, ge=0, le=1, description="Share of the momentum encoder that stays at a step (gamma); 0: none."
    )
    mask_feature: Literal["pooled", "masked-cls"] = Field(
        default="pooled",
        description="Feature of a mask: the mean of its dense features as published, or a class token that sees the "
        "mask's patches alone (MAFT's IP-CLIP).",
    )
    mask_start_layer: int = Field(default=1, ge=0, description="First block in which masks hold, for masked-cls.")
    assignment_scale: float = Field(
        default=0.0,
        ge=0,
        description="Multiplies cosines of masks and names before Sinkhorn (1 / epsilon); 0 is 100 for a ViT, 1 for a "
        "ConvNeXt.",
    )
    sinkhorn_rounds: int = Field(default=3, ge=1, description="Rounds of Sinkhorn-Knopp.")
    mask_size: int = Field(default=256, ge=2, description="Side of the grid on which masks are compared.")
    strong_colors: bool = Field(default=True, description="Change colours, turn grey and blur in the strong view.")
    cut_out: bool = Field(default=True, description="Hide a black box in the strong view.")
    encoder_delay: int = Field(default=0, ge=0, description="First steps in which the image tower is not trained.")

    @model_validator(mode="after")
    def _masks_have_a_source(self) -> "PixelClipTraining":
        if self.proposals == HOST:
            raise ValueError("proposals = host: pixelclip has no host of its own; name a run of one, or a generator")
        if self.class_names == "data" and not self.clustering:
            raise ValueError("clustering = false makes each mask its own name; it cannot have those of the data too")
        return self


class PixelClip(DenseMethod, TrainedMethod):
    """CLIP tuned for pixels without any label.

    Attributes:
        tower: The tuned image tower; what is frozen in it are the very tensors of `clip.visual`.
        class_prompts: The learnable names.
        decoder: From similarity maps to masks; in training alone, as are `teacher` (the momentum encoder) and
            `steps_done`.
        recipe: Settings of the training, from `parameter_groups` on.
    """

    name = "pixelclip"
    title = "PixelCLIP"
    paper = "Shin et al., NeurIPS 2024"
    trains = "CLIP's image tower, without labels"
    templates = "imagenet-select"
    Config = PixelClipConfig
    Training = PixelClipTraining
    config: PixelClipConfig
    steps_done: Tensor
    wants_proposals = True
    sources: ClassVar[dict[str, Source]] = {
        **DenseMethod.sources,
        "resize": Source("code", "CLIP_RESOLUTION, aspect ratio not kept"),
        "side": Source("code", "320 for ViT-B/16, 640 for ConvNeXt-B"),
        "first_short_side": Source("code", "MIN_SIZE_TEST 640, MAX_SIZE_TEST 2560, bilinear by PIL"),
        "antialias": Source("code", "F.interpolate, bilinear"),
        "upsample_features": Source("code", "64"),
        "prompts": Source("code", "64; the paper's best"),
        "prompt_length": Source("code", "4; the paper's best"),
        "prompt_templates": Source("code", "single; the ensemble costs eight times as much and gains little (paper)"),
    }
    training_sources: ClassVar[dict[str, Source]] = {
        "iterations": Source("code", "10000"),
        "batch_size": Source("code", "4 GPUs of 12 pictures"),
        "learning_rate": Source("code", "2e-4"),
        "encoder_rate": Source("code", "0.01"),
        "prompt_rate": Source("code", "10; the paper's rate of 2e-5 is a hundredth of it"),
        "optimizer": Source("code", "AdamW"),
        "betas": Source("code", "AdamW's defaults"),
        "weight_decay": Source("code", "1e-4, none for norms"),
        "schedule": Source("code", "cosine"),
        "final_learning_rate": Source("code", "half"),
        "warmup": Source("code", "no warm-up"),
        "clip_grad_norm": Source("code", "0.01, all gradients together"),
        "precision": Source("code", "float32, TF32 allowed"),
        "short_sides": Source("code", "detectron2's default"),
        "train_long_side": Source("code", "1333"),
        "crop_size": Source("code", "640"),
        "color_jitter": Source("code", "SSD's"),
        "flip": Source("code", "horizontal, one half"),
        "pad_value": Source("code", "0 after the normalisation"),
        "proposals": Source("paper", "SAM's masks of SA-1B"),
        "tune": Source("code", "CLIP_FINETUNE: attention for ViT-B/16, full for ConvNeXt-B"),
        "clustering": Source("paper", "Table 5; the form without it is ours"),
        "class_names": Source("paper", "learned; names of COCO-Stuff in an ablation"),
        "teacher_momentum": Source("code", "0.999; the paper's best"),
        "mask_feature": Source("code", "pooled; masked-cls is ours, for a CLIP whose dense features are weak"),
        "mask_start_layer": Source("ours", "MAFT's masks enter in block 8; a tiny CLIP needs them early"),
        "assignment_scale": Source("code", "100 for ViT-B/16, 1 for ConvNeXt-B"),
        "sinkhorn_rounds": Source("code", "3"),
        "mask_size": Source("code", "256"),
        "strong_colors": Source("code", "probabilities 0.8, 0.2, 0.5"),
        "cut_out": Source("code", "each side 0.1 to 0.5 of the crop's"),
        "encoder_delay": Source("ours", "none"),
    }

    def __init__(self, clip: ClipModel, config: PixelClipConfig | None = None):
        super().__init__(clip, config)
        own = self.config
        self.is_vit = tower_of(clip.visual).kind == "vit"
        self.tower: Any = tuned_tower.twin(clip.visual, ())
        self.class_prompts = ClassPrompts(clip, own.prompts, own.prompt_length, own.prompt_templates)
        self.decoder = MapDecoder()
        self.teacher: Any = None
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64), persistent=False)
        self.recipe = PixelClipTraining()
        self._used: dict[str, float] = {}
        self.requires_grad_(False)
        self.eval()

    # Scoring

    @property
    def last_block(self) -> LastBlock:
        """What the last block of a ViT does: own values, the class token's residual (CAT-Seg's form of MaskCLIP)."""
        return PATHS["value-cls" if self.is_vit else "raw"]

    def resize_rule(self) -> inputs.ResizeRule:
        """How large a picture becomes; without a side 20 patches."""
        rule = super().resize_rule()
        return rule if self.config.side else replace(rule, side=GRID * self.clip.patch_size)

    def prepare(self, image: Tensor) -> Tensor:
        """Resize twice and normalise: bytes to `first_short_side` as the code's loader does, then as the base does.

        Raises:
            ShapeError: The picture is no (3, H, W), or has no pixels.
        """
        check_picture(image)
        if self.config.first_short_side and self.config.resize != "none":
            rule = inputs.ResizeRule("short-side", self.config.first_short_side, self.config.max_long_side)
            image = inputs.resize_bytes(image, rule.size(*image.shape[-2:]))
        return super().prepare(image)

    @property
    def visual(self) -> nn.Module:
        """The tuned image tower."""
        return self.tower

    def block(self, images: Tensor) -> LastBlock:
        """Return `last_block`, whatever the images."""
        return self.last_block

    # Training

    @classmethod
    def label_view(cls, training: TrainingConfig) -> LabelView:
        """Say that no label is read, and names only where they stand in for prompts."""
        recipe = cast(PixelClipTraining, training)
        return LabelView("all" if recipe.class_names == "data" else "none", "none")

    @classmethod
    def second_view(cls, training: TrainingConfig) -> SecondView:
        """Say that a training sees each example twice, and how the strong view differs."""
        recipe = cast(PixelClipTraining, training)
        return SecondView(recipe.strong_colors, recipe.cut_out)

    def training_templates(self, templates: tuple[str, ...]) -> tuple[str, ...]:
        """Return the sentences around the prompts: names that stand in for these are read in the same."""
        return resolve_templates(self.config.prompt_templates)

    def check_training(self, training: TrainingConfig) -> None:
        """Refuse masks in a class token's way where the image tower has none, or not so many blocks.

        Raises:
            UsageError: It is refused.
        """
        recipe = cast(PixelClipTraining, training)
        if recipe.mask_feature != "masked-cls":
            return
        try:
            check_start_layer(self.clip.visual, recipe.mask_start_layer)
        except UsageError as error:
            what = f"mask_feature = masked-cls, mask_start_layer = {recipe.mask_start_layer}: {error.message}"
            raise UsageError(what, f"{error.mend} Or: --set mask_feature=pooled") from error

    def parameter_groups(self, training: TrainingConfig) -> list[dict[str, Any]]:
        """Return image tower, prompts and decoder, each at its rate, norms without decay; make the momentum encoder."""
        self.recipe = cast(PixelClipTraining, training)
        names = self._tuned_names()
        tuned_tower.own(self.tower, self.clip.visual, names)
        self.teacher = tuned_tower.twin(self.tower, names)
        self.requires_grad_(False)
        rate = training.learning_rate
        groups = [
            *_groups(self.tower, names, self.recipe.encoder_rate * rate, training.weight_decay),
            *_groups(self.decoder, [n for n, _ in self.decoder.named_parameters()], rate, training.weight_decay),
        ]
        if self.recipe.class_names == "learned" and self.recipe.clustering:
            own = list(self.class_prompts.parameters())
            groups.append({"params": own, "lr": self.recipe.prompt_rate * rate, "weight_decay": training.weight_decay})
        for group in groups:
            for parameter in group["params"]:
                parameter.requires_grad_(True)
        return groups

    def _tuned_names(self) -> list[str]:
        """Name the trained weights of the image tower."""
        which = self.recipe.tune
        if which == "auto":
            which = "attention" if self.is_vit else "full"
        parts = {"attention": ("attn", "position"), "conv": ("conv",), "full": ("",), "none": ()}[which]
        return [name for name, _ in self.tower.named_parameters() if any(part in name for part in parts)]

    def train_mode(self) -> None:
        """Switch to training: a ConvNeXt's stochastic depth is on in tower and momentum encoder, as in the code."""
        super().train_mode()
        self.tower.train()
        self.teacher.train()

    @torch.no_grad()
    def before_step(self, parts: Sequence[TrainBatch], text: TextFeatures, total: Total) -> list[dict[str, Any]]:
        """Let the momentum encoder follow and see the weak views; group the masks of the whole batch.

        Args:
            parts: With "masks" and "cut_outs".
            text: Features of the data set's names, where those are grouped by.
            total: Adds over all processes.

        Returns:
            For each part "regions" (B, M, M) int32 and "targets" (B, R, k) uint8, as in nn/covered_bce.py; without
            clustering also "mask_features", (B, N, D), the names of each picture's own.
        """
        self.steps_done += 1
        self._follow()
        groups = [self._masks_of(part) for part in parts]
        chosen, names = self._chosen(groups, text, total)
        counts = total(_counts(chosen, names, sum(len(part["images"]) for part in parts)))
        self._used = {"masks_per_picture": float(counts[:-1].sum() / counts[-1])}
        if self.recipe.clustering:
            self._used["names_used"] = float((counts[:-1] > 0).sum())
        return [
            {"regions": group.ids.cpu(), "targets": targets.cpu()}
            | ({} if self.recipe.clustering else {"mask_features": group.padded_features().cpu()})
            for group, targets in zip(groups, self._targets(groups, chosen, names), strict=True)
        ]

    def _follow(self) -> None:
        """Move the momentum encoder towards the image tower: θ' ← γ θ' + (1 - γ) θ, before this step's update."""
        names = tuned_tower.owned(self.teacher, self.tower)
        theirs, own = dict(self.teacher.named_parameters()), dict(self.tower.named_parameters())
        if names:
            weights = [own[name].detach() for name in sorted(names)]
            torch._foreach_lerp_([theirs[name] for name in sorted(names)], weights, 1 - self.recipe.teacher_momentum)

    def _masks_of(self, part: TrainBatch) -> MaskGroups:
        """Return the masks of a part on their grid, and the momentum encoder's feature of each."""
        device = self.clip.device
        cut_outs = None if self.recipe.proposals == LIVE else part["cut_outs"]
        size = (self.recipe.mask_size, self.recipe.mask_size)
        masks = [
            masks_on_grid(crop, size, None if cut_outs is None else cut_outs[i].tolist())
            for i, crop in enumerate(part["masks"].crops)
        ]
        images = self._inputs(part["images"].to(device), part["areas"])
        feature = self._masked_tokens if self.recipe.mask_feature == "masked-cls" else self._pooled
        return MaskGroups.of(masks, feature(images, [(ids.to(device), table.to(device)) for ids, table in masks]))

    def _pooled(self, images: Tensor, masks: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Return for each picture (N, D): the mean of the dense features, resized to the masks' grid, over each."""
        maps = dense_features(self.teacher, images, self.last_block, self.config.position).float()
        found = [region_sums(features, ids, table) for features, (ids, table) in zip(maps, masks, strict=True)]
        return [sums / areas.clamp_min(1)[:, None] for sums, areas in found]

    def _masked_tokens(self, images: Tensor, masks: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Return for each picture (N, D): class tokens that see the patches of one mask each."""
        prefix = run_prefix(self.teacher, images, self.recipe.mask_start_layer, self.config.position)
        found = []
        for i, (ids, table) in enumerate(masks):
            kept = kept_patches(table[:, ids.long()].float(), prefix.grid, keep_best=True)
            found.append(masked_from(self.teacher, replace(prefix, tokens=prefix.tokens[i : i + 1]), kept[None])[0])
        return [features.float() for features in found]

    def _chosen(self, groups: Sequence[MaskGroups], text: TextFeatures, total: Total) -> tuple[Tensor, int]:
        """Return the name of each mask of this process, (m,) int64, and how many there are; one without clustering."""
        features = torch.cat([group.features for group in groups])
        if not self.recipe.clustering:
            return torch.zeros(len(features), dtype=torch.int64), 1
        names = self._names(text)
        return self._assigned(features, names, total), len(names)

    def _assigned(self, features: Tensor, names: Tensor, total: Total) -> Tensor:
        """Return (m,) int64, the name of each mask of this process."""
        scale = self.recipe.assignment_scale or (100.0 if self.is_vit else 1.0)
        with torch.autocast(features.device.type, enabled=False):
            logits = scale * F.normalize(features.float(), dim=-1) @ names.T
        if self.recipe.class_names == "learned" and self.recipe.clustering:
            return sinkhorn(logits, self.recipe.sinkhorn_rounds, total).argmax(1)
        return logits.argmax(1)

    @torch.no_grad()
    def grouped(self, training: PixelClipTraining, parts: Iterable[TrainBatch]) -> list[tuple[MaskGroups, Tensor]]:
        """Group masks by the learned names as a step of training would, learning nothing: for pictures of a run.

        The image tower stands for the momentum encoder, of which a run keeps nothing.

        Args:
            training: How the run was trained.
            parts: With "images", "areas", "masks" and "cut_outs"; their masks are grouped together.

        Returns:
            For each part its masks, and the name of each, (N,) int64.
        """
        kept = self.recipe, self.teacher
        self.recipe, self.teacher = training, self.tower
        groups = [self._masks_of(part) for part in parts]
        features = torch.cat([group.features for group in groups])
        chosen = self._assigned(features, self._names(TextFeatures.of_classes(features[:0])), alone).cpu()
        self.recipe, self.teacher = kept
        return [*zip(groups, chosen.split([len(group.features) for group in groups]), strict=True)]

    def _targets(self, groups: Sequence[MaskGroups], chosen: Tensor, count: int) -> list[Tensor]:
        """Return for each part its (B, R, k) targets."""
        if not self.recipe.clustering:
            return [group.own_targets() for group in groups]
        parts = chosen.cpu().split([len(group.features) for group in groups])
        return [grouped_targets(group, part, count) for group, part in zip(groups, parts, strict=True)]

    def _names(self, text: TextFeatures) -> Tensor:
        """Return (k, D) unit-length features of the names that masks are grouped by."""
        found = text.features if self.recipe.class_names == "data" else self.class_prompts(self.clip)
        return F.normalize(found.float(), dim=-1)

    def _inputs(self, images: Tensor, areas: Tensor) -> Tensor:
        """Bring (B, 3, H, W) uint8 canvases to the encoder: normalised, zero outside the pictures, resized."""
        values = inputs.normalise(images.float(), self.clip.mean, self.clip.std)
        for picture, (height, width) in zip(values, areas.tolist(), strict=True):
            picture[:, height:] = 0
            picture[:, :, width:] = 0
        size = self.resize_rule().size(*values.shape[-2:])
        if self.config.resize == "none" or tuple(values.shape[-2:]) == size:
            return values
        return F.interpolate(values, size, mode="bilinear", align_corners=False)

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        """Count pixels in a mask times names."""
        if self.recipe.clustering:
            return {"pairs": float(covered_pixels(batch["regions"], batch["targets"]) * batch["targets"].shape[2])}
        each = zip(batch["regions"].split(1), batch["targets"].split(1), strict=True)
        return {"pairs": float(sum(covered_pixels(ids, table) * int(table.any(1).sum()) for ids, table in each))}

    def losses(self, batch: TrainBatch, text: TextFeatures, totals: Mapping[str, float]) -> dict[str, Tensor]:
        """Return "cross_entropy", over pixels in a mask and names.

        Args:
            batch: With "strong", and what `before_step` added.
            text: Features of the data set's names, where those are grouped by.
            totals: `normalisers` of all parts of the batch.
        """
        features = F.normalize(self.features(self._inputs(batch["strong"], batch["areas"])), dim=-1)
        if int(self.steps_done) <= self.recipe.encoder_delay:
            features = features.detach()
        if self.recipe.clustering:
            names = self._names(text).to(features.dtype)
            summed = self._compared(features, names, batch["regions"], batch["targets"])
        else:
            summed = self._each_alone(features, batch)
        return {"cross_entropy": summed / max(totals["pairs"], 1.0)}

    def _compared(self, features: Tensor, names: Tensor, regions: Tensor, targets: Tensor) -> Tensor:
        similarity = torch.einsum("bhwd,kd->bkhw", features, names)
        return decoded_bce_sum(self.decoder, similarity, regions, targets)

    def _each_alone(self, features: Tensor, batch: TrainBatch) -> Tensor:
        """Compare each picture with its own masks, whose names are their features."""
        summed = features.sum() * 0
        for i, targets in enumerate(batch["targets"]):
            own = targets.any(0).bool()
            names = F.normalize(batch["mask_features"][i][own].to(features.dtype), dim=-1)
            if len(names):
                regions = batch["regions"][i : i + 1]
                summed = summed + self._compared(features[i : i + 1], names, regions, targets[None, :, own])
        return summed

    def after_step(self) -> dict[str, float]:
        """Return how many names have a mask in the batch, and masks a picture."""
        return dict(self._used)

    # Weights

    def trained_state(self) -> dict[str, Tensor]:
        """Return the image tower's own weights, `tower.*`, and the prompts: what inference and pictures need."""
        prompts = {PROMPTS + name: tensor for name, tensor in self.class_prompts.named_parameters()}
        return tuned_tower.tower_state(self.tower, self.clip.visual, TOWER) | prompts

    def checkpoint_state(self) -> dict[str, Tensor]:
        """Return all of `trained_state`, decoder, momentum encoder and the number of steps."""
        state = self.trained_state()
        state |= {f"decoder.{name}": tensor for name, tensor in self.decoder.named_parameters()}
        state["steps_done"] = self.steps_done
        if self.teacher is not None:
            state |= tuned_tower.tower_state(self.teacher, self.tower, "teacher.")
        return state

    def load_trained_state(self, state: Mapping[str, Tensor], where: str) -> None:
        """Load what `trained_state` returned, or any further weights of the tower, as official checkpoints hold them.

        Raises:
            DataError: Names or shapes differ; the first difference is named.
        """
        of_tower = {name: tensor for name, tensor in state.items() if name.startswith(TOWER)}
        tuned_tower.load_tower(self.tower, self.clip.visual, TOWER, of_tower, self.name, where)
        others = {name: tensor for name, tensor in state.items() if name not in of_tower}
        super().load_trained_state(self.trained_state() | others, where)


def _groups(module: nn.Module, names: Sequence[str], rate: float, decay: float) -> list[dict[str, Any]]:
    """Part named weights into those that decay and those of norms."""
    norms = {
        f"{where}.{name}" if where else name
        for where, part in module.named_modules()
        if isinstance(part, nn.LayerNorm | nn.GroupNorm)
        for name, _ in part.named_parameters(recurse=False)
    }
    found = dict(module.named_parameters())
    parted = [(decay, [n for n in names if n not in norms]), (0.0, [n for n in names if n in norms])]
    return [{"params": [found[n] for n in some], "lr": rate, "weight_decay": decays} for decays, some in parted if some]


def _counts(chosen: Tensor, names: int, pictures: int) -> Tensor:
    """Return (k + 1,): masks of each name, and pictures."""
    counts = torch.bincount(chosen.cpu(), minlength=names).double()
    return torch.cat([counts, counts.new_tensor([float(pictures)])])
