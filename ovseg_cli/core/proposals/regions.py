"""How can a hundred overlapping binary masks travel and be measured without ever being written out?

All pixels that lie in the same masks form a region. A picture's N masks are one map of region numbers and a table that
says which mask holds which region: a few hundred regions stand for 100 masks of a superpixel hierarchy. Resizing,
cropping and mirroring then touch one map instead of N masks, and areas and overlaps are counts of pixels by region.
Nothing is approximated.

Measured on 100 masks of 480 x 640 pixels and a crop of 640 x 640, one thread: decoding and cropping each mask 50 ms,
making the map 4 ms and cropping it 0.5 ms, writing the masks of the crop out 17 ms; overlaps with the classes of a
label by counting 0.6 ms, by matrix product of the masks 160 ms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovseg_cli.core.data import rle
from ovseg_cli.core.errors import ShapeError

NOWHERE = 0
"""The region that no mask holds; it has its column in every table, whether a pixel lies there or not."""

_ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class RegionMasks:
    """Binary masks of one canvas.

    Attributes:
        ids: (H, W) int32, the region of each pixel.
        table: (N, R) uint8, 1 where the mask holds the region.
    """

    ids: Tensor
    table: Tensor

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the canvas."""
        return int(self.ids.shape[0]), int(self.ids.shape[1])

    def masks(self) -> Tensor:
        """Write the masks out, (N, H, W) uint8, 255 = inside."""
        if self.ids.device.type == "cpu":
            levels = (self.table * 255).numpy()
            return torch.from_numpy(levels.take(self.ids.numpy(), axis=1))
        return (self.table * 255).index_select(1, self.ids.flatten()).unflatten(1, self.size)

    def resized(self, size: tuple[int, int]) -> Tensor:
        """Return (N, h, w) float32, 0 to 1: the masks resized bilinear, corners not aligned, no antialiasing.

        Equal to resizing the written-out masks, but for rounding: only the four pixels that each value mixes are read.
        """
        rows, row_weights = neighbours(self.size[0], size[0], self.ids.device)
        columns, column_weights = neighbours(self.size[1], size[1], self.ids.device)
        corners = self.ids[rows.flatten()][:, columns.flatten()]
        values = self.table.float()[:, corners.flatten().long()].unflatten(1, corners.shape)
        values = (values.unflatten(2, columns.shape) * column_weights).sum(3)
        return (values.unflatten(1, rows.shape) * row_weights[:, :, None]).sum(2)

    def areas(self) -> Tensor:
        """Return the pixels of each mask, (N,) float32."""
        counts = torch.bincount(self.ids.flatten().long(), minlength=self.table.shape[1])
        return _exact_product(self.table, counts)

    def overlaps(self, labels: Tensor, num_classes: int) -> Tensor:
        """Return how many pixels of each class each mask holds.

        Args:
            labels: (H, W) integers; values outside 0 to K - 1 count for no class.
            num_classes: K.

        Returns:
            (N, K) float32: whole numbers, exact below 16.7 million.

        Raises:
            ShapeError: The label has another size.
        """
        if tuple(labels.shape) != self.size:
            raise ShapeError(f"labels {tuple(labels.shape)} and masks of {self.size} differ in size")
        counted = (labels >= 0) & (labels < num_classes)
        pairs = self.ids.long() * (num_classes + 1) + torch.where(counted, labels.long(), num_classes)
        regions = self.table.shape[1]
        counts = torch.bincount(pairs.flatten(), minlength=regions * (num_classes + 1))
        return _exact_product(self.table, counts.unflatten(0, (regions, num_classes + 1))[:, :num_classes])


def split_regions(codes: Sequence[bytes], size: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return the map of regions, (H, W) int32, and the table of masks, (N, R) uint8, of COCO codes.

    Region 0, `NOWHERE`, is what lies in no mask.

    Raises:
        RleError: A code is no mask of this size.
    """
    if not codes:
        return np.zeros(size, np.int32), np.zeros((0, 1), np.uint8)
    starts, words = _memberships(codes, size)
    kinds, of_segment = _distinct(words)
    table = np.unpackbits(kinds.astype("<u8").view(np.uint8), axis=1, bitorder="little")[:, : len(codes)]
    lengths = np.diff(starts, append=size[0] * size[1])
    down_the_columns = np.repeat(of_segment.astype(np.int32), lengths)
    return down_the_columns.reshape(size[1], size[0]).T, np.ascontiguousarray(table.T)


def _memberships(codes: Sequence[bytes], size: tuple[int, int]) -> tuple[NDArray[np.int64], list[NDArray[np.uint64]]]:
    """Cut the picture, read down the columns, where any mask begins or ends.

    Returns:
        The first pixel of each segment, (S,), and which masks hold it: one array (S,) for each 64 masks, a bit a mask.
        The first segment lies in no mask, and is empty where a mask begins at the first pixel.
    """
    counts, place = rle.run_lengths(codes, size)
    area = size[0] * size[1]
    mask = np.cumsum(place == 0) - 1
    ends = np.cumsum(counts) - mask * area  # where a run ends, a mask begins or ends
    inside = ends < area
    ends, mask, begins = ends[inside], mask[inside], (place[inside] & 1) == 0
    order = np.argsort(ends, kind="stable")
    ends, mask, begins = ends[order], mask[order], begins[order]
    last = np.flatnonzero(np.diff(ends, append=area))
    starts = np.concatenate([[0], ends[last]])
    words = []
    for word in range((len(codes) + 63) // 64):
        bit = np.uint64(1) << (mask & 63).astype(np.uint64)
        change = np.where(begins, bit, bit * _ALL_ONES)  # + bit, or - bit in the arithmetic modulo 2^64
        state = np.cumsum(np.where(mask >> 6 == word, change, np.uint64(0)), dtype=np.uint64)
        words.append(np.concatenate([np.zeros(1, np.uint64), state[last]]))
    return starts, words


def _distinct(words: list[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Number the distinct combinations; return them, (R, words), and the number of each segment, (S,)."""
    numbers = np.zeros(len(words[0]), np.int64)
    for word in words:
        values, places = np.unique(word, return_inverse=True)
        numbers = np.unique(numbers * len(values) + places, return_inverse=True)[1]
    example = np.zeros(int(numbers.max()) + 1, np.int64)
    example[numbers] = np.arange(len(numbers))
    return np.stack([word[example] for word in words], axis=1), numbers


def _exact_product(table: Tensor, counts: Tensor) -> Tensor:
    """Add up counts in float32 even inside autocast, which would round them to 8 bits."""
    with torch.autocast(table.device.type, enabled=False):
        return table.float() @ counts.float()


def neighbours(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return which two pixels each target pixel mixes, (target, 2), and with which weights, as `F.interpolate` does."""
    where = ((torch.arange(target, device=device) + 0.5) * (source / target) - 0.5).clamp(min=0)
    low = where.long().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    share = where - low
    return torch.stack([low, high], 1), torch.stack([1 - share, share], 1)
