"""What is known of the proposals of a picture once they have names: how much their scores differ, and what is false.

* *distance*: total variation, Σ |p - q| / 2, of the class probabilities of two proposals, 0 to 1; mean over all pairs
  of the picture. 0: whatever the mask, the scores are the same.
* *confident*: a proposal whose best class has a probability of `CONFIDENT` or more.
* *false positive*: it is confident, and overlaps all pixels of that class with an IoU below `RIGHT`, for instance
  because the class is not in the picture. Else it is a *true positive*.
* *found*: a class of the picture that has a true positive.

Proposals of which less than half is labelled are part of the distance, but are neither true nor false: nobody knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENT, RIGHT = 0.5, 0.5
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class PictureScores:
    """The named proposals of one picture.

    Attributes:
        picture: Its name.
        masks: How many proposals it has, without empty ones.
        distance: Mean total variation of the class probabilities of two of them; 0 of a single one.
        present: Train ids of the classes in its label.
        names: Best class of each of the n proposals that are labelled.
        probabilities: n, of that class.
        ious: n, IoU with all pixels of that class; 0 where it is not in the picture.
        best_ious: n, IoU with the class that the proposal fits best.
    """

    picture: str
    masks: int
    distance: float
    present: tuple[int, ...]
    names: tuple[int, ...]
    probabilities: tuple[float, ...]
    ious: tuple[float, ...]
    best_ious: tuple[float, ...]

    def claims(self, threshold: float = CONFIDENT) -> tuple[Flags, Flags]:
        """Return the flags, (n,) each, of false and of true positives among the proposals."""
        confident = np.array(self.probabilities) >= threshold
        right = np.array(self.ious) >= RIGHT
        return confident & ~right, confident & right

    def false_positives(self, threshold: float = CONFIDENT) -> int:
        """How many proposals are confident and wrong."""
        return int(self.claims(threshold)[0].sum())

    def true_positives(self, threshold: float = CONFIDENT) -> int:
        """How many proposals are confident and right."""
        return int(self.claims(threshold)[1].sum())

    def found(self, threshold: float = CONFIDENT) -> set[int]:
        """Classes of the picture that have a true positive."""
        return set(np.array(self.names, dtype=int)[self.claims(threshold)[1]].tolist())

    @classmethod
    def of_plain(cls, plain: dict[str, Any], num_classes: int) -> "PictureScores":
        """Read JSON values; refuses what does not fit together with a ValueError."""
        present, names = (tuple(map(int, plain[key])) for key in ("present", "names"))
        numbers = [tuple(map(float, plain[key])) for key in ("probabilities", "ious", "best_ious")]
        one = cls(str(plain["picture"]), int(plain["masks"]), float(plain["distance"]), present, names, *numbers)
        known = all(0 <= i < num_classes for i in (*present, *names))
        if {len(names)} != {len(values) for values in numbers} or not known or one.masks < len(names):
            raise ValueError(f"the proposals of '{one.picture}' do not fit together")
        return one


@dataclass(frozen=True)
class ProposalSummary:
    """Means over pictures; NaN where there is none.

    Attributes:
        pictures: Their number.
        masks: Proposals a picture.
        distance: Mean over pictures.
        false_positives: A picture.
        true_positives: A picture.
        found: Share of the classes of all pictures that have a true positive, 0 to 1.
        confidence: Mean probability of the best class where a proposal fits no class (best IoU below `RIGHT`).
    """

    pictures: int
    masks: float
    distance: float
    false_positives: float
    true_positives: float
    found: float
    confidence: float


def summarise(pictures: Sequence[PictureScores], threshold: float = CONFIDENT) -> ProposalSummary:
    """Sum up pictures."""
    poor = [p for one in pictures for p, iou in zip(one.probabilities, one.best_ious, strict=True) if iou < RIGHT]
    classes = sum(len(one.present) for one in pictures)
    return ProposalSummary(
        len(pictures),
        _mean([one.masks for one in pictures]),
        _mean([one.distance for one in pictures]),
        _mean([one.false_positives(threshold) for one in pictures]),
        _mean([one.true_positives(threshold) for one in pictures]),
        sum(len(one.found(threshold)) for one in pictures) / classes if classes else float("nan"),
        _mean(poor),
    )


def trade_off(pictures: Sequence[PictureScores]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Follow false positives a picture and the share of classes found while the threshold falls from 1 to 0.

    No choice of a threshold, and no method's habit of high or low probabilities, plays a part in where the line runs.

    Returns:
        False positives a picture and share of classes found, each rising, a point for each probability that occurs.
    """
    probabilities = np.concatenate([np.zeros(0), *(one.probabilities for one in pictures)])
    right = np.concatenate([np.zeros(0), *(one.ious for one in pictures)]) >= RIGHT
    picture = np.repeat(np.arange(len(pictures)), [len(one.names) for one in pictures])
    names = np.concatenate([np.zeros(0, int), *(one.names for one in pictures)]).astype(int)
    order = np.argsort(-probabilities, kind="stable")
    is_first = np.zeros(len(order), bool)
    true = order[right[order]]
    keys = picture[true] * (1 + names.max(initial=0)) + names[true]
    is_first[true[np.unique(keys, return_index=True)[1]]] = True
    last = np.append(np.diff(probabilities[order]) != 0, True)[: len(order)]  # equal probabilities come together
    false_positives = np.cumsum(~right[order])[last] / max(1, len(pictures))
    classes = max(1, sum(len(one.present) for one in pictures))
    return np.append(0.0, false_positives), np.append(0.0, np.cumsum(is_first[order])[last] / classes)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
