"""The contract of a method: few verbs, one config, and what `ovseg show` prints.

A method file opens with paper, year, what is trained, what is frozen and where paper and code disagree; then its
config model with one sentence a field; then the class.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ovseg_cli.core.clip.inputs import ResizeRule
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.types import Prediction, TextFeatures


@dataclass(frozen=True)
class Source:
    """Where the default of a setting comes from: "code", "log", "paper" or "ours", with the place."""

    kind: Literal["code", "log", "paper", "ours"]
    place: str


class MethodConfig(BaseModel):
    """Settings that every method shares. Unknown keys are refused; the file's errors name the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Literal["square", "short-side", "none"] = Field(
        default="short-side",
        description="How a picture is brought to the encoder: squashed to a square, short side, or as it is.",
    )
    side: int = Field(
        default=0,
        ge=0,
        description="Length of the square or of the short side in pixels; 0 is the CLIP's own: 1.5 times its image "
        "size, unless its file says otherwise.",
    )
    max_long_side: int = Field(
        default=2560, ge=1, description="Pictures are scaled down where the long side would exceed this (not squares)."
    )
    windows_per_batch: int = Field(
        default=16, ge=1, description="Windows or pictures of equal size that go through the encoder at once."
    )


class Method(nn.Module, ABC):
    """A method under the shared protocol.

    Class attributes are what `ovseg list` and `ovseg show` print; `registry.METHODS` finds the class by name.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    trains: ClassVar[str] = "nothing"
    templates: ClassVar[str | None] = None
    """Template set of the method's paper, where the data set's spec names none."""
    templates_on: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Sentences that the paper reads instead on some data sets, by their names."""
    name_variants: ClassVar[tuple[str, ...]] = ()
    """Class names of the method's paper, as ids of name variants, the preferred one first; none: the data set's."""
    extra_templates: ClassVar[dict[str, str]] = {}
    """Further texts that the method reads, template set by role; they reach it in `TextFeatures.extra`."""
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    sources: ClassVar[dict[str, Source]] = {
        "resize": Source("ours", "one protocol for all methods; a data set's preset may change it"),
        "side": Source("ours", "1.5 times the image size is SCLIP's and NACLIP's 336 for ViT-B/16"),
        "max_long_side": Source("code", "PixelCLIP and CAT-Seg, test-time resize"),
        "windows_per_batch": Source("ours", "changes speed and memory, not the scores"),
    }

    def __init__(self, clip: ClipModel, config: MethodConfig | None = None):
        super().__init__()
        self.clip = clip
        self.config = config or self.Config()

    @property
    def digest(self) -> str:
        """Fingerprint of all weights: CLIP's, and what was trained beside or instead of them."""
        trained = self.trained_state()
        if not trained:
            return self.clip.digest
        parts: list[str | bytes] = ["method-1", self.name, self.clip.digest]
        for key in sorted(trained):
            parts += [key, trained[key].detach().float().cpu().contiguous().numpy().data.cast("B")]  # type: ignore[list-item]
        return digest_of(parts)

    def trained_state(self) -> dict[str, Tensor]:
        """What a run folder keeps: trained weights and their buffers by name; empty for training-free methods."""
        return {}

    @property
    def seen_penalty(self) -> float:
        """Subtracted from the scores of seen classes where the user says nothing (calibration, gamma)."""
        return 0.0

    @property
    def background_threshold(self) -> float | None:
        """Probability below which a pixel becomes background, where there is one and the user says nothing."""
        return None

    def remark(self, text: TextFeatures) -> str | None:
        """Return what must be said of scores of these names, besides the settings; None where nothing is."""
        return None

    def resize_rule(self) -> ResizeRule:
        """How large a picture becomes: multiples of the patch."""
        config = self.config
        return ResizeRule(
            config.resize, config.side or self.clip.dense_side, config.max_long_side, self.clip.patch_size
        )

    def check_text(self, text: TextFeatures) -> None:
        """Refuse text features of another CLIP.

        Raises:
            ShapeError: Their dimensions are not those of this CLIP.
        """
        if text.features.shape[-1] != self.clip.embed_dim:
            raise ShapeError(
                f"text features {tuple(text.features.shape)} and the CLIP's {self.clip.embed_dim} dimensions differ"
            )

    @property
    def probability_scale(self) -> float:
        """What multiplies this method's scores before a softmax over names makes probabilities of them."""
        return 1.0

    @abstractmethod
    def predict(self, images: Sequence[Tensor], text: TextFeatures) -> list[Prediction]:
        """Score pictures against names.

        Args:
            images: Pictures of any size, each (3, H, W) uint8 RGB.
            text: Features of M names, (M, D).

        Returns:
            One prediction a picture; its `size` is the picture's (H, W).
        """

    @torch.no_grad()
    def predict_scores(
        self,
        images: Sequence[Tensor],
        text_features: Tensor,
        output_size: tuple[int, int],
        seen: Tensor | None = None,
    ) -> Tensor:
        """Return dense scores at one output size: for parity and notebooks, not for large pictures.

        Args:
            images: Pictures, each (3, H, W) uint8 RGB.
            text_features: (K, D), unit length.
            output_size: (H', W') of the returned scores.
            seen: (K,) bool, for methods that score seen and unseen classes differently.

        Returns:
            (B, K, H', W') float32.
        """
        from ovseg_cli.core.nn.label_maps import full_scores

        text = replace(TextFeatures.of_classes(text_features), seen=seen).to(self.clip.device)
        predictions = self.predict(images, text)
        return torch.stack([full_scores(p, output_size) for p in predictions])

    @abstractmethod
    def classify_masks(self, image: Tensor, masks: Tensor, text: TextFeatures) -> Tensor:
        """Score masks of one picture.

        Args:
            image: (3, H, W) uint8 RGB.
            masks: (N, H, W), 0 to 1.
            text: Features of M names.

        Returns:
            (N, M) logits: scaled cosines.
        """


def check_picture(image: Tensor) -> None:
    """Refuse what is no picture (3, H, W) with at least one pixel; raises ShapeError."""
    if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise ShapeError(f"a picture must be (3, H, W) RGB with at least one pixel, but got {tuple(image.shape)}")


def check_masks(masks: Tensor, image: Tensor) -> None:
    """Refuse masks (N, H, W) that have another size than their picture (3, H, W); raises ShapeError."""
    if masks.shape[-2:] != image.shape[-2:]:
        raise ShapeError(f"masks {tuple(masks.shape)} and picture {tuple(image.shape)} differ in height or width")
