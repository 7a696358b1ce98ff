"""How far is a score under another convention from the usual one, and is the gap more than chance of the pictures?

Both are taken from the same pictures: where both follow from counts, the pictures are drawn with replacement, the same
for both, and the gap has the middle 95 % of what the draws give (bootstrap.py). Many gaps are read together, since a
resample of the pictures costs more than the scores that follow from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.evaluation.bootstrap import LEVEL, Interval, picture_draws, resampled_areas
from ovseg_cli.core.evaluation.metrics import Floats, Score
from ovseg_cli.core.evaluation.results import Result


@dataclass(frozen=True, eq=False)
class Reading:
    """A score of a result.

    Attributes:
        result: Its counts are read.
        score: Of areas (..., K); leading axes stay.
        by_picture: The score is taken of every picture and averaged over those that have one, instead of taken from
            the counts of all pictures together.
    """

    result: Result
    score: Score
    by_picture: bool = False

    @property
    def value(self) -> float:
        """The score, 0 to 1; NaN where there is none."""
        if self.by_picture:
            return float(_mean_of(self.score(self.result.counts.areas()), np.ones(len(self.result.images))))
        return float(self.score(self.result.areas))

    def is_paired_with(self, other: "Reading") -> bool:
        """Whether both come from the same pictures, in the same order, with the same labels."""
        mine, theirs = self.result, other.result
        same = mine.fingerprints.get("data") == theirs.fingerprints.get("data")
        return same and mine.images == theirs.images and len(mine.images) > 1


def gaps(
    readings: Mapping[str, Reading], usual: Mapping[str, Reading], resamples: int, seed: int = 0
) -> dict[str, Interval]:
    """Return reading − usual reading with its paired interval, for each key of `readings`.

    Args:
        readings: By key.
        usual: What each is compared with, under the same keys.
        resamples: Of the pictures; 0 makes no intervals.
        seed: Of the draws.

    Returns:
        −1 to 1. Where the pictures are not the same, or most draws have no score, the bounds are NaN.
    """
    paired = [key for key, reading in readings.items() if resamples and reading.is_paired_with(usual[key])]
    wanted = [reading for key in paired for reading in (readings[key], usual[key])]
    drawn = _drawn(wanted, resamples, seed)
    found = {}
    for key, reading in readings.items():
        value, bounds = reading.value - usual[key].value, (np.nan, np.nan)
        if key in paired and not np.isnan(value):
            place = 2 * paired.index(key)
            bounds = _bounds(drawn[place] - drawn[place + 1])
        found[key] = Interval(value, *bounds)
    return found


def _drawn(readings: Sequence[Reading], resamples: int, seed: int) -> list[NDArray[np.float64]]:
    """The (resamples,) scores of each reading; each result is resampled once, all with the same draws."""
    found: list[NDArray[np.float64]] = [np.zeros(0)] * len(readings)
    for result in {id(reading.result): reading.result for reading in readings}.values():
        own = [i for i, reading in enumerate(readings) if reading.result is result]
        pooled = [i for i in own if not readings[i].by_picture]
        parts: list[list[NDArray[np.float64]]] = [[] for _ in pooled]
        for areas in resampled_areas(result.counts, resamples, seed) if pooled else ():
            for part, i in zip(parts, pooled, strict=True):
                part.append(np.asarray(readings[i].score(areas)))
        for part, i in zip(parts, pooled, strict=True):
            found[i] = np.concatenate(part)
        for i in set(own) - set(pooled):
            drawn = picture_draws(len(result.images), resamples, seed)
            found[i] = _mean_of(readings[i].score(result.counts.areas()), drawn)
    return found


def _mean_of(values: Floats, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean of values (n,) over those that are no NaN; weights (..., n)."""
    has_value = ~np.isnan(values)
    whole = weights @ has_value
    total = weights @ np.where(has_value, values, 0.0)
    return np.asarray(np.divide(total, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0))


def _bounds(values: NDArray[np.float64]) -> tuple[float, float]:
    present = values[~np.isnan(values)]
    if len(present) * 2 <= len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(present, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
