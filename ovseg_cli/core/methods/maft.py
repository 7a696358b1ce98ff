"""MAFT: Learning Mask-aware CLIP Representations for Zero-Shot Segmentation (Jiao et al., NeurIPS 2023).

A frozen CLIP hardly notices what a mask leaves out. Step 2 of two-stage segmentation, to be read beside section 3:

1. *IP-CLIP* (core/clip/masked.py). From block S on the class token is copied N times; copy n attends to itself and to
   the patches in mask n only. One pass embeds all masks; no parameter is added. Logits are 100 · cosine with the names.
2. *Mask-aware loss.* A mask's probability of each class that is present becomes its overlap with that class, stretched
   so that the worst mask has 0 and the best 1; SmoothL1 (core/nn/maft_losses.py).
3. *Self-distillation loss.* IP-CLIP without masks keeps naming whole pictures as the frozen CLIP does; SmoothL1.
4. *Scores.* Softmax of the logits, alone, or combined with the class logits of the host whose masks are scored; score
   map: Σ_n score · mask.

Trained: attention (in and out) and both LayerNorms of every block, and the last LayerNorm. Frozen: patches, class
token, positions, first LayerNorm, MLPs, projection, text tower, the masks' generator. Only seen names and labels are
used.

What is frozen is not computed twice: masks come from a cache, no generator runs in training; student and teacher share
the embedded patches and the memory of all frozen weights; the student's blocks before S run once for the passes with
and without masks; last blocks are computed only for the tokens that leave them. The student's block 0 is trained from
its first LayerNorm on, so teacher and student share no block, and random crops leave nothing of the teacher to cache.

Paper and code:
* Weight of the distillation: 1 in the paper, 0.1 in the code (the default). Weight decay: 1e-5 and 1e-4.
* The code's start layer is 8 whatever its configuration says; here it is a checked setting.
* The code scores with the host only if the host's part is 0; with any other it fails. Here the host's logits are
  attached again, as the published ensembles need. Alone, all N masks are scored, empty ones too, as in the code.
* Any number of masks, any canvas, one picture a process; a batch without labels has a loss of zero.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ovseg_cli.core.clip.masked import POSITION, Prefix, continue_prefix, kept_patches, masked_from, unmasked_from
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.vit import Grid, embed
from ovseg_cli.core.methods import tuned_tower
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.masked import training_canvases
from ovseg_cli.core.methods.masked_clip import MaskedClipConfig, MaskedClipMethod
from ovseg_cli.core.methods.trained import FAMILY_SOURCES, TrainedMethod
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.nn.maft_losses import distillation_sum, mask_aware_count, mask_aware_sum
from ovseg_cli.core.types import TextFeatures, TrainBatch

TOWER = "ip_clip."
"""Prefix of the tuned image tower's weights in a run."""


class MaftConfig(MaskedClipConfig):
    """Settings of MAFT; the defaults are those of its code for ViT-B/16 on FreeSeg."""

    host: Literal["freeseg", "zegformer", "zsseg"] = Field(
        default="freeseg", description="Whose masks it learns from where `proposals` is host; trained first (step 1)."
    )
    proposals: str = Field(
        default="host",
        description="Where masks come from: `host` (the run's own), a generator, a cache of `ovseg propose`, or a run. "
        "`live` is the host too, asked anew for each training example, as published; slower.",
    )


class MaftTraining(TrainingConfig):
    """How MAFT is trained; the defaults are those of its code on COCO-Stuff, 8 GPUs of 2 pictures."""

    iterations: int = Field(default=1000, ge=1, description="Optimizer steps in all.")
    learning_rate: float = Field(default=1e-5, gt=0, description="Rate before the schedule's factor.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Decay; LayerNorms have none.")
    clip_grad_norm: float = Field(default=0.01, ge=0, description="The norm of all gradients is cut to this.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32", description="Arithmetic of the forward pass."
    )
    mask_aware: bool = Field(default=True, description="Learn the overlap of masks and classes.")
    distillation: float = Field(default=0.1, ge=0, description="Weight of the self-distillation loss; 0 is none.")
    tune: Literal["attention", "all"] = Field(
        default="attention", description="Train attention and LayerNorms as published, or the whole image tower."
    )
    short_sides: tuple[int, ...] = Field(
        default=tuple(range(320, 961, 64)), description="Short sides in pixels of which each picture gets one."
    )
    crop_size: int = Field(default=640, ge=0, description="Side in pixels of the random square that is cut out.")
    color_jitter: bool = Field(default=True, description="SSD's changes of colour.")

    @model_validator(mode="after")
    def _something_is_learned(self) -> "MaftTraining":
        if not self.mask_aware and not self.distillation:
            raise ValueError("without mask_aware a distillation weight above 0 is needed, or nothing is learned")
        return self


class Maft(MaskedClipMethod, TrainedMethod):
    """CLIP that was made aware of masks, naming the masks of a host or of any generator.

    Attributes:
        ip_clip: The tuned image tower; what is frozen in it are the very tensors of `clip.visual`.
        recipe: Settings of the training, from `parameter_groups` on.
    """

    name = "maft"
    title = "MAFT"
    paper = "Jiao et al., NeurIPS 2023"
    trains = "CLIP's attention, on seen classes"
    Config = MaftConfig
    Training = MaftTraining
    config: MaftConfig
    wants_proposals = True
    sources: ClassVar[dict[str, Source]] = {
        **MaskedClipMethod.sources,
        "host": Source("code", "the MAFT repository builds on FreeSeg; the paper shows all three"),
        "proposals": Source("paper", "a host that was trained first; SAM in the ablation"),
    }
    training_sources: ClassVar[dict[str, Source]] = {
        **FAMILY_SOURCES,
        "iterations": Source("paper", "1000 on COCO, as in the log; 100 on VOC, 5000 on ADE20K"),
        "batch_size": Source("log", "8 GPUs of 2 pictures"),
        "learning_rate": Source("log", "1e-5"),
        "weight_decay": Source("log", "1e-4, LayerNorms none; 1e-5 in the paper"),
        "clip_grad_norm": Source("code", "full model, 0.01"),
        "schedule": Source("code", "poly, power 0.9, no warm-up"),
        "precision": Source("log", "float32"),
        "mask_aware": Source("paper", "section 3; off in an ablation"),
        "distillation": Source("code", "0.1; 1 in the paper"),
        "tune": Source("code", "attention, LayerNorms of all blocks, ln_post; the paper's ablation tunes all"),
        "short_sides": Source("code", "320 to 960 in steps of 64"),
        "crop_size": Source("code", "640"),
        "color_jitter": Source("code", "COLOR_AUG_SSD"),
    }

    def __init__(self, clip: ClipModel, config: MaftConfig | None = None):
        super().__init__(clip, config)
        self.ip_clip: Any = tuned_tower.twin(clip.visual, tuned_names(clip.visual))
        self.recipe = MaftTraining()
        self.requires_grad_(False)
        self.eval()

    @property
    def tower(self) -> Any:
        """The tuned image tower."""
        return self.ip_clip

    def parameter_groups(self, training: TrainingConfig) -> list[dict[str, Any]]:
        """Return the tuned weights, LayerNorms without decay, and take the weights of the losses from the settings."""
        self.recipe = cast(MaftTraining, training)
        everything = [name for name, _ in self.ip_clip.named_parameters()]
        names = everything if self.recipe.tune == "all" else tuned_names(self.ip_clip)
        tuned_tower.own(self.ip_clip, self.clip.visual, names)
        self.requires_grad_(False)
        norms: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in self.ip_clip.named_parameters():
            if name in names:
                (norms if "ln_" in name else others).append(parameter.requires_grad_(True))
        return [{"params": others, "weight_decay": training.weight_decay}, {"params": norms, "weight_decay": 0.0}]

    def normalisers(self, batch: TrainBatch) -> dict[str, float]:
        """Count pictures, and classes × masks over all pictures."""
        pairs = zip(_each(batch["masks"]), batch["labels"], strict=True)
        return {
            "images": float(len(batch["images"])),
            "overlaps": float(sum(mask_aware_count(len(masks), label) for masks, label in pairs)),
        }

    def losses(self, batch: TrainBatch, text: TextFeatures, totals: Mapping[str, float]) -> dict[str, Tensor]:
        """Return "mask_aware" and "distillation", as far as the settings ask for them.

        Args:
            batch: Pictures, labels of seen classes, masks.
            text: Features of the seen classes.
            totals: `normalisers` of all parts of the batch.
        """
        images = self.clip_images(training_canvases(batch["images"]))
        tokens, grid = embed(self.ip_clip, images, POSITION)
        prefix = continue_prefix(self.ip_clip, tokens, grid, self.start_layer)
        terms = {}
        if self.recipe.mask_aware:
            terms["mask_aware"] = self._mask_aware(batch, prefix, text) / max(totals["overlaps"], 1.0)
        if self.recipe.distillation:
            student = self._class_logits(unmasked_from(self.ip_clip, prefix), text)
            teacher = self._class_logits(self._teacher(images, tokens), text)
            terms["distillation"] = self.recipe.distillation * distillation_sum(student, teacher) / totals["images"]
        return terms

    def _mask_aware(self, batch: TrainBatch, prefix: Prefix, text: TextFeatures) -> Tensor:
        """Sum the mask-aware loss over the pictures; those with fewer masks are filled up with empty ones."""
        examples = _each(batch["masks"])
        kept = nn.utils.rnn.pad_sequence([self._kept(masks, prefix.grid) for masks in examples], batch_first=True)
        features = masked_from(self.ip_clip, prefix, kept)
        probabilities = self._class_logits(features, text).softmax(-1)
        parts = zip(probabilities, examples, batch["labels"], strict=True)
        return sum((mask_aware_sum(p[: len(masks)], masks, label) for p, masks, label in parts), features.sum() * 0)

    def _kept(self, masks: Any, grid: Grid) -> Tensor:
        """Return (N, h, w) bool of the masks of an example; they are written out only to look for a best patch."""
        if not isinstance(masks, Tensor):
            masks = masks.masks() if self.config.keep_best else masks.resized(grid)
        masks = masks.float() / 255 if masks.dtype == torch.uint8 else masks
        return kept_patches(masks, grid, keep_best=self.config.keep_best)

    @torch.no_grad()
    def _teacher(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return (B, D) features of the frozen CLIP; the embedded patches are the student's where those are frozen."""
        visual = self.clip.visual
        if any(
            not name.startswith(("transformer.", "ln_post.", "proj"))
            for name in tuned_tower.owned(self.ip_clip, visual)
        ):
            tokens, _ = embed(visual, images, POSITION)
        return unmasked_from(visual, Prefix(tokens, (0, 0), 0))

    def _class_logits(self, features: Tensor, text: TextFeatures) -> Tensor:
        """Return (..., K): where several names of a class compete, the best one's logit."""
        logits = self.logits(features, text)
        if logits.shape[-1] == text.num_classes:
            return logits
        rows = [(text.class_of_row == k).nonzero()[:, 0] for k in range(text.num_classes)]
        return torch.stack([logits[..., row].amax(-1) for row in rows], dim=-1)

    def trained_state(self) -> dict[str, Tensor]:
        """Return the weights of the image tower that are its own, `ip_clip.*`."""
        return tuned_tower.tower_state(self.ip_clip, self.clip.visual, TOWER)

    def load_trained_state(self, state: Mapping[str, Tensor], where: str) -> None:
        """Load what `trained_state` returned, or any further weights of the tower (tuned_tower.load_tower)."""
        tuned_tower.load_tower(self.ip_clip, self.clip.visual, TOWER, state, self.name, where)


def tuned_names(visual: nn.Module) -> list[str]:
    """Name what the paper trains: attention and LayerNorms of all blocks, and the last LayerNorm."""
    parts = (".attn.in_proj", ".attn.out_proj", ".ln_1.", ".ln_2.")
    names = [name for name, _ in visual.named_parameters()]
    return [n for n in names if n.startswith("ln_post.") or ("resblocks." in n and any(part in n for part in parts))]


def _each(masks: Any) -> Sequence[Any]:
    """Return the masks of each example: tensors, or what measures them without writing them out."""
    return getattr(masks, "crops", masks)
