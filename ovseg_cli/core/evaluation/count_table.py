"""How are the counts of thousands of pictures kept together, so that any sum of them is one step?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.evaluation.confusion import Counts
from ovseg_cli.core.evaluation.metrics import Areas


@dataclass(frozen=True, eq=False)
class CountTable:
    """The counts of many pictures, one behind the other.

    Attributes:
        names: Name of each of the n pictures, all different.
        starts: (n + 1,) int64; picture i owns the entries `starts[i]` to `starts[i + 1]`.
        cells: int64, as in `Counts`.
        pixels: int64, as in `Counts`.
        num_classes: K.
    """

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    cells: NDArray[np.int64]
    pixels: NDArray[np.int64]
    num_classes: int

    @classmethod
    def of(cls, names: Sequence[str], parts: Sequence[Counts], num_classes: int) -> "CountTable":
        """Put the counts of pictures one behind the other."""
        empty = np.zeros(0, dtype=np.int64)
        starts = np.cumsum([0, *(len(part.cells) for part in parts)], dtype=np.int64)
        cells = np.concatenate([empty, *(part.cells for part in parts)])
        pixels = np.concatenate([empty, *(part.pixels for part in parts)])
        return cls(tuple(names), starts, cells, pixels, num_classes)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Counts:
        """Return the counts of one picture."""
        own = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return Counts(self.cells[own], self.pixels[own], self.num_classes)

    def matrix(self) -> NDArray[np.int64]:
        """Return the sum over all pictures, (K, K): rows ground truth, columns prediction."""
        total = np.zeros(self.num_classes * self.num_classes, dtype=np.int64)
        np.add.at(total, self.cells, self.pixels)
        return total.reshape(self.num_classes, self.num_classes)

    def areas(self) -> Areas:
        """Return what scores are made of for each picture, three (n, K) arrays."""
        truth, predicted = np.divmod(self.cells, self.num_classes)
        picture = np.repeat(np.arange(len(self)), np.diff(self.starts))
        hits = np.where(truth == predicted, self.pixels, 0)
        return Areas(
            self._by_class(picture, truth, hits),
            self._by_class(picture, truth, self.pixels),
            self._by_class(picture, predicted, self.pixels),
        )

    def _by_class(
        self, picture: NDArray[np.int64], classes: NDArray[np.int64], pixels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        flat = np.zeros(len(self) * self.num_classes, dtype=np.int64)
        np.add.at(flat, picture * self.num_classes + classes, pixels)
        return flat.reshape(len(self), self.num_classes)

    def in_order(self, names: Sequence[str]) -> "CountTable":
        """Return the same pictures in another order; a picture that is named but not there is a KeyError."""
        place = {name: i for i, name in enumerate(self.names)}
        return CountTable.of(names, [self[place[name]] for name in names], self.num_classes)

    def __add__(self, other: "CountTable") -> "CountTable":
        """Put the pictures of another table behind these."""
        assert self.num_classes == other.num_classes
        starts = np.concatenate([self.starts, other.starts[1:] + self.starts[-1]])
        cells, pixels = np.concatenate([self.cells, other.cells]), np.concatenate([self.pixels, other.pixels])
        return CountTable(self.names + other.names, starts, cells, pixels, self.num_classes)
