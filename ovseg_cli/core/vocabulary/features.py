"""Which names are near each other for a model? Pure functions of text features, each (K, D) float64, unit length.

No cosine means the same for two models, and those of one CLIP are all high: names in one sentence share its other
words. So nothing here is measured against a fixed number, but against the model's own way with this list (`Yardstick`),
and what may win pixels is read from ranks (`runner_ups`), as the arg-max does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]
FEWEST = 5
"""Names whose own plural is known; with fewer the list's own distances have to do."""
CHANCE = 0.05
"""How probable it may be that chance alone makes one name of a list a hub."""


@dataclass(frozen=True)
class Yardstick:
    """From which cosine on two names are alike.

    Attributes:
        cosine: The threshold.
        meaning: Where it comes from, as the end of a sentence.
    """

    cosine: float
    meaning: str


def yardstick(features: Features, plurals: Features, of: Sequence[int]) -> Yardstick | None:
    """Return how near names have to be to count as one: as near as a name and its own plural usually are.

    Args:
        features: (K, D).
        plurals: (P, D), features of the plurals of some of the names.
        of: Which names these are, P places.

    Returns:
        The median cosine of a name and its plural. With fewer than `FEWEST` plurals the upper fence of the cosines to
        the nearest other name, Q3 + 1.5 (Q3 - Q1) (Tukey 1977); None where there are not even `FEWEST` names.
    """
    if len(of) >= FEWEST:
        cosines = (features[list(of)] * plurals).sum(1)
        return Yardstick(float(np.median(cosines)), f"the median of {len(of)} names of this list and their own plurals")
    if len(features) < FEWEST:
        return None
    low, high = np.quantile(_others(features).max(1), [0.25, 0.75])
    meaning = f"the upper fence of how near the {len(features)} names of this list are to their nearest"
    return Yardstick(float(high + 1.5 * (high - low)), meaning)


def nearest(one: Features, other: Features, threshold: float) -> list[tuple[int, int, float]]:
    """Return for each name of `one` its nearest of `other`, (place, place, cosine), where it reaches a threshold."""
    if not len(other):
        return []
    cosines = one @ other.T
    pairs = [(i, int(j), float(cosines[i, j])) for i, j in enumerate(cosines.argmax(1))]
    return [pair for pair in pairs if pair[2] >= threshold]


def alike(features: Features, threshold: float) -> list[tuple[int, int, float]]:
    """Return pairs of names (place, later place, cosine) at or above a threshold, the nearest first.

    One of the two is the other's nearest: of a dozen names in one place the pairs that matter come, not all 66.
    """
    if len(features) < 2:
        return []
    second = runner_ups(features)
    pairs = {(min(i, int(j)), max(i, int(j))) for i, j in enumerate(second)}
    found = [(i, j, float(features[i] @ features[j])) for i, j in sorted(pairs)]
    return sorted((pair for pair in found if pair[2] >= threshold), key=lambda pair: -pair[2])


def runner_ups(features: Features) -> NDArray[np.int64]:
    """Return for each of K > 1 names the other one with the highest cosine, (K,)."""
    return np.asarray(_others(features).argmax(1))


def hub_size(num_names: int) -> int:
    """Return from how many names on being their runner-up is no chance.

    If runners-up were drawn at random, a name would be that of one other on average, Poisson distributed; with this
    count or more the expected number of such names in the whole list is below `CHANCE`.
    """
    size, tail, term = 0, 1.0, math.exp(-1)
    while num_names * tail >= CHANCE:
        tail -= term
        size += 1
        term /= size
    return size


def hubs(second: NDArray[np.int64]) -> list[tuple[int, list[int]]]:
    """Return names that come second to far too many: (place, places of these), the largest first.

    Args:
        second: (K,) place of the name that comes second to each, -1 for none.
    """
    found = [(i, np.flatnonzero(second == i).tolist()) for i in range(len(second))]
    return sorted(((i, of) for i, of in found if len(of) >= hub_size(len(second))), key=lambda hub: -len(hub[1]))


def wrong_answers(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each class the name that most of its wrong pixels got, (K,); -1 where none is wrong.

    Args:
        matrix: Counts (K, K): rows ground truth, columns prediction.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    return np.where(wrong.sum(1) > 0, wrong.argmax(1), -1)


def astray(features: Features, class_of_row: Sequence[int]) -> list[tuple[int, int, float, float]]:
    """Return synonyms that are nearer to another class than to their own.

    Args:
        features: (M, D), one row a synonym.
        class_of_row: (M,) class of each row.

    Returns:
        (row, the other class, cosine to it, cosine to the other synonyms of its own class). A class is the mean of
        its synonyms, without the one that is looked at. Classes with one name only have none that could stray.
    """
    owner = np.asarray(class_of_row, dtype=np.int64)
    sums = np.zeros((int(owner.max(initial=-1)) + 1, features.shape[1]))
    np.add.at(sums, owner, features)
    means = _unit(sums)
    found = []
    for row in np.flatnonzero(np.bincount(owner)[owner] > 1) if len(owner) else ():
        own = owner[row]
        cosines = means @ features[row]
        cosines[own] = _unit(sums[own : own + 1] - features[row])[0] @ features[row]
        best = int(cosines.argmax())
        if best != own:
            found.append((int(row), best, float(cosines[best]), float(cosines[own])))
    return found


def _others(features: Features) -> Features:
    """Cosines (K, K) with -inf on the diagonal."""
    cosines = features @ features.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines


def _unit(rows: Features) -> Features:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))
