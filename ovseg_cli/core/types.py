"""The nouns that all layers share, each with its shapes.

Axes: B batch, C channels, H W pixels, h w feature grid, N proposals or windows, K classes, M text rows (names;
M = K unless synonyms compete one by one), T templates, L tokens, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.files import digest_of


@dataclass(frozen=True)
class Sample:
    """One picture of a data set.

    Attributes:
        name: Stem that is unique in its subset.
        image: (3, H, W) uint8 RGB.
        label: (H, W) int64 train ids, `ignore_label` where unknown; None for pictures without labels.
    """

    name: str
    image: Tensor
    label: Tensor | None = None


@dataclass(frozen=True)
class Vocabulary:
    """Class names (several synonyms each) times templates.

    Attributes:
        class_names: K canonical names, in train-id order.
        synonyms: For each class the texts that are encoded, at least one.
        templates: Sentences with one `{}` each.
        unseen: K flags; all False where there is no class split.
        is_thing: K flags, or None where the data set does not say.
        background: Train id of the background class, or None.
        synonym_rule: "mean" averages the synonyms' features to one row a class; "max" lets each compete alone.
    """

    class_names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...] = ("a photo of a {}.",)
    unseen: tuple[bool, ...] = ()
    is_thing: tuple[bool, ...] | None = None
    background: int | None = None
    synonym_rule: str = "mean"

    def __post_init__(self) -> None:
        if not self.unseen:
            object.__setattr__(self, "unseen", (False,) * len(self.class_names))

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def seen_ids(self) -> list[int]:
        """Train ids of seen classes."""
        return [i for i, flag in enumerate(self.unseen) if not flag]

    @property
    def unseen_ids(self) -> list[int]:
        """Train ids of unseen classes."""
        return [i for i, flag in enumerate(self.unseen) if flag]

    def select(self, ids: Sequence[int]) -> "Vocabulary":
        """Return the vocabulary of some classes only, in the order of `ids`."""
        kept = list(ids)
        background = kept.index(self.background) if self.background is not None and self.background in kept else None
        return replace(
            self,
            class_names=tuple(self.class_names[i] for i in ids),
            synonyms=tuple(self.synonyms[i] for i in ids),
            unseen=tuple(self.unseen[i] for i in ids),
            is_thing=None if self.is_thing is None else tuple(self.is_thing[i] for i in ids),
            background=background,
        )

    def digest(self) -> str:
        """Fingerprint of everything that changes the text features."""
        return digest_of(["vocabulary-1", self.synonym_rule, *self.templates, *("\x1f".join(s) for s in self.synonyms)])


@dataclass(frozen=True)
class TextFeatures:
    """Text features of a vocabulary.

    Attributes:
        features: (M, D) float32, unit length.
        class_of_row: (M,) int64, the class that each row speaks for; `arange(K)` unless synonyms compete.
        num_classes: K.
        seen: (M,) bool, whether the model was trained with labels of a row's class; None where nobody knows: then
            every class counts as unseen, as in the papers' open-vocabulary runs.
        extra: The same rows under other templates, (M, D) by role, for methods that read two texts (ZegFormer).
        at_home: The names are those of the data set and class split that the model was trained on; not another data
            set's, nor a user's own words.
    """

    features: Tensor
    class_of_row: Tensor
    num_classes: int
    seen: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    at_home: bool = True

    @classmethod
    def of_classes(cls, features: Tensor) -> "TextFeatures":
        """Wrap (K, D) features, one row a class."""
        return cls(features, torch.arange(len(features), device=features.device), len(features))

    def to(self, device: torch.device | str) -> "TextFeatures":
        """Move to a device."""
        return TextFeatures(
            self.features.to(device),
            self.class_of_row.to(device),
            self.num_classes,
            None if self.seen is None else self.seen.to(device),
            {role: rows.to(device) for role, rows in self.extra.items()},
            self.at_home,
        )


@dataclass(frozen=True)
class DensePrediction:
    """Scores on one grid that covers the whole picture.

    Attributes:
        logits: (M, h, w), any scale.
        size: (H, W) of the label map to make.
    """

    logits: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class WindowPrediction:
    """Scores of overlapping windows; where windows overlap, their up-sampled scores are averaged.

    Attributes:
        logits: (N, M, h, w), one grid a window, row-major from top left.
        boxes: (N, 4) int64: top, left, height, width of each window on the canvas.
        canvas: (Hc, Wc), size of the resized picture that the windows were cut from.
        size: (H, W) of the label map to make.
    """

    logits: Tensor
    boxes: Tensor
    canvas: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class MaskPrediction:
    """Class scores of masks; a pixel's score is the sum over masks of class score × mask value.

    Attributes:
        class_scores: (N, M), probabilities or other non-negative weights.
        masks: (N, h, w), values 0 to 1.
        size: (H, W) of the label map to make.
    """

    class_scores: Tensor
    masks: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if len(self.class_scores) != len(self.masks):
            raise ShapeError(
                f"class_scores {tuple(self.class_scores.shape)} and masks {tuple(self.masks.shape)} differ in N"
            )


@dataclass(frozen=True)
class SigmoidPrediction:
    """Logits of windows that become scores pixel by pixel: up-sampled first, then through a sigmoid, then weighted.

    With x a row's logit and t the trust logit, both bilinearly up-sampled to a pixel of the window, the row's score is

        (sigmoid(x) - penalty) * g,   g = 1, sigmoid(t) or 1 - sigmoid(t) where `gate` is 0, 1 or -1

    Where windows overlap, scores are averaged; the canvas of scores is then resized bilinearly to `size`.

    Attributes:
        logits: (N, M, h, w), one grid a window, row-major from top left.
        boxes: (N, 4) int64: top, left, height, width of each window on the canvas.
        canvas: (Hc, Wc), size of the resized picture that the windows were cut from.
        size: (H, W) of the label map to make.
        penalty: (M,), subtracted after the sigmoid; None subtracts nothing.
        trust: (N, h, w) logits; None where no row is gated.
        gate: (M,) int8 of -1, 0, 1; None gates nothing.
    """

    logits: Tensor
    boxes: Tensor
    canvas: tuple[int, int]
    size: tuple[int, int]
    penalty: Tensor | None = None
    trust: Tensor | None = None
    gate: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.trust is None) != (self.gate is None):
            raise ShapeError("trust and gate go together: one of them is missing")
        if self.trust is not None and self.trust.shape != self.logits[:, 0].shape:
            raise ShapeError(f"trust {tuple(self.trust.shape)} and logits {tuple(self.logits.shape)} differ in N, h, w")


Prediction = DensePrediction | WindowPrediction | MaskPrediction | SigmoidPrediction

UNSEEN_PIXEL = -2
"""Label of a pixel of some unseen class, for the few settings that may know where such pixels are, but not of which."""

TrainBatch = dict[str, Any]
"""What a training step sees: "images" (B, 3, H, W) uint8 RGB; "labels" (B, H, W) int64, positions in the training
vocabulary (seen classes only, unless a method's `LabelView` says otherwise), -1 where no class is; "classes", B tensors
of the positions that occur in each label; "areas" (B, 2), height and width of each picture inside the canvas, top left;
"masks", for methods that want proposals, B uint8 tensors (N_i, H, W), 255 = probability 1, written out when asked for
(mask_crops.py); "names", B names."""


@dataclass(frozen=True)
class Proposals:
    """Class-agnostic masks of one picture.

    Attributes:
        masks: (N, h, w) bool, or uint8 with 255 for probability 1 ("soft"). Bool masks have the picture's size; soft
            ones may be smaller, and cover the whole picture.
        scores: (N,) float32, the generator's own confidence, higher is better.
        size: (H, W) of the picture.
    """

    masks: Tensor
    scores: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        shape = tuple(self.masks.shape)
        if self.masks.ndim != 3 or self.masks.dtype not in (torch.bool, torch.uint8):
            raise ShapeError(f"masks must be (N, h, w) bool or uint8, but got {shape} {self.masks.dtype}")
        if self.masks.dtype == torch.bool and shape[1:] != tuple(self.size):
            raise ShapeError(f"masks {shape} and the picture's size {tuple(self.size)} differ")
        if self.scores.shape != shape[:1]:
            raise ShapeError(f"masks {shape} and scores {tuple(self.scores.shape)} differ in N")

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def is_soft(self) -> bool:
        """Whether the masks hold probabilities."""
        return self.masks.dtype == torch.uint8

    def probabilities(self) -> Tensor:
        """Return (N, h, w) float32, 0 to 1."""
        return self.masks.float() / 255 if self.is_soft else self.masks.float()


@dataclass(frozen=True)
class Readout:
    """How scores of M rows become one class id a pixel. What is set here changes the arg-max: a variant of a result.

    Attributes:
        candidates: Train ids that may be predicted; None lets all compete.
        seen_penalty: Subtracted from the score of every id in `seen_ids` (calibrated stacking, gamma).
        seen_ids: Train ids that the penalty applies to.
        softmax_scale: Multiplies the scores before a softmax over the M rows; needed by `threshold`.
        threshold: Where the best class probability is lower, the pixel becomes `background`.
        background: Train id for `threshold`.
    """

    candidates: tuple[int, ...] | None = None
    seen_penalty: float = 0.0
    seen_ids: tuple[int, ...] = field(default=())
    softmax_scale: float | None = None
    threshold: float | None = None
    background: int | None = None
