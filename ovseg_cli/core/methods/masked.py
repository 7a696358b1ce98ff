"""What methods share that make masks first and name them second: hosts with frozen CLIP, and MAFT.

One picture: resize → canvas (padded to a multiple of 32) → candidates (N masks, the host's own class logits) → class
scores of the masks → `MaskPrediction` of the part of the canvas that the picture covers.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip import inputs
from ovseg_cli.core.clip.inputs import ResizeRule
from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.base import Method, MethodConfig, Source, check_picture
from ovseg_cli.core.types import MaskPrediction, Prediction, TextFeatures

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Canvas:
    """A resized picture and the size that it is padded to.

    Attributes:
        image: (3, h, w) float32 RGB, 0 to 255, without padding.
        size: (Hc, Wc) with Hc ≥ h, Wc ≥ w; the picture lies top left.
        picture: (3, H, W) uint8, as it was before resizing.
    """

    image: Tensor
    size: tuple[int, int]
    picture: Tensor

    @property
    def area(self) -> tuple[int, int]:
        """(h, w) of the picture on the canvas."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])

    def normalised(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
        """Return (3, Hc, Wc): (image - mean) / std, then zeros as padding; mean and std of values 0 to 255."""
        mean, std = (torch.as_tensor(v).to(self.image).view(3, 1, 1) for v in (mean, std))
        (height, width), (h, w) = self.size, self.area
        return F.pad((self.image - mean) / std, (0, width - w, 0, height - h))


@dataclass(frozen=True)
class Candidates:
    """Masks of one canvas.

    Attributes:
        masks: (N, Hc, Wc) float32 probabilities, on the padded canvas.
        class_logits: (N, M + 1), the host's own, last column "no object"; None where masks come without names.
    """

    masks: Tensor
    class_logits: Tensor | None = None


class MaskSource(Protocol):
    """Where masks come from: a host, a generator, a cache."""

    @property
    def digest(self) -> str:
        """Fingerprint of all that the masks depend on."""

    def propose(self, canvases: Sequence[Canvas], text: TextFeatures) -> list[Candidates]:
        """Make the masks of canvases of one size."""


class MaskConfig(MethodConfig):
    """Settings of methods that name masks."""

    size_divisibility: int = Field(default=32, ge=1, description="Pictures are padded to a multiple of this.")


class MaskMethod(Method):
    """A method that makes masks, or is given some, and names them."""

    Config = MaskConfig
    config: MaskConfig
    sources: ClassVar[dict[str, Source]] = {
        **Method.sources,
        "size_divisibility": Source("code", "MaskFormer's SIZE_DIVISIBILITY, 32 in all hosts"),
    }

    def resize_rule(self) -> ResizeRule:
        """How large a picture becomes before it is padded."""
        return replace(super().resize_rule(), patch=1)

    @abstractmethod
    def propose(self, canvases: Sequence[Canvas], text: TextFeatures) -> list[Candidates]:
        """Make the masks of canvases of one size."""

    @abstractmethod
    def score_candidates(self, canvas: Canvas, candidates: Candidates, text: TextFeatures) -> Tensor:
        """Return (N, M) class scores, 0 or more: what a mask adds to each class where it is 1."""

    def fuse(self, class_logits: Tensor, clip_logits: Tensor, seen: Tensor | None, empty: Tensor) -> Tensor:
        """Combine the host's own class logits with CLIP's, as the paper of the host does.

        Args:
            class_logits: (N, M + 1), last column "no object".
            clip_logits: (N, M) of the regions.
            seen: (M,) bool, or None: every class counts as unseen.
            empty: (N,) bool, masks without a pixel above one half.

        Returns:
            (N, M) class scores.
        """
        raise NotImplementedError(f"{self.name} has no class logits of its own to fuse")

    def canvas(self, image: Tensor) -> Canvas:
        """Resize a picture and say how far it is padded.

        Raises:
            ShapeError: It is no (3, H, W), or has no pixels.
        """
        check_picture(image)
        image = image.to(self.clip.device)
        size = self.resize_rule().size(*image.shape[-2:])
        resized = image.float() if size == tuple(image.shape[-2:]) else inputs.resize_image(image, size, True)
        return Canvas(resized, self._padded(size), image)

    def _padded(self, size: tuple[int, int]) -> tuple[int, int]:
        unit = self.config.size_divisibility
        return -(-size[0] // unit) * unit, -(-size[1] // unit) * unit

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], text: TextFeatures) -> list[Prediction]:
        """Score pictures against names; each on its own canvas, so that companions change nothing.

        Args:
            images: Pictures of any size, each (3, H, W) uint8 RGB.
            text: Features of M names.

        Returns:
            One `MaskPrediction` a picture.
        """
        return list(self._predict_canvases([self.canvas(image) for image in images], text))

    def _predict_canvases(self, canvases: Sequence[Canvas], text: TextFeatures) -> list[MaskPrediction]:
        self.check_text(text)
        text = text.to(self.clip.device)
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, canvas in enumerate(canvases):
            by_size[canvas.size].append(i)
        found: dict[int, MaskPrediction] = {}
        for places in by_size.values():
            group = [canvases[i] for i in places]
            for i, canvas, candidates in zip(places, group, self.propose(group, text), strict=True):
                found[i] = self._prediction(canvas, candidates, text)
        return [found[i] for i in range(len(canvases))]

    def _prediction(self, canvas: Canvas, candidates: Candidates, text: TextFeatures) -> MaskPrediction:
        scores = self.score_candidates(canvas, candidates, text)
        height, width = canvas.area
        size = int(canvas.picture.shape[-2]), int(canvas.picture.shape[-1])
        return MaskPrediction(scores, candidates.masks[:, :height, :width], size)

    @torch.no_grad()
    def predict_scores(
        self,
        images: Sequence[Tensor],
        text_features: Tensor,
        output_size: tuple[int, int],
        seen: Tensor | None = None,
    ) -> Tensor:
        """Return dense scores at one output size, the pictures padded to one common canvas, as detectron2 batches them.

        Args:
            images: Pictures, each (3, H, W) uint8 RGB.
            text_features: (K, D), unit length.
            output_size: (H', W') of the returned scores.
            seen: (K,) bool, which classes the model was trained with; None: every class counts as unseen.

        Returns:
            (B, K, H', W') float32.
        """
        from ovseg_cli.core.nn.label_maps import full_scores

        canvases = [self.canvas(image) for image in images]
        common = tuple(max(sizes) for sizes in zip(*(c.size for c in canvases), strict=True))
        canvases = [replace(canvas, size=(common[0], common[1])) for canvas in canvases]
        text = replace(TextFeatures.of_classes(text_features), seen=seen)
        return torch.stack([full_scores(p, output_size) for p in self._predict_canvases(canvases, text)])


class SourceConfig(MaskConfig):
    """Settings of methods whose masks come from elsewhere."""

    proposals: str = Field(
        default="superpixels",
        description="Where masks come from: `host` (the run's own), a generator, a cache of `ovseg propose`, or a run.",
    )
    proposal_settings: dict[str, Any] = Field(default={}, description="Settings of that generator.")


class SourceMethod(MaskMethod):
    """A mask method that only names masks; whoever builds it opens the setting `proposals` and calls `set_source`."""

    Config = SourceConfig
    config: SourceConfig
    sources: ClassVar[dict[str, Source]] = {
        **MaskMethod.sources,
        "proposals": Source("ours", "the papers take a host's; any masks will do"),
        "proposal_settings": Source("ours", "the generator's own defaults"),
    }
    _source: tuple[MaskSource, ...] = ()

    def set_source(self, source: MaskSource) -> None:
        """Say where masks come from. A host is not part of this method: neither trained nor saved with it."""
        self._source = (source,)

    @property
    def source(self) -> MaskSource:
        """Where masks come from.

        Raises:
            UsageError: Nobody has said so.
        """
        if not self._source:
            raise UsageError(f"{self.name}: nobody has said where its masks come from.", "Call set_source first.")
        return self._source[0]

    @property
    def digest(self) -> str:
        """Fingerprint of all weights, and of what the masks depend on."""
        return digest_of([super().digest, *(source.digest for source in self._source)])

    def propose(self, canvases: Sequence[Canvas], text: TextFeatures) -> list[Candidates]:
        """Ask the source for the masks of canvases of one size."""
        return self.source.propose(canvases, text)


def training_canvases(images: Tensor) -> list[Canvas]:
    """Return the canvases of a training batch, (B, 3, H, W) uint8: already cropped and padded."""
    size = int(images.shape[-2]), int(images.shape[-1])
    return [Canvas(image.float(), size, image) for image in images]
