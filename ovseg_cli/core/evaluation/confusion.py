"""How often was class g predicted as class p? Exact int64 counts, for one picture or many.

Counts are kept as triplets (ground truth, prediction, pixels) where they are not zero: one picture holds few classes,
so 847² cells shrink to some hundred.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ovseg_cli.core.errors import DataError

IntArray = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Counts:
    """The non-zero cells of a confusion matrix, in row-major order.

    Attributes:
        cells: (n,) int64, ground truth × K + prediction, rising.
        pixels: (n,) int64, how many pixels each cell holds.
        num_classes: K.
    """

    cells: NDArray[np.int64]
    pixels: NDArray[np.int64]
    num_classes: int

    def matrix(self) -> NDArray[np.int64]:
        """Return the dense matrix (K, K): rows ground truth, columns prediction."""
        dense = np.zeros(self.num_classes * self.num_classes, dtype=np.int64)
        dense[self.cells] = self.pixels
        return dense.reshape(self.num_classes, self.num_classes)

    @classmethod
    def of_matrix(cls, matrix: NDArray[np.int64]) -> "Counts":
        """Take the non-zero cells of a (K, K) matrix."""
        flat = np.ascontiguousarray(matrix, dtype=np.int64).ravel()
        cells = np.flatnonzero(flat != 0)  # flags are searched faster than counts
        return cls(cells, flat[cells], len(matrix))


def count(prediction: Tensor, label: Tensor, num_classes: int, ignore_label: int | None, where: str = "") -> Counts:
    """Count one picture.

    Pixels whose label is `ignore_label` count nowhere, whatever was predicted there. They go to an extra column of the
    ground truth in one `bincount`, since leaving them out by a mask costs ten times the counting.

    Args:
        prediction: (H, W) class ids 0 to K-1, any integer type.
        label: (H, W) train ids 0 to K-1 or `ignore_label`, any integer type.
        num_classes: K.
        ignore_label: The label of pixels that do not count; None where every pixel does.
        where: Name of the picture for messages.

    Raises:
        DataError: Sizes differ, or a value is neither a class nor `ignore_label`.
    """
    if prediction.shape != label.shape:
        raise DataError(f"{where or 'picture'}: prediction is {_size(prediction)}, label is {_size(label)}.")
    truth = _with_ignored_last(label.cpu().numpy().ravel(), num_classes, ignore_label, where)
    predicted = prediction.cpu().numpy().ravel()
    _check_range(predicted, num_classes, where, "predicted id {} is not one of")
    truth *= num_classes
    truth += predicted
    flat = np.bincount(truth, minlength=(num_classes + 1) * num_classes)[: num_classes * num_classes]
    cells = np.flatnonzero(flat != 0)  # flags are searched faster than counts
    return Counts(cells, flat[cells].astype(np.int64), num_classes)


def add(parts: Iterable[Counts], num_classes: int) -> NDArray[np.int64]:
    """Return the sum of many pictures' counts as one (K, K) matrix: rows ground truth, columns prediction."""
    total = np.zeros(num_classes * num_classes, dtype=np.int64)
    for part in parts:
        total[part.cells] += part.pixels  # cells of one picture are distinct
    return total.reshape(num_classes, num_classes)


def _with_ignored_last(label: IntArray, num_classes: int, ignore_label: int | None, where: str) -> NDArray[np.int64]:
    """Return a label as new int64 ids whose ignored pixels have the id K, checking every value."""
    truth = label.astype(np.int64)
    ignored = np.zeros(0, dtype=bool) if ignore_label is None else truth == ignore_label
    if ignored.any():
        truth[ignored] = 0  # a class, for the check
    mistake = f"label value {{}} is not the ignore label {ignore_label} and not one of"
    _check_range(truth, num_classes, where, mistake)
    if ignored.any():
        truth[ignored] = num_classes
    return truth


def _check_range(ids: IntArray, num_classes: int, where: str, mistake: str) -> None:
    """Refuse ids that are no class, naming one of them."""
    if not ids.size:
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= num_classes:
        what = mistake.format(low if low < 0 else high)
        raise DataError(
            f"{where or 'picture'}: {what} the {num_classes} classes (0 to {num_classes - 1}).",
            "Prepare the data set again, or check its class list." if mistake.startswith("label") else None,
        )


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
