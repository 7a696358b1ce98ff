"""Do probabilities mean what they say? Bins of a reliability diagram, and the expected calibration error.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2: answers are put into 15 bins of
equal width by the probability of the class that was chosen, (low, high]; ECE = Σ over bins (n / N) |accuracy - mean
probability|.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Answers whose probability lies in (low, high]; the first bin has 0 too.

    Attributes:
        masks: Their number, more than 0.
        confidence: Mean probability of the class that was chosen.
        accuracy: Share of right answers.
    """

    low: float
    high: float
    masks: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram.

    Attributes:
        masks: Number of answers.
        error: Expected calibration error, 0 to 1; NaN without answers.
        confidence: Mean probability of the classes that were chosen; NaN without answers.
        accuracy: Share of right answers; NaN without answers.
        bins: Those that hold answers, rising.
    """

    masks: int
    error: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]


def calibration_of(
    probabilities: NDArray[np.float64] | Sequence[float], is_right: NDArray[np.bool_] | Sequence[bool], bins: int = BINS
) -> Calibration:
    """Compare probabilities with what came true.

    Args:
        probabilities: (N,), 0 to 1, of the classes that were chosen.
        is_right: (N,), whether each was the true one.
        bins: How many bins.
    """
    values, right = np.asarray(probabilities, np.float64), np.asarray(is_right, np.float64)
    total = len(values)
    if not total:
        return Calibration(0, math.nan, math.nan, math.nan, ())
    places = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
    found = []
    for place in np.unique(places).tolist():
        own = places == place
        edges = place / bins, (place + 1) / bins
        found.append(Bin(*edges, int(own.sum()), float(values[own].mean()), float(right[own].mean())))
    error = math.fsum(part.masks * abs(part.accuracy - part.confidence) for part in found) / total
    return Calibration(total, error, float(values.mean()), float(right.mean()), tuple(found))
