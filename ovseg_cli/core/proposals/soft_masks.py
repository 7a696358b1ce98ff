"""How do soft masks of low resolution become a training example's, without being enlarged first?

Enlarging bilinearly, cropping, mirroring and padding are linear in rows and in columns: two small matrices say it all,
example = R · mask · Cᵀ. What is asked of the masks (smaller ones for a ViT's patches, overlaps with a label) is
computed with the matrices at the masks' own resolution.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.proposals.regions import neighbours


@dataclass(frozen=True)
class SoftMasks:
    """Probabilities of one canvas.

    Attributes:
        levels: (N, h, w) uint8, 255 = probability 1; they cover the whole picture that the canvas shows a part of.
        rows: (H, h) float32, how the canvas's rows mix those of `levels`; zero where the canvas is padding.
        columns: (W, w) float32, likewise.
    """

    levels: Tensor
    rows: Tensor
    columns: Tensor

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the canvas."""
        return len(self.rows), len(self.columns)

    def masks(self) -> Tensor:
        """Write the masks out, (N, H, W) uint8, 255 = probability 1."""
        return (_between(self.rows, self.levels, self.columns) + 0.5).clamp(0, 255).to(torch.uint8)

    def resized(self, size: tuple[int, int]) -> Tensor:
        """Return (N, h, w) float32, 0 to 1: the masks resized bilinear, corners not aligned, no antialiasing."""
        rows = _product(bilinear(self.size[0], size[0], self.rows.device), self.rows)
        columns = _product(bilinear(self.size[1], size[1], self.columns.device), self.columns)
        return _between(rows, self.levels, columns) / 255

    def areas(self) -> Tensor:
        """Return the sum of each mask's probabilities, (N,) float32."""
        weights = self.rows.sum(0)[:, None] * self.columns.sum(0)
        return (self.levels.float() * weights).sum((1, 2)) / 255

    def overlaps(self, labels: Tensor, num_classes: int) -> Tensor:
        """Return the sum of each mask's probabilities over the pixels of each class.

        Args:
            labels: (H, W) integers; values outside 0 to K - 1 count for no class.
            num_classes: K.

        Returns:
            (N, K) float32.

        Raises:
            ShapeError: The label has another size.
        """
        if tuple(labels.shape) != self.size:
            raise ShapeError(f"labels {tuple(labels.shape)} and masks of {self.size} differ in size")
        out = torch.zeros(len(self), num_classes, device=self.levels.device)
        present = [k for k in labels.unique().tolist() if 0 <= k < num_classes]
        if present:
            of_class = torch.stack([(labels == k).float() for k in present])
            weights = _between(self.rows.T, of_class, self.columns.T)
            out[:, present] = _product(self.levels.flatten(1).float(), weights.flatten(1).T) / 255
        return out


def bilinear(source: int, target: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the (target, source) matrix of a bilinear resize, corners not aligned, no antialiasing."""
    where, weights = neighbours(source, target, torch.device(device))
    return torch.zeros(target, source, device=device).scatter_add_(1, where, weights)


def _between(rows: Tensor, values: Tensor, columns: Tensor) -> Tensor:
    """Return rows · values · columnsᵀ, (N, H, W) float32, of values (N, h, w)."""
    return _product(rows, _product(values.float(), columns.T))


def _product(one: Tensor, other: Tensor) -> Tensor:
    """Multiply matrices in float32 even inside autocast."""
    with torch.autocast(one.device.type, enabled=False):
        return one @ other
