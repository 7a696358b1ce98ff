"""How binary masks become COCO run lengths and come back, checked against height × width before anything is decoded.

A code is what pycocotools writes: the lengths of runs of 0, 1, 0, … down the columns, each as the difference to the
length two runs before, in groups of 5 bits. pycocotools encodes; decoding is done here, since its decoder believes
what it is given, and since all masks of a picture are expanded at once, which is several times faster.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_DIGITS = 7  # 35 bits: more than any picture has pixels, less than overflows


class RleError(ValueError):
    """A code that is no mask of the given size.

    Args:
        number: Which of the codes, from 0.
        reason: Why.
    """

    def __init__(self, number: int, reason: str):
        super().__init__(f"mask {number + 1} {reason}")
        self.number, self.reason = number, reason


def encode(masks: NDArray[np.bool_]) -> list[bytes]:
    """Return the COCO code of each mask, (N, H, W)."""
    from pycocotools import mask as coco

    if not len(masks):
        return []
    columns = np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8)
    return [code["counts"] for code in coco.encode(columns)]


def encode_runs(counts: Sequence[int], size: tuple[int, int]) -> bytes:
    """Return the COCO code of run lengths that are written out as a list (COCO's uncompressed form).

    Raises:
        RleError: They are no whole numbers from 0, or do not add up to height × width.
    """
    from pycocotools import mask as coco

    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts):
        raise RleError(0, "has run lengths that are not whole numbers from 0")
    if sum(counts) != size[0] * size[1]:
        raise RleError(0, _sum_message(sum(counts), size))
    return bytes(coco.frPyObjects({"counts": list(counts), "size": list(size)}, *size)["counts"])


def decode(codes: Sequence[bytes], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the masks of COCO codes, (N, H, W).

    Raises:
        RleError: A code has other characters, ends within a number, or its runs do not add up to height × width.
    """
    height, width = size
    if not codes:
        return np.zeros((0, height, width), bool)
    counts, place = run_lengths(codes, size)
    columns = np.repeat((place & 1).astype(bool), counts).reshape(len(codes), width, height)
    return np.ascontiguousarray(columns.transpose(0, 2, 1))


def check(codes: Sequence[bytes], size: tuple[int, int]) -> None:
    """Raise what `decode` would raise, decoding nothing."""
    if codes:
        run_lengths(codes, size)


def areas(codes: Sequence[bytes], size: tuple[int, int]) -> NDArray[np.int64]:
    """Return the pixels of each mask, (N,); raises what `decode` raises."""
    if not codes:
        return np.zeros(0, np.int64)
    counts, place = run_lengths(codes, size)
    return np.add.reduceat(np.where(place & 1, counts, 0), np.flatnonzero(place == 0))


def run_lengths(codes: Sequence[bytes], size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the run lengths of all codes one after the other, and the place of each run in its own code, from 0."""
    digits = np.frombuffer(b"".join(codes), np.uint8).astype(np.int64) - 48
    code_ends = np.cumsum([len(code) for code in codes]) - 1
    ends = np.flatnonzero((digits & 0x20) == 0)
    _check_digits(digits, code_ends, codes)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_DIGITS:
        raise RleError(_which(starts[lengths.argmax()], code_ends), "holds a number that is too long")
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    values = np.add.reduceat((digits & 0x1F) << shifts, starts)
    values -= np.where(digits[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    counts, place = _undo_differences(values, np.searchsorted(ends, code_ends) + 1)
    _check_sums(counts, place, size)
    return counts, place


def _check_digits(digits: NDArray[np.int64], code_ends: NDArray[np.int64], codes: Sequence[bytes]) -> None:
    for number, code in enumerate(codes):
        if not code:
            raise RleError(number, "has an empty code")
    wrong = np.flatnonzero((digits < 0) | (digits > 63))
    if len(wrong):
        raise RleError(_which(wrong[0], code_ends), "holds a character that no COCO code has")
    cut = np.flatnonzero(digits[code_ends] & 0x20)
    if len(cut):
        raise RleError(int(cut[0]), "ends within a number")


def _which(position: int, code_ends: NDArray[np.int64]) -> int:
    return int(np.searchsorted(code_ends, position))


def _undo_differences(
    values: NDArray[np.int64], code_ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add to each number from the fourth on the run two places before it; `code_ends` are exclusive, in numbers."""
    code_starts = np.concatenate([[0], code_ends[:-1]])
    runs = code_ends - code_starts
    place = np.arange(len(values)) - np.repeat(code_starts, runs)
    is_odd = (place & 1).astype(bool)
    counts = values.copy()
    for chain in (is_odd, ~is_odd & (place > 0)):
        sums = np.cumsum(np.where(chain, values, 0))
        before = np.where(code_starts > 0, sums[code_starts - 1], 0)
        counts = np.where(chain, sums - np.repeat(before, runs), counts)
    return counts, place


def _check_sums(counts: NDArray[np.int64], place: NDArray[np.int64], size: tuple[int, int]) -> None:
    starts = np.flatnonzero(place == 0)
    if counts.min() < 0:
        number = int(np.searchsorted(starts, counts.argmin(), side="right")) - 1
        raise RleError(number, "has a run of negative length")
    sums = np.add.reduceat(counts, starts)
    wrong = np.flatnonzero(sums != size[0] * size[1])
    if len(wrong):
        raise RleError(int(wrong[0]), _sum_message(int(sums[wrong[0]]), size))


def _sum_message(total: int, size: tuple[int, int]) -> str:
    verb = "overrun" if total > size[0] * size[1] else "do not fill"
    return f"has runs that {verb} the picture: {total:,} pixels, {size[0]} x {size[1]} has {size[0] * size[1]:,}"
