"""How do a picture's proposals follow it into a training example, and how does a step get at them?

The loader sends what is small: a map of regions for binary masks, the cached resolution for soft ones. A step asks for
written-out masks, or for less: masks at the size of a ViT's grid, overlaps with the label.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg_cli.core.proposals.entry import Entry
from ovseg_cli.core.proposals.regions import NOWHERE, RegionMasks, split_regions
from ovseg_cli.core.proposals.soft_masks import SoftMasks, bilinear
from ovseg_cli.core.training.augment import Place, Size, warp_label

MaskCrop = RegionMasks | SoftMasks
"""The masks of one example: `len`, `size`, `masks()`, `resized(size)`, `areas()`, `overlaps(labels, num_classes)`."""


class MaskCrops(Sequence[Tensor]):
    """The masks of a batch: item `b` writes those of example `b` out, (N_b, H, W) uint8, 255 = probability 1.

    Attributes:
        crops: The same, one `MaskCrop` an example, not written out.
    """

    def __init__(self, crops: Sequence[MaskCrop]):
        self.crops = tuple(crops)

    @classmethod
    def of(cls, parts: Sequence[dict[str, Tensor]]) -> "MaskCrops":
        """Wrap what `crop_masks` returned for each example, on any device."""
        return cls([RegionMasks(**part) if "ids" in part else SoftMasks(**part) for part in parts])

    @property
    def counts(self) -> list[int]:
        """How many masks each example has."""
        return [len(crop) for crop in self.crops]

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return MaskCrops(self.crops[index])
        return self.crops[index].masks()

    def __iter__(self) -> Iterator[Tensor]:
        return (crop.masks() for crop in self.crops)


def crop_masks(entry: Entry, place: Place, canvas: Size) -> dict[str, Tensor]:
    """Return the proposals of an example, as tensors that travel to a device and become a `MaskCrop` there.

    Args:
        entry: The cached proposals of the picture.
        place: What of the picture the example shows.
        canvas: (H, W), at least the example's size; masks are empty outside the example.

    Raises:
        RleError: A code does not fit the picture's size.
    """
    if entry.codes is not None:
        return _crop_regions(*split_regions(entry.codes, entry.size), place, canvas)
    assert entry.soft is not None
    rows = _mixing(entry.soft.shape[1], place.full[0], place.top, place.height, canvas[0])
    columns = _mixing(entry.soft.shape[2], place.full[1], place.left, place.width, canvas[1])
    if place.mirrored:
        columns[: place.width] = columns[: place.width].flip(0)
    return {"levels": torch.from_numpy(entry.soft), "rows": rows, "columns": columns}


def _crop_regions(ids: np.ndarray, table: np.ndarray, place: Place, canvas: Size) -> dict[str, Tensor]:
    cropped = np.full(canvas, NOWHERE, np.int32)
    cropped[: place.height, : place.width] = warp_label(ids, place)
    return {"ids": torch.from_numpy(cropped), "table": torch.from_numpy(table)}


def _mixing(source: int, full: int, start: int, count: int, canvas: int) -> Tensor:
    """(canvas, source): the rows `start` to `start + count` of a bilinear resize to `full`, then zeros."""
    matrix = torch.zeros(canvas, source)
    matrix[:count] = bilinear(source, full)[start : start + count]
    return matrix
