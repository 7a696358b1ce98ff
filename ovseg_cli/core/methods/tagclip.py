"""TagCLIP: Improving Discrimination Ability of Open-Vocabulary Semantic Segmentation (Li et al., 2023).

Not the TagCLIP of AAAI 2024 (local-to-global tagging), which is another method of the same name.

ZegCLIP trusts its scores of seen classes too much. TagCLIP adds a token that learns where the picture shows what it
was not trained on, and weighs the scores by it. To be read beside section 3 of the paper and its Figure 5:

1. *Trusty token* t_A: one more row behind the text rows, T' = [T ; t_A]; it becomes a query like every name.
2. *Trusty Learner*: queries meet once. As released: descriptors, then self-attention in the decoder's layer 0
   (`learner = released`); the two arrangements of Figure 5 are `figure-5-left` and `figure-5-right`.
3. The decoder gives raw masks M_R of the names and the map of the token: its sigmoid w is the probability that a pixel
   shows something unseen. The paper's trusty map is M_A = 1 - w: bright on seen objects.
4. *Fusion*: s = sigmoid(M_R) - gamma (seen); then s · (1 - w) for seen names and s · w for unseen ones (`fusion`).

Trained: prompts with projection and norm, token, descriptor, decoder. Frozen: CLIP.

Because queries meet, the scores of a name depend on all other names: names are never asked in chunks, and training
(seen names and token) differs from testing (all names and token).

Paper and code:
* **Target of the token.** The paper: a map of seen 1 / unseen 0. The code reads where objects of unseen classes are in
  the training pictures (`trust_target = official-unseen`): not what they are, but more than an inductive method may
  know. The default `seen-vs-rest` needs seen labels alone: every other pixel, background and padding too, counts as not
  seen.
  Results of the official one are marked wherever they are printed.
* The published transductive code never makes a pseudo label. Here it does (methods/one_stage.py).
* Only the configurations of the inductive evaluation weigh scores by the map; so do we: `fusion` is `both` in the
  inductive setting, `none` in the others.
* The class token's double embedding and the two last norms are those of ZegCLIP's code, as are ImageNet's statistics.
* On names of another data set the code leaves the token out (`across = plain`).
* Weight of the focal loss: 20 (ZegCLIP 100). The Tversky loss of the repository is unused and has a wrong sign.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.methods.base import Source
from ovseg_cli.core.methods.one_stage import (
    METHOD_SOURCES,
    TRAINING_SOURCES,
    OneStageConfig,
    OneStageMethod,
    OneStageTraining,
    on_grid,
)
from ovseg_cli.core.methods.trained import LabelView
from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.nn.attention_masks import MaskDecoder, xavier
from ovseg_cli.core.nn.descriptors import AttentionConcatLearner, Descriptor, SelfAttentionLearner
from ovseg_cli.core.nn.label_maps import full_scores
from ovseg_cli.core.nn.mask_class_losses import binary_focal_sum
from ovseg_cli.core.types import UNSEEN_PIXEL, SigmoidPrediction, TextFeatures


class TagClipConfig(OneStageConfig):
    """Settings of TagCLIP: the family's, and what belongs to the token."""

    head_init: Literal["copies", "xavier"] = Field(
        default="xavier", description="First weights of descriptor and decoder: Xavier-uniform, or torch's own, copied."
    )
    token: bool = Field(default=True, description="Use the trusty token; without it there is no trust map.")
    learner: Literal["released", "figure-5-left", "figure-5-right"] = Field(
        default="released", description="Where queries meet: in the decoder's layer 0, or as in the paper's Figure 5."
    )
    fusion: Literal["none", "seen", "unseen", "both"] = Field(
        default="both", description="Whose scores the trust map weighs: seen by 1 - w, unseen by w."
    )

    @model_validator(mode="after")
    def _fusion_has_a_map(self) -> "TagClipConfig":
        if not self.token and self.fusion != "none":
            raise ValueError(f"fusion {self.fusion} needs the token, which is off; set fusion=none")
        if self.learner != "released" and self.descriptor != "product":
            raise ValueError(f"learner {self.learner} makes its own queries; leave descriptor at product")
        return self


class TagClipTraining(OneStageTraining):
    """How TagCLIP is trained."""

    focal_weight: float = Field(default=20.0, ge=0, description="Weight of the focal loss of the masks.")
    trust_weight: float = Field(default=10.0, ge=0, description="Weight of the focal loss of the trust map.")
    trust_target: Literal["seen-vs-rest", "official-unseen"] = Field(
        default="seen-vs-rest",
        description="What the token learns: where no seen class is, or, as published, where unseen classes are, which "
        "reads unseen pixels.",
    )

    @model_validator(mode="after")
    def _target_fits(self) -> "TagClipTraining":
        honest = self.setting == "transductive" and self.self_training == "honest"
        if honest and self.trust_target == "official-unseen":
            raise ValueError(
                "trust_target official-unseen reads where unseen classes are, which honest self-training must not "
                "know; set self_training=starred"
            )
        return self


class TagClip(OneStageMethod):
    """TagCLIP.

    Attributes:
        trust_token: (1, d), the last row behind the text rows.
    """

    name = "tagclip"
    title = "TagCLIP"
    paper = "Li et al., 2023"
    trains = "prompts, trusty token and decoder, on seen classes"
    Config = TagClipConfig
    Training = TagClipTraining
    config: TagClipConfig
    recipe: TagClipTraining
    sources: ClassVar[dict[str, Source]] = {
        **METHOD_SOURCES,
        "token": Source("paper", "section 3"),
        "learner": Source("code", "q_proj and layer 0's self-attention; Figure 5 shows two others"),
        "fusion": Source("code", "both in the inductive evaluation, none in all other configurations"),
    }
    training_sources: ClassVar[dict[str, Source]] = {
        **TRAINING_SOURCES,
        "focal_weight": Source("code", "20"),
        "trust_weight": Source("code", "10, focal alone"),
        "trust_target": Source("ours", "the code's target reads unseen pixels; this one does not"),
    }

    def __init__(self, clip: ClipModel, config: TagClipConfig | None = None):
        super().__init__(clip, config)
        own, dim = self.config, clip.embed_dim
        self.trust_token = nn.Parameter(torch.zeros(1, dim)) if own.token else None
        if own.learner == "released":
            self.descriptor = Descriptor(dim, own.descriptor)
        else:
            learner = SelfAttentionLearner if own.learner == "figure-5-left" else AttentionConcatLearner
            self.descriptor = learner(dim, own.decoder_heads, own.dropout)
        self.decoder = MaskDecoder(
            dim,
            own.decoder_layers,
            own.decoder_heads,
            own.decoder_ffn * dim,
            own.dropout,
            self_attention=own.learner == "released",
            init=own.head_init,
        )
        if own.head_init == "xavier":
            xavier(self.descriptor)
        if self.trust_token is not None:
            nn.init.xavier_uniform_(self.trust_token)
        self.eval()

    def mask_logits(self, images: Tensor, text: TextFeatures, is_plain: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return logits (B, M, h, w) of (B, 3, H, W) normalised images, and (B, h, w) of "shows something unseen"."""
        patches, picture = self.prompted(self.clip.visual, images)
        token = None if is_plain else self.trust_token
        rows = text.features if token is None else torch.cat([text.features, token.to(text.features)])
        masks = on_grid(self.decoder(self.descriptor(picture, rows), patches.flatten(1, 2)), patches)
        return (masks, None) if token is None else (masks[:, :-1], masks[:, -1])

    @property
    def calibration(self) -> str | None:
        """Name what tells seen from unseen scores: with a fusion, the map and the token that makes it, too."""
        return "gamma, trust map and token" if self.config.fusion != "none" else super().calibration

    def gate(self, seen: Tensor) -> Tensor | None:
        """Return -1 for seen rows (times 1 - w) and 1 for unseen ones (times w), as far as `fusion` asks for it."""
        if self.config.fusion == "none":
            return None
        of_seen = -1 if self.config.fusion in ("seen", "both") else 0
        of_unseen = 1 if self.config.fusion in ("unseen", "both") else 0
        return torch.where(seen, of_seen, of_unseen).to(torch.int8)

    @torch.no_grad()
    def trust_maps(self, images: Sequence[Tensor], text: TextFeatures) -> list[Tensor]:
        """Return of each picture w, the probability that a pixel shows something unseen.

        Args:
            images: Pictures of any size, each (3, H, W) uint8 RGB.
            text: Features of the names that are asked; the map depends on them.

        Returns:
            (H', W') in 0 to 1 each, at the size that the picture is resized to; windows are averaged.

        Raises:
            UsageError: The model has no token.
        """
        if self.trust_token is None:
            raise UsageError("this TagCLIP was trained without its token, so it has no trust map.", "Use token=true.")
        canvases = [self.prepare(image) for image in images]
        maps = []
        for canvas, boxes, logits in zip(
            canvases, *self.window_logits(canvases, text.to(self.clip.device)), strict=True
        ):
            shape = (int(canvas.shape[-2]), int(canvas.shape[-1]))
            maps.append(full_scores(SigmoidPrediction(logits[:, -1:], boxes, shape, shape), shape)[0])
        return maps

    @classmethod
    def label_view(cls, training: TrainingConfig) -> LabelView:
        """The official target of the token reads where unseen classes are."""
        view = super().label_view(training)
        official = cast(TagClipTraining, training).trust_target == "official-unseen" and view.labelled == "seen"
        return LabelView(view.names, view.labelled, view.marks_unseen or official)

    @classmethod
    def implied(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Scores are calibrated in the inductive setting alone, and weighed where there is a token.

        Raises:
            UsageError: A target is given to a token that is off: labels would be read, and the run marked, for nothing.
        """
        target = settings.get("trust_target", "seen-vs-rest")
        if settings.get("token") is False and target != "seen-vs-rest":
            what = f"tagclip: trust_target {target} is what the token learns, which is off (token = false)."
            raise UsageError(what, "Leave one of the two out.")
        found = super().implied(settings)
        plain = bool(found) or settings.get("token") is False
        return {**found, **({"fusion": "none"} if plain else {})}

    @classmethod
    def caveats(cls, training: Mapping[str, Any]) -> list[str]:
        """Say where the place of unseen classes was read."""
        found = super().caveats(training)
        if training.get("trust_target") == "official-unseen" and training.get("setting") != "supervised":
            found.append("trust_target official-unseen: training read where unseen classes are in its pictures.")
        return found

    def loss_terms(
        self, logits: Tensor, trust: Tensor | None, labels: Tensor, text: TextFeatures, pairs: float
    ) -> dict[str, Tensor]:
        """Return "focal", "dice" and, of the token's map, "trust", weighted."""
        terms = super().loss_terms(logits, trust, labels, text, pairs)
        if trust is not None:
            terms["trust"] = (
                self.recipe.trust_weight * binary_focal_sum(trust, self.unseen_target(labels, text)) / pairs
            )
        return terms

    def unseen_target(self, labels: Tensor, text: TextFeatures) -> Tensor:
        """Return (B, H, W) bool: where the token's map shall be 1."""
        if text.seen is None:
            is_unseen = torch.zeros(text.num_classes, dtype=torch.bool, device=labels.device)
        else:
            is_unseen = torch.ones(text.num_classes, dtype=torch.bool, device=labels.device)
            is_unseen[text.class_of_row[text.seen].to(labels.device)] = False
        of_unseen_class = is_unseen[labels.clamp_min(0)] & (labels >= 0)  # pseudo labels
        if self.recipe.trust_target == "official-unseen":
            return of_unseen_class | (labels == UNSEEN_PIXEL)
        return of_unseen_class | (labels < 0)
