"""What a mask generator returns: one embedding and one mask for each query, and those of its earlier layers."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class GeneratorOutput:
    """Queries of one batch.

    Attributes:
        embeddings: (B, Q, D), compared with text rows later; not normalised.
        mask_logits: (B, Q, h, w) before the sigmoid, at stride 4 of the canvas.
        aux: Embeddings and mask logits of earlier predictions, first one first; empty where the generator has none.
    """

    embeddings: Tensor
    mask_logits: Tensor
    aux: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def predictions(self) -> list[tuple[Tensor, Tensor]]:
        """Return the final prediction, then the earlier ones."""
        return [(self.embeddings, self.mask_logits), *self.aux]
