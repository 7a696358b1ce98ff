"""What does one evaluation leave behind? Counts of every picture and all that says how they came about.

Every metric, split and interval follows from a stored result without running the model again, and results of parts of
a data set add up. `result_files` reads and writes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation import metrics
from ovseg_cli.core.evaluation.count_table import CountTable
from ovseg_cli.core.evaluation.metrics import Areas, ClassSets, Rule, Split


@dataclass(frozen=True, kw_only=True)
class Facts:
    """How counts came about: what the caller of an evaluation knows.

    Attributes:
        method: Name of the method, as typed.
        data: Data label, `NAME[:CLASS_SPLIT]`.
        subset: Subset of images.
        run: Run folder, or None.
        class_split: Id of the class split, or None.
        protocol: What changes predictions beside the weights: candidates, seen penalty, background rule, input size,
            windows, templates, name variant, limit. Plain JSON values.
        fingerprints: Digests under the keys `data`, `weights`, `vocabulary`, `protocol`.
        environment: Versions, device, processor. Plain JSON values.
        seed: Seed of the run that was scored.
        command: The command line as typed.
        notes: Sentences for the reader, for instance that images are fewer than the spec's.
    """

    method: str
    data: str
    subset: str
    run: str | None = None
    class_split: str | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    command: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Result(Facts):
    """One evaluation of one model on one data set under one protocol.

    Attributes:
        class_names: K names in train-id order.
        unseen: K flags.
        is_thing: K flags, or None where the data set does not say.
        background: Train id of the background class, or None.
        ignore_label: Label of pixels that were not counted, or None.
        counts: Counts of every picture.
        timing: Seconds for each stage, summed over pictures.
        created: When the evaluation ended, ISO 8601, UTC.
        version: Version of ovseg.
    """

    class_names: tuple[str, ...]
    unseen: tuple[bool, ...]
    is_thing: tuple[bool, ...] | None = None
    background: int | None = None
    ignore_label: int | None = None
    counts: CountTable
    timing: dict[str, float] = field(default_factory=dict)
    created: str = ""
    version: str = ""

    @property
    def images(self) -> tuple[str, ...]:
        """Name of each picture, in the order of the counts."""
        return self.counts.names

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def class_sets(self) -> ClassSets:
        """Seen, unseen, things."""
        return ClassSets.of_flags(self.unseen, self.is_thing)

    @cached_property
    def matrix(self) -> NDArray[np.int64]:
        """Counts over all pictures, (K, K): rows ground truth, columns prediction."""
        return self.counts.matrix()

    @cached_property
    def areas(self) -> Areas:
        """What scores are made of, over all pictures."""
        return Areas.of(self.matrix)

    def metrics(self, rule: Rule = "union", split: Split = "all") -> dict[str, float]:
        """Return every summary score, 0 to 1; NaN where there is none. Names: `metrics.scores_by_name`.

        Args:
            rule: Which classes a mean of IoU takes.
            split: Which classes are reported.

        Raises:
            UsageError: A split of data without unseen classes.
        """
        self._check_split(split)
        scores = metrics.scores_by_name(self.class_sets, rule, split)
        return {name: float(score(self.areas)) for name, score in scores.items()}

    def num_averaged(self, rule: Rule = "union", split: Split = "all") -> int:
        """Return over how many classes the mIoU of this rule and split is a mean."""
        return int(metrics.averaged(self.areas, rule, self.class_sets.named()[split]).sum())

    def per_class(self) -> dict[str, NDArray[Any]]:
        """Return (K,) arrays: IoU, Acc, precision, Dice (0 to 1, NaN where none), pixels of truth and prediction."""
        return {
            "IoU": metrics.class_iou(self.areas),
            "Acc": metrics.class_accuracy(self.areas),
            "precision": metrics.class_precision(self.areas),
            "Dice": metrics.class_dice(self.areas),
            "truth": self.areas.truth,
            "predicted": self.areas.predicted,
        }

    def merge(self, other: "Result") -> "Result":
        """Add the result of other pictures of the same data under the same protocol.

        Raises:
            UsageError: Classes, ignore label or a fingerprint differ, or a picture is in both.
        """
        for name in ("method", "data", "subset", "class_names", "unseen", "ignore_label", "fingerprints"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise UsageError(f"two results cannot be added: their {_difference(name, mine, theirs)} differ.")
        if shared := set(self.images) & set(other.images):
            raise UsageError(f"two results cannot be added: both hold the picture '{min(shared)}'.")
        stages = {*self.timing, *other.timing}
        timing = {stage: self.timing.get(stage, 0.0) + other.timing.get(stage, 0.0) for stage in sorted(stages)}
        return replace(self, counts=self.counts + other.counts, timing=timing, created=max(self.created, other.created))

    def save(self, path: Path) -> None:
        """Write the result to a JSON file; see `result_files`."""
        from ovseg_cli.core.evaluation.result_files import save_result

        save_result(self, path)

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read a result from a JSON file; a broken one raises DataError. See `result_files`."""
        from ovseg_cli.core.evaluation.result_files import load_result

        return load_result(path)

    def in_order(self, names: Sequence[str]) -> "Result":
        """Return the same result with its pictures in another order."""
        return replace(self, counts=self.counts.in_order(names))

    def _check_split(self, split: Split) -> None:
        if split != "all" and not any(self.unseen):
            raise UsageError(
                f"--split {split}: {self.data} has no class split, all of its classes count as seen.",
                'Make one of your own with --unseen "a, b".',
            )


def _difference(name: str, mine: Any, theirs: Any) -> str:
    if name != "fingerprints":
        return name.replace("_", " ")
    return "fingerprints of " + ", ".join(k for k in sorted({*mine, *theirs}) if mine.get(k) != theirs.get(k))
