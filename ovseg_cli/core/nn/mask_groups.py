"""How do the masks of a batch become targets for the names that they were grouped by?

Masks travel as regions (proposals/regions.py): all pixels that lie in the same masks are one region, so that the union
of any masks is a row of flags a region, and never a map a mask. A mask with at most one pixel on the grid is left out,
as in PixelCLIP's code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

FEWEST_PIXELS = 2
"""Masks with fewer pixels on the grid are left out."""
LEVEL = 128
"""Soft masks hold a pixel from this on, of 255."""

OnGrid = tuple[Tensor, Tensor]
"""Masks of one picture: ids (M, M') int32, the region of each pixel, 0 in no mask; table (N, R) uint8, 1 where the mask
holds the region."""


class Masks(Protocol):
    """The masks of one example, not written out (training/mask_crops.py)."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the example's canvas."""

    def masks(self) -> Tensor:
        """Write the masks out, (N, H, W) uint8, 255 = inside."""


def masks_on_grid(masks: Masks, size: tuple[int, int], cut_out: Sequence[int] | None = None) -> OnGrid:
    """Bring the masks of a picture to a grid, by the nearest pixel.

    Args:
        masks: Those of the canvas, soft ones with a threshold of one half.
        size: (M, M') of the grid; the whole canvas is squeezed into it.
        cut_out: Top, left, height and width of a box, in pixels of the canvas, that no mask holds; None cuts nothing.

    Returns:
        Masks of the picture that have two pixels of the grid or more.
    """
    ids, table = _regions(masks)
    if cut_out is not None:
        top, left, height, width = cut_out
        ids = ids.clone()
        ids[top : top + height, left : left + width] = 0
    ids = F.interpolate(ids[None, None].float(), size, mode="nearest")[0, 0].to(torch.int32)
    counts = torch.bincount(ids.flatten().long(), minlength=table.shape[1])
    areas = table.double() @ counts.double()
    return ids, table[areas >= FEWEST_PIXELS]


def _regions(masks: Masks) -> OnGrid:
    """Return masks as regions; soft masks are written out for it."""
    ids, table = getattr(masks, "ids", None), getattr(masks, "table", None)
    if isinstance(ids, Tensor) and isinstance(table, Tensor):
        return ids, table
    inside = masks.masks() >= LEVEL
    if not len(inside):
        return torch.zeros(masks.size, dtype=torch.int32), torch.zeros(0, 1, dtype=torch.uint8)
    kinds, place = torch.unique(inside.flatten(1), dim=1, return_inverse=True)
    table = torch.cat([torch.zeros(len(inside), 1, dtype=torch.uint8), kinds.to(torch.uint8)], dim=1)
    return (place + 1).to(torch.int32).unflatten(0, masks.size), table


@dataclass(frozen=True)
class MaskGroups:
    """The masks of several pictures on one grid, and a feature of each.

    Attributes:
        ids: (B, M, M') int32.
        tables: For each picture (N, R) uint8.
        features: (Σ N, D), picture by picture.
    """

    ids: Tensor
    tables: tuple[Tensor, ...]
    features: Tensor

    @classmethod
    def of(cls, masks: Sequence[OnGrid], features: Sequence[Tensor]) -> "MaskGroups":
        """Put pictures together; `features` has for each of them (N, D)."""
        return cls(torch.stack([ids for ids, _ in masks]), tuple(table for _, table in masks), torch.cat([*features]))

    @property
    def counts(self) -> list[int]:
        """How many masks each picture has."""
        return [len(table) for table in self.tables]

    def padded_features(self) -> Tensor:
        """Return (B, N, D), zeros behind the masks of pictures that have fewer."""
        return pad_sequence([*self.features.split(self.counts)], batch_first=True)

    def own_targets(self) -> Tensor:
        """Return (B, R, N) uint8 in which each mask is a name of its own."""
        return _padded([table.T for table in self.tables], max(self.counts))


def grouped_targets(groups: MaskGroups, chosen: Tensor, names: int) -> Tensor:
    """Return (B, R, k) uint8: 1 where a mask that was given the name holds the region.

    Args:
        groups: The masks.
        chosen: (Σ N,) int64 on the CPU, the name of each mask, 0 to k - 1.
        names: k.
    """
    given = F.one_hot(chosen, names).to(torch.float32).split(groups.counts)
    each = zip(groups.tables, given, strict=True)
    return _padded([(table.T.float() @ rows > 0).to(torch.uint8) for table, rows in each], names)


def _padded(tables: Sequence[Tensor], width: int) -> Tensor:
    """Put (R, n) tables together, zeros where one has fewer regions or columns."""
    rows = max(len(table) for table in tables)
    return torch.stack([F.pad(table, (0, width - table.shape[1], 0, rows - len(table))) for table in tables])
