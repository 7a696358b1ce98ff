"""How far does a trusty map tell seen from unseen: its mean on pixels of both and on unlabelled ones; the JSON file.

The map is M_A = 1 - w of TagCLIP's paper, 0 to 1: bright where a model trusts that it sees what it was trained on.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.evaluation.measurement_files import MeasurementFile

FILE = MeasurementFile("ovseg-trusty-map", 1, "trusty maps", "trusty-map")
DIGITS = 6  # of what is kept
Part = Literal["seen", "unseen", "unlabelled"]
PARTS: tuple[Part, ...] = ("seen", "unseen", "unlabelled")


@dataclass(frozen=True)
class Mean:
    """A mean over some pixels; NaN where there is none."""

    pixels: int
    mean: float

    @classmethod
    def of(cls, means: Sequence["Mean"]) -> "Mean":
        """The mean over all pixels of several."""
        pixels = sum(one.pixels for one in means)
        whole = sum(one.pixels * one.mean for one in means if one.pixels)
        return cls(pixels, whole / pixels if pixels else math.nan)


@dataclass(frozen=True)
class PictureMeans:
    """The map of one picture: its mean on pixels of seen and of unseen classes, and on pixels without a class."""

    name: str
    seen: Mean
    unseen: Mean
    unlabelled: Mean

    @classmethod
    def of(
        cls, name: str, trusty: NDArray[np.float32], label: NDArray[np.int64], seen: Sequence[bool]
    ) -> "PictureMeans":
        """Measure a map.

        Args:
            name: Of the picture.
            trusty: (H, W), 0 to 1.
            label: (H, W) train ids; what is none of the K classes is unlabelled.
            seen: K flags.
        """
        classed = (label >= 0) & (label < len(seen))
        is_seen = np.array(seen, bool)[np.where(classed, label, 0)] & classed
        masks = (is_seen, classed & ~is_seen, ~classed)
        return cls(name, *(_mean(trusty[mask]) for mask in masks))


def _mean(values: NDArray[np.float32]) -> Mean:
    mean = round(float(values.mean(dtype=np.float64)), DIGITS) if values.size else math.nan
    return Mean(int(values.size), mean)


@dataclass(frozen=True)
class TrustyMaps:
    """A measurement.

    Attributes:
        method: Name of the method.
        data: Data set and class split.
        subset: Its subset.
        pictures: What was measured.
        fingerprints: Of weights, data, settings, vocabulary and version: equal where a measurement is the same.
        facts: How it came about: run, command, time.
        notes: What must be said wherever it is shown: labels that the training should not have read.
    """

    method: str
    data: str
    subset: str
    pictures: tuple[PictureMeans, ...]
    fingerprints: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def mean(self, part: Part) -> Mean:
        """The mean over all pixels of a part, of all pictures together."""
        return Mean.of([getattr(picture, part) for picture in self.pictures])

    def save(self, path: Path) -> None:
        """Write the measurement and its means as JSON: one line a picture.

        Raises:
            MachineError: The file cannot be written.
        """
        means = {part: asdict(self.mean(part)) for part in PARTS}
        FILE.save(path, {"means": means, **asdict(self)}, ("pictures",))

    @classmethod
    def load(cls, path: Path) -> "TrustyMaps":
        """Read a measurement.

        Raises:
            DataError: The file is missing, broken, of another schema or of another kind.
        """
        return FILE.load(path, _read)


def _read(document: dict[str, Any]) -> TrustyMaps:
    pictures = tuple(
        PictureMeans(one["name"], *(_read_mean(one[part]) for part in PARTS)) for one in document["pictures"]
    )
    method, data, subset = (str(document[key]) for key in ("method", "data", "subset"))
    told = dict(document["fingerprints"]), dict(document["facts"]), tuple(document.get("notes", ()))
    return TrustyMaps(method, data, subset, pictures, *told)


def _read_mean(mean: dict[str, float | None]) -> Mean:
    value = mean["mean"]
    return Mean(int(mean["pixels"] or 0), math.nan if value is None else float(value))
