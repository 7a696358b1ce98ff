"""What can be said of a label map, and which of its classes training may see."""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SeenLabels:
    """A class split whose seen-only labels are written: its id, its fingerprint, the train ids to leave out."""

    split: str
    digest: str
    hidden: tuple[int, ...]


def hide(label: np.ndarray, hidden: tuple[int, ...], ignore_label: int) -> np.ndarray:
    """Return the label with the hidden train ids set to `ignore_label`; other ids keep their place."""
    return np.where(np.isin(label, hidden), np.asarray(ignore_label, label.dtype), label) if hidden else label


def label_hash(label: np.ndarray | None) -> str | None:
    """Hash of size and train ids, whatever the depth and the compression of the file."""
    if label is None:
        return None
    digest = hashlib.sha256(np.array(label.shape, "<i8").tobytes())
    digest.update(np.ascontiguousarray(label, "<u2").tobytes())
    return digest.hexdigest()[:32]


def histogram(label: np.ndarray | None) -> list[list[int]]:
    """Return [value, count] of each value that occurs."""
    if label is None:
        return []
    counts = np.bincount(label.reshape(-1))
    return [[int(value), int(counts[value])] for value in np.flatnonzero(counts)]
