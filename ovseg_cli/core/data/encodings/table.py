"""Which train id a raw value means, for a whole label at once, whatever the depth of its values."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

UNKNOWN = -1
"""What a value becomes that the spec does not know."""

_DENSE = 1 << 16


@dataclass(frozen=True)
class RawTable:
    """Raw values and their train ids.

    Attributes:
        pairs: Raw value → train id (or `ignore_label`).
        elsewhere: What any other value below `size` becomes; `UNKNOWN` refuses it.
        size: Values from here on are unknown.
    """

    pairs: Mapping[int, int]
    elsewhere: int = UNKNOWN
    size: int = 256

    def lookup(self, raw: np.ndarray) -> np.ndarray:
        """Return the train ids of raw values.

        Args:
            raw: (H, W) integers.

        Returns:
            (H, W) int32, `UNKNOWN` where the spec has no such value.
        """
        flat = raw.reshape(-1)
        if self.size > _DENSE:  # colours: too many for a table, but neighbours agree, so each run is looked up once
            starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
            ids = np.repeat(self._search(flat[starts]), np.diff(np.append(starts, flat.size)))
        elif flat.size and flat.min() >= 0 and flat.max() < self.size:
            ids = self._dense.take(flat)
        else:
            inside = (flat >= 0) & (flat < self.size)
            ids = np.where(inside, self._dense.take(np.where(inside, flat, 0)), UNKNOWN)
        return ids.reshape(raw.shape)

    def dense(self) -> np.ndarray:
        """Return the table written out, (size,) int32."""
        table = np.full(self.size, self.elsewhere, np.int32)
        table[list(self.pairs)] = list(self.pairs.values())
        return table

    @cached_property
    def _dense(self) -> np.ndarray:
        return self.dense()

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        keys = np.array(sorted(self.pairs), np.int64)
        return keys, np.array([self.pairs[int(key)] for key in keys], np.int32)

    def _search(self, values: np.ndarray) -> np.ndarray:
        keys, ids = self._sorted
        place = np.searchsorted(keys, values).clip(max=len(keys) - 1)
        other = np.where((values >= 0) & (values < self.size), self.elsewhere, UNKNOWN)
        return np.where(keys[place] == values, ids[place], other).astype(np.int32)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is made of the pairs: each worker makes its own, once."""
        return {"pairs": self.pairs, "elsewhere": self.elsewhere, "size": self.size}
