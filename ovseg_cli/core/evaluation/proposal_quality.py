"""How good are mask proposals, whatever names they will get? Recall against the regions of a label map, and an oracle.

A region is all pixels of one class in one picture, or each connected piece of them. Pixels without a class count
nowhere: proposals are cut down to the others first. Soft masks are cut at one half, at the picture's size.

- Average recall at k (AR@k), as COCO defines it (Lin et al., ECCV 2014, `COCOeval` with `useCats = 0`): the best k
  proposals of a picture are taken in order of their score; at an IoU threshold each takes the region it overlaps most
  among those that reach the threshold and are still free, so that a region is found at most once. AR@k is the share of
  regions that are found, over all pictures, averaged over the thresholds .50, .55, … .95. Classes play no part in the
  matching; a class's AR is the share of its own regions.
- Best IoU: the mean over regions of the IoU with their best proposal; a proposal may serve several regions.
- Oracle mIoU: every region is given its best proposal; the IoU of a class is the sum of the overlaps over the sum of
  the unions, over all pictures; mIoU is the mean over classes that have regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.data import rle

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
LIMITS = (10, 50, 100)
RegionRule = Literal["class", "component"]
_NEVER = np.iinfo(np.int64).max
_AT_ONCE = 32  # regions whose running counts are held at once


@dataclass(frozen=True)
class Regions:
    """The regions of one label map.

    Attributes:
        map: (H, W) int64, the region of each pixel, -1 where no class is known.
        classes: Train id of each region, (R,).
    """

    map: NDArray[np.int64]
    classes: NDArray[np.int64]


def regions_of(label: NDArray[np.integer], ignore_label: int, rule: RegionRule) -> Regions:
    """Find the regions of a label map, (H, W) train ids; connected pieces touch at sides or corners."""
    from scipy import ndimage

    found = np.full(label.shape, -1, np.int64)
    classes: list[int] = []
    for train_id in np.unique(label[label != ignore_label]).tolist():
        member = label == train_id
        if rule == "class":
            found[member] = len(classes)
            classes.append(train_id)
        else:
            pieces, count = ndimage.label(member, structure=np.ones((3, 3)))
            found[member] = len(classes) + pieces[member] - 1
            classes += [train_id] * count
    return Regions(found, np.array(classes, np.int64))


def overlaps(codes: Sequence[bytes], regions: Regions) -> NDArray[np.int64]:
    """Count the pixels that masks share with regions, (N, R), from the run lengths, decoding nothing.

    Raises:
        RleError: A code does not fit the label map's size.
    """
    count = len(regions.classes)
    shared = np.zeros((len(codes), count), np.int64)
    if not codes or not count:
        return shared
    height, width = regions.map.shape
    runs, place = rle.run_lengths(codes, (height, width))
    mask = np.cumsum(place == 0) - 1
    ends = np.cumsum(runs) - mask * (height * width)
    ones = (place & 1).astype(bool)
    first, last, owner = (ends - runs)[ones], ends[ones], mask[ones]
    columns = regions.map.T.ravel()
    for start in range(0, count, _AT_ONCE):
        some = np.arange(start, min(start + _AT_ONCE, count))
        running = np.zeros((len(columns) + 1, len(some)), np.int32)
        np.cumsum(columns[:, None] == some[None, :], axis=0, out=running[1:])
        np.add.at(shared[:, start : start + len(some)], owner, running[last] - running[first])
    return shared


@dataclass
class ImageQuality:
    """What is known of one picture's regions.

    Attributes:
        classes: Train id of each region, (R,).
        ranks: (thresholds, R): place, from 0, of the proposal that found the region; `_NEVER` where none did.
        best: IoU with the best proposal, (R,).
        hits, unions: Pixels that the best proposal and the region share, and cover together, (R,).
        proposals: How many there are.
    """

    classes: NDArray[np.int64]
    ranks: NDArray[np.int64]
    best: NDArray[np.float64]
    hits: NDArray[np.int64]
    unions: NDArray[np.int64]
    proposals: int


def score_image(codes: Sequence[bytes], scores: NDArray[np.floating], regions: Regions) -> ImageQuality:
    """Compare the proposals of a picture with its regions.

    Args:
        codes: N COCO codes of the picture's size.
        scores: (N,), higher is better; equal ones keep their order.
        regions: The regions.

    Raises:
        RleError: A code does not fit the label map's size.
    """
    shared = overlaps(codes, regions)
    covered = shared.sum(1)  # regions cover every pixel that has a class, without overlap
    sizes = np.bincount(regions.map[regions.map >= 0], minlength=len(regions.classes))
    unions = covered[:, None] + sizes[None, :] - shared
    ious = shared / np.maximum(unions, 1)
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")[: max(LIMITS)]
    ranks = np.stack([_match(ious[order], threshold) for threshold in THRESHOLDS])
    places = np.arange(len(regions.classes))
    if not len(codes):
        nothing = np.zeros(len(places), np.int64)
        return ImageQuality(regions.classes, ranks, nothing.astype(np.float64), nothing, sizes, 0)
    best = ious.argmax(0)
    return ImageQuality(
        regions.classes, ranks, ious[best, places], shared[best, places], unions[best, places], len(codes)
    )


def _match(ious: NDArray[np.float64], threshold: float) -> NDArray[np.int64]:
    """Let proposals, best first, take regions as COCO does; returns the proposal of each region, (R,).

    Of regions that overlap equally the last is taken, as in COCO's own loop.
    """
    found = np.full(ious.shape[1], _NEVER)
    left = np.where(ious >= min(threshold, 1 - 1e-10), ious, -1.0)
    for place in np.flatnonzero((left >= 0).any(1)):
        free = np.where(found == _NEVER, left[place], -1.0)
        taken = len(free) - 1 - int(free[::-1].argmax())
        if free[taken] >= 0:
            found[taken] = place
    return found


@dataclass
class QualityCounts:
    """Sums over pictures, for each class.

    Attributes:
        num_classes: K.
        images, proposals: Pictures, and their proposals.
    """

    num_classes: int
    images: int = 0
    proposals: int = 0
    regions: NDArray[np.int64] = field(init=False)
    found: NDArray[np.int64] = field(init=False)
    best: NDArray[np.float64] = field(init=False)
    hits: NDArray[np.int64] = field(init=False)
    unions: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.regions = np.zeros(self.num_classes, np.int64)
        self.found = np.zeros((len(LIMITS), len(THRESHOLDS), self.num_classes), np.int64)
        self.best = np.zeros(self.num_classes)
        self.hits = np.zeros(self.num_classes, np.int64)
        self.unions = np.zeros(self.num_classes, np.int64)

    def add(self, image: ImageQuality) -> None:
        """Add a picture."""
        self.images += 1
        self.proposals += image.proposals
        for total, values in ((self.best, image.best), (self.hits, image.hits), (self.unions, image.unions)):
            np.add.at(total, image.classes, values)
        np.add.at(self.regions, image.classes, 1)
        for place, limit in enumerate(LIMITS):
            for number, ranks in enumerate(image.ranks):
                np.add.at(self.found[place, number], image.classes, ranks < limit)

    def scores(self, classes: Sequence[int]) -> dict[str, Any]:
        """Return the scores of a set of classes, shares from 0 to 1, None where it has no region.

        Returns:
            `AR@10`, `AR@50`, `AR@100`, `best-IoU`, `mIoU` (oracle), `regions`, `classes` (that have regions).
        """
        ids = [train_id for train_id in classes if self.regions[train_id]]
        total = int(self.regions[ids].sum())
        if not total:
            nothing = {f"AR@{limit}": None for limit in LIMITS}
            return {**nothing, "best-IoU": None, "mIoU": None, "regions": 0, "classes": 0}
        recalls = {
            f"AR@{limit}": float(self.found[place][:, ids].sum() / (total * len(THRESHOLDS)))
            for place, limit in enumerate(LIMITS)
        }
        oracle = float((self.hits[ids] / np.maximum(self.unions[ids], 1)).mean())
        best = float(self.best[ids].sum() / total)
        return {**recalls, "best-IoU": best, "mIoU": oracle, "regions": total, "classes": len(ids)}
