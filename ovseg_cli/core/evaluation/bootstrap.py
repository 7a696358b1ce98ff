"""How sure is a score, given the pictures it was measured on? Intervals by resampling pictures, from stored counts.

A resample draws n of n pictures with replacement; its counts are the drawn pictures' counts added up, and the score is
computed from these, as it is for the whole data set. The interval holds the middle 95 % of the resamples (percentile
bootstrap, Efron & Tibshirani 1993, ch. 13). It says how the score varies with the pictures, not with training seeds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.metrics import Areas, Rule, Score, Split, scores_by_name
from ovseg_cli.core.evaluation.results import Result

RESAMPLES = 1000
LEVEL = 0.95
_CHUNK = 1 << 22  # draws made at once


@dataclass(frozen=True)
class Interval:
    """A score with its interval, all 0 to 1 (differences −1 to 1); NaN where there is none.

    Attributes:
        value: The score on all pictures.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero: for a difference, that it is real."""
        return self.low > 0 or self.high < 0


def intervals(
    result: Result,
    rule: Rule = "union",
    split: Split = "all",
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    scores: Mapping[str, Score] | None = None,
) -> dict[str, Interval]:
    """Return the interval of every summary score of a result.

    Args:
        result: Counts of n pictures.
        rule: Which classes a mean of IoU takes.
        split: Which classes are reported.
        resamples: How many resamples are drawn.
        seed: Of the draws; the same seed gives the same interval.
        level: Share of the resamples inside the interval, 0 to 1.
        scores: Other scores by name than those of `Result.metrics`.

    Returns:
        One interval a score. A score that most resamples do not have is NaN to NaN.
    """
    scores = scores or scores_by_name(result.class_sets, rule, split)
    drawn = _resampled_scores(result, scores, resamples, seed)
    return {name: _interval(float(score(result.areas)), drawn[name], level) for name, score in scores.items()}


def difference(
    result: Result,
    baseline: Result,
    rule: Rule = "union",
    split: Split = "all",
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    scores: Mapping[str, Score] | None = None,
) -> dict[str, Interval]:
    """Return result − baseline with its paired interval: both are resampled with the same pictures.

    Raises:
        UsageError: The two were not scored on the same pictures, labels and classes.
    """
    check_paired(result, baseline)
    if result.images != baseline.images:
        baseline = baseline.in_order(result.images)
    scores = scores or scores_by_name(result.class_sets, rule, split)
    drawn = _resampled_scores(result, scores, resamples, seed)
    drawn_base = _resampled_scores(baseline, scores, resamples, seed)
    gaps = {name: float(score(result.areas)) - float(score(baseline.areas)) for name, score in scores.items()}
    return {name: _interval(gap, drawn[name] - drawn_base[name], level) for name, gap in gaps.items()}


def mean_difference(
    values: Sequence[float],
    baseline: Sequence[float],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Return the mean over pictures of value − baseline with its paired interval, in the unit of the values.

    Args:
        values: One a picture.
        baseline: Of the same pictures, in the same order.
        resamples: How many resamples are drawn; 0: no interval.
        seed: Of the draws.
        level: Share of the resamples inside the interval, 0 to 1.
    """
    gaps = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    if not len(gaps):
        return Interval(float("nan"), float("nan"), float("nan"))
    return _interval(float(gaps.mean()), picture_draws(len(gaps), resamples, seed) @ gaps / len(gaps), level)


def picture_draws(pictures: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each picture is drawn, (resamples, pictures): what `resampled_areas` sums up by."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples).astype(np.float64)


def check_paired(result: Result, baseline: Result) -> None:
    """Refuse two results that a paired interval would mean nothing for.

    Raises:
        UsageError: They differ in pictures, labels, classes or class split.
    """
    pair = f"{result.method} and {baseline.method} cannot be compared picture by picture"
    if result.fingerprints.get("data") != baseline.fingerprints.get("data") or result.data != baseline.data:
        raise UsageError(
            f"{pair}: one was scored on {result.data}, the other on {baseline.data}, or its files have changed since.",
            "Evaluate both on the same prepared data.",
        )
    if result.class_names != baseline.class_names or result.unseen != baseline.unseen:
        raise UsageError(f"{pair}: their classes or unseen flags differ.", "Evaluate both with the same class split.")
    if set(result.images) != set(baseline.images):
        only = sorted(set(result.images) ^ set(baseline.images))
        raise UsageError(
            f"{pair}: {len(only)} pictures are in one result only ('{only[0]}', for instance).",
            "Evaluate both on the same subset, with the same --limit.",
        )


def _resampled_scores(
    result: Result, scores: Mapping[str, Score], resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Return (resamples,) scores by name."""
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in scores}
    for areas in resampled_areas(result.counts, resamples, seed):
        for name, score in scores.items():
            parts[name].append(score(areas))
    return {name: np.concatenate([np.zeros(0), *found]) for name, found in parts.items()}


def resampled_areas(table: CountTable, resamples: int, seed: int) -> Iterator[Areas]:
    """Yield the areas of resamples in chunks, each (resamples in the chunk, K).

    How often each picture is drawn is a multinomial; the sums are products of these counts with the pictures' areas,
    exact in float64 below 2^53 pixels.
    """
    generator = np.random.default_rng(seed)
    areas, num_pictures = table.areas(), len(table)
    kept = np.flatnonzero((areas.truth + areas.predicted).sum(0))  # classes that no picture holds stay zero
    columns = [part[:, kept].astype(np.float64) for part in (areas.hits, areas.truth, areas.predicted)]
    chunk = max(1, _CHUNK // max(1, num_pictures, 3 * table.num_classes))
    for start in range(0, resamples, chunk):
        number = min(chunk, resamples - start)
        draws = generator.multinomial(num_pictures, np.full(num_pictures, 1 / num_pictures), size=number)
        sums = np.zeros((3, number, table.num_classes), dtype=np.int64)
        for i, column in enumerate(columns):
            sums[i][:, kept] = np.rint(draws.astype(np.float64) @ column)
        yield Areas(*sums)


def _interval(value: float, drawn: NDArray[np.float64], level: float) -> Interval:
    present = drawn[~np.isnan(drawn)]
    if np.isnan(value) or len(present) * 2 <= len(drawn):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(present, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
