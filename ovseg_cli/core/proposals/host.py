"""A trained host as a generator: the masks of a run of freeseg, zegformer, zsseg or any other method that makes masks.

The host's masks are probabilities, and stay so: soft masks of 8 bits. On the method's canvas they have the size of the
resized picture; here each is averaged over squares of `stride` pixels, 4 by default, the grid on which hosts compute.
Where masks depend on the names that are asked for (FreeSeg), the vocabulary belongs to the cache's key.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ovseg_cli.core.proposals.base import GeneratorConfig, ProposalGenerator, settings_digest

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg_cli.core.types import Proposals, TextFeatures


class HostConfig(GeneratorConfig):
    """Settings of a host's masks."""

    stride: int = Field(
        default=4, ge=1, description="Masks are kept at one value for so many pixels of the resized picture, squared."
    )


class HostGenerator(ProposalGenerator):
    """Makes masks with a built method.

    Args:
        method: A `MaskMethod` with its weights.
        text: Features of the names that its masks may depend on.
        vocabulary: Fingerprint of those names.
        config: Settings.
    """

    name: ClassVar[str] = "host"
    title: ClassVar[str] = "a trained host"
    source: ClassVar[str] = "the run of a method that makes masks"
    Config = HostConfig
    config: HostConfig
    needs_weights: ClassVar[bool] = True

    def __init__(self, method: Any, text: "TextFeatures", vocabulary: str, config: HostConfig | None = None):
        super().__init__(config, str(method.clip.device))
        self.method, self.text, self._vocabulary = method, text, vocabulary

    @property
    def weights(self) -> str:
        """Fingerprint of the method's weights and settings."""
        import json

        from ovseg_cli.core.files import digest_of

        settings = json.dumps(self.method.config.model_dump(mode="json"), sort_keys=True)
        return digest_of([self.method.name, self.method.digest, settings])

    @property
    def vocabulary(self) -> str:
        """Fingerprint of the names."""
        return self._vocabulary

    @property
    def digest(self) -> str:
        """Fingerprint of all that the masks of a picture depend on but the picture."""
        return settings_digest(type(self), self.config, self.weights, self.vocabulary)

    def generate(self, image: "Tensor", label: "Tensor | None" = None) -> "Proposals":
        """Make the masks of one picture.

        Args:
            image: (3, H, W) uint8 RGB.
            label: Not looked at.

        Returns:
            At most `max_masks` soft masks, (N, h, w) with h and w the resized picture's divided by `stride`. The score
            is the probability that the mask is an object, 1 where the host does not say.
        """
        import torch
        from torch.nn.functional import interpolate

        from ovseg_cli.core.types import Proposals

        with torch.no_grad():
            canvas = self.method.canvas(image)
            candidates = self.method.propose([canvas], self.text.to(self.method.clip.device))[0]
            scores = torch.ones(len(candidates.masks))
            if candidates.class_logits is not None:
                scores = 1 - candidates.class_logits.float().softmax(-1)[:, -1].cpu()
            best = scores.argsort(descending=True, stable=True)[: self.config.max_masks]
            height, width = canvas.area
            masks = candidates.masks[best.to(candidates.masks.device), :height, :width]
            grid = -(-height // self.config.stride), -(-width // self.config.stride)
            if grid != (height, width) and len(masks):
                masks = interpolate(masks[:, None].float(), grid, mode="area")[:, 0]
            soft = (masks * 255).round().clamp(0, 255).to(torch.uint8).cpu()
        if not len(best):
            soft = soft.new_zeros((0, *grid))
        size = int(image.shape[-2]), int(image.shape[-1])
        return Proposals(soft, scores[best].float(), size)
