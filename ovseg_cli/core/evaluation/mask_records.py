"""What is kept of the masks of a picture once they have names, so that every score can be made of it later.

- A mask's *true class* is the one that most of its labelled pixels have; of equally many the lowest train id.
- A mask that has no pixel, or of which less than half is labelled, is left out everywhere, and counted.
- *Painting*: each mask paints its best class, large masks first, so that smaller ones lie on top. Pixels that no mask
  covers have no class: they are missed, and belong to no class's prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.confusion import Counts, count

TOP = 5
"""So many of a mask's best classes are kept."""
UNIT = 1_000_000
"""Probabilities are kept as whole numbers of this part."""

Ints = NDArray[np.int64]
Masks = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MaskRecord:
    """The n masks of one picture; flat int64 arrays throughout.

    Attributes:
        picture: (2,): pixels of the picture, masks that were left out.
        areas: (n,) pixels of each mask.
        lengths: (n,) how many classes its labelled pixels have.
        classes: These classes, (Σ lengths,), one mask after the other, rising.
        pixels: How many pixels have them.
        tops: (n × t,) the best t classes of each mask, best first; t is the smaller of `TOP` and K.
        probabilities: (n × t,) theirs, in parts of `UNIT`.
        cells, counts: The painting as the cells of a confusion matrix of K + 1 classes, the last one for pixels that
            no mask covers; see `Counts`.
    """

    picture: Ints
    areas: Ints
    lengths: Ints
    classes: Ints
    pixels: Ints
    tops: Ints
    probabilities: Ints
    cells: Ints
    counts: Ints

    def plain(self) -> dict[str, list[int]]:
        """Return it as JSON values."""
        return {name: getattr(self, name).tolist() for name in ARRAYS}

    @classmethod
    def of_plain(cls, arrays: dict[str, Any]) -> "MaskRecord":
        """Read what `plain` or a packed table gave; refuses what does not fit together with a ValueError."""
        record = cls(**{name: np.asarray(arrays[name], np.int64) for name in ARRAYS})
        n = len(record.areas)
        fits = (
            len(record.picture) == 2,
            len(record.lengths) == n and bool((record.lengths > 0).all()),
            record.lengths.sum() == len(record.classes) == len(record.pixels),
            len(record.tops) == len(record.probabilities) == n * (len(record.tops) // max(1, n)),
            n == 0 or len(record.tops) > 0,
            len(record.cells) == len(record.counts),
        )
        if not all(fits) or (record._known() > record.areas).any() or (record.areas > record.picture[0]).any():
            raise ValueError("the arrays of a picture's masks do not fit together")
        return record

    def truth(self) -> Ints:
        """Return the true class of each mask, (n,)."""
        ends = np.cumsum(self.lengths)
        parts = zip(ends - self.lengths, ends, strict=True)
        return np.array([self.classes[a:b][self.pixels[a:b].argmax()] for a, b in parts], np.int64)

    def _known(self) -> Ints:
        """Return the labelled pixels of each mask, (n,)."""
        sums = np.concatenate([[0], np.cumsum(self.pixels)])
        ends = np.cumsum(self.lengths)
        return sums[ends] - sums[ends - self.lengths]


ARRAYS = tuple(field.name for field in fields(MaskRecord))


def class_pixels(
    masks: Masks, label: NDArray[np.integer], num_classes: int, ignore_label: int, where: str = ""
) -> Ints:
    """Count the pixels of each class in each mask.

    Args:
        masks: (N, H, W).
        label: (H, W) train ids or `ignore_label`.
        num_classes: K.
        ignore_label: Label of pixels that have no class.
        where: Name of the picture for messages.

    Returns:
        (N, K).

    Raises:
        DataError: A label is neither a class nor `ignore_label`.
    """
    ids = np.where(label == ignore_label, num_classes, label).astype(np.int64)
    if ids.min() < 0 or ids.max() > num_classes:
        raise DataError(f"{where}: the label map holds values outside its {num_classes} classes.", "Prepare it anew.")
    rows = [np.bincount(ids[mask], minlength=num_classes + 1)[:num_classes] for mask in masks]
    return np.stack(rows).astype(np.int64) if rows else np.zeros((0, num_classes), np.int64)


def is_known(areas: Ints, pixels: Ints) -> NDArray[np.bool_]:
    """Return (N,) flags of the masks of which half or more is labelled; an empty mask is not."""
    return (areas > 0) & (2 * pixels.sum(1) >= areas)


def paint(masks: Masks, names: Ints, nothing: int) -> Ints:
    """Paint masks, (N, H, W), in the colours of their names, (N,), so that their order plays no part.

    Of masks of one size that of the greater bits lies on top, of one and the same mask the greater name.

    Returns:
        (H, W) names, `nothing` where no mask is.
    """
    canvas = np.full(masks.shape[1:], nothing, np.int64)
    areas = masks.sum((1, 2))
    keys = [(-int(areas[i]), np.packbits(masks[i]).tobytes(), int(names[i])) for i in range(len(masks))]
    for place in sorted(range(len(masks)), key=keys.__getitem__):
        canvas[masks[place]] = names[place]
    return canvas


def painted(canvas: Ints, label: NDArray[np.integer], num_classes: int, ignore_label: int, where: str = "") -> Counts:
    """Compare a painting, (H, W) ids with K for nothing, with the label map; counts of K + 1 classes."""
    truth = torch.from_numpy(np.ascontiguousarray(label, np.int64))
    return count(torch.from_numpy(canvas), truth, num_classes + 1, ignore_label, where)


def best_classes(probabilities: NDArray[np.float64]) -> tuple[Ints, Ints]:
    """Return the best classes of each row of (N, K), best first, of equal ones the lowest id, and their millionths."""
    kept = np.rint(probabilities * UNIT).astype(np.int64)
    tops = np.argsort(-kept, axis=1, kind="stable")[:, :TOP]
    return tops, np.take_along_axis(kept, tops, 1)


def record_picture(
    masks: Masks,
    pixels: Ints,
    probabilities: NDArray[np.float64],
    label: NDArray[np.integer],
    ignore_label: int,
    left_out: int = 0,
    where: str = "",
) -> MaskRecord:
    """Make the record of a picture.

    Args:
        masks: (n, H, W), only those that are not left out.
        pixels: Their `class_pixels`, (n, K).
        probabilities: (n, K), rows sum to 1.
        label: (H, W) train ids or `ignore_label`.
        ignore_label: Label of pixels that have no class.
        left_out: How many masks were left out.
        where: Name of the picture for messages.
    """
    num_classes = pixels.shape[1]
    tops, kept = best_classes(probabilities)
    counts = painted(paint(masks, tops[:, 0], num_classes), label, num_classes, ignore_label, where)
    owner, classes = np.nonzero(pixels)
    return MaskRecord(
        picture=np.array([label.size, left_out], np.int64),
        areas=masks.sum((1, 2), dtype=np.int64),
        lengths=np.bincount(owner, minlength=len(masks)).astype(np.int64),
        classes=classes.astype(np.int64),
        pixels=pixels[owner, classes],
        tops=tops.ravel(),
        probabilities=kept.ravel(),
        cells=counts.cells,
        counts=counts.pixels,
    )


def painting_matrix(records: Sequence[MaskRecord], num_classes: int) -> Ints:
    """Return the paintings of all pictures as one (K + 1, K + 1) matrix: rows ground truth, columns painted."""
    total = np.zeros((num_classes + 1) ** 2, np.int64)
    for record in records:
        total[record.cells] += record.counts
    return total.reshape(num_classes + 1, num_classes + 1)
