"""How often was class g predicted as class p? Exact int64 counts, for one picture or many.

Counts are kept as triplets (ground truth, prediction, pixels) where they are not zero: one picture holds few classes,
so 847² cells shrink to some hundred.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovseg_cli.core.errors import DataError


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
        cells = np.flatnonzero(flat)
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
    truth = _with_ignored_last(label.to(prediction.device), num_classes, ignore_label, where)
    predicted = prediction.flatten().to(truth.dtype)
    _check_predictions(predicted, num_classes, where)
    flat = torch.bincount(truth * num_classes + predicted, minlength=(num_classes + 1) * num_classes)
    counted = flat[: num_classes * num_classes].cpu().numpy()
    cells = np.flatnonzero(counted)
    return Counts(cells, counted[cells].astype(np.int64), num_classes)


def add(parts: Iterable[Counts], num_classes: int) -> NDArray[np.int64]:
    """Return the sum of many pictures' counts as one (K, K) matrix: rows ground truth, columns prediction."""
    total = np.zeros(num_classes * num_classes, dtype=np.int64)
    for part in parts:
        total[part.cells] += part.pixels  # cells of one picture are distinct
    return total.reshape(num_classes, num_classes)


def _with_ignored_last(label: Tensor, num_classes: int, ignore_label: int | None, where: str) -> Tensor:
    """Flatten a label and give its ignored pixels the id K, checking every value."""
    truth = label.flatten()
    if truth.dtype not in (torch.int32, torch.int64):
        truth = truth.to(torch.int32)
    if ignore_label is None:
        _check_labels(truth, num_classes, ignore_label, where)
        return truth
    ignored = truth == ignore_label
    _check_labels(truth.masked_fill(ignored, 0), num_classes, ignore_label, where)
    return truth.masked_fill(ignored, num_classes)


def _check_labels(classes: Tensor, num_classes: int, ignore_label: int | None, where: str) -> None:
    if not classes.numel():
        return
    low, high = torch.aminmax(classes)
    if low < 0 or high >= num_classes:
        bad = int(low) if low < 0 else int(high)
        raise DataError(
            f"{where or 'picture'}: label value {bad} is neither one of the {num_classes} classes "
            f"(0 to {num_classes - 1}) nor the ignore label {ignore_label}.",
            "Prepare the data set again, or check its class list.",
        )


def _check_predictions(predicted: Tensor, num_classes: int, where: str) -> None:
    if not predicted.numel():
        return
    low, high = torch.aminmax(predicted)
    if low < 0 or high >= num_classes:
        bad = int(low) if low < 0 else int(high)
        raise DataError(f"{where or 'picture'}: predicted id {bad} is not one of the {num_classes} classes.")


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
