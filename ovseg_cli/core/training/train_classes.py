"""Which classes does a training know by name, whose labels may it read, and what becomes of the labels of others?"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ovseg_cli.core.data.spec import Spec
from ovseg_cli.core.data.spec_models import ClassSplit
from ovseg_cli.core.training.collate import NO_CLASS
from ovseg_cli.core.types import UNSEEN_PIXEL

if TYPE_CHECKING:
    from ovseg_cli.core.methods.trained import LabelView


@dataclass(frozen=True)
class TrainClasses:
    """What a method's `LabelView` means on one data set and class split, in train ids.

    Attributes:
        names: The training vocabulary in its order: labels become positions in it, text features are of these.
        labelled: Classes whose labels are read, some of `names`.
        marked: Classes whose pixels become `UNSEEN_PIXEL`, all alike.
        reads_labels: Whether labels are read at all; where they are not, none is opened.
    """

    names: tuple[int, ...]
    labelled: tuple[int, ...]
    marked: tuple[int, ...] = ()
    reads_labels: bool = True

    @classmethod
    def of(cls, spec: Spec, split: ClassSplit | None, view: "LabelView") -> "TrainClasses":
        """Look up the classes of a view; without a class split all of them are seen."""
        ids = {"seen": tuple(spec.seen_ids(split)), "all": tuple(range(spec.num_classes)), "none": ()}
        labelled = ids[view.labelled]
        marked = [i for i in spec.unseen_ids(split) if i not in labelled] if view.marks_unseen else []
        names = ids["all" if view.labelled == "all" else view.names]
        return cls(names, labelled, tuple(marked), view.labelled != "none" or view.marks_unseen)

    @classmethod
    def only(cls, seen_ids: tuple[int, ...]) -> "TrainClasses":
        """Return the usual case: the seen classes, and nothing else in any form."""
        return cls(tuple(seen_ids), tuple(seen_ids))

    @property
    def has_unlabelled(self) -> bool:
        """Whether some names have no labels while others do: pixels without one may still get it (self-training)."""
        return self.reads_labels and len(self.names) > len(self.labelled)

    def needs_full_labels(self, hidden: list[int]) -> bool:
        """Whether labels of classes that a class split hides (`hidden`) have to be opened at all."""
        return bool({*hidden} & {*self.labelled, *self.marked})

    def table(self) -> np.ndarray:
        """Return the lookup table from train ids (16 bits) to int16 positions in `names`, NO_CLASS or UNSEEN_PIXEL."""
        return _table(self)

    def digest_parts(self) -> list[str]:
        """Return what a fingerprint of the training data holds of them."""
        if not self.reads_labels:
            return [str(self.names), "no labels"]
        plain = self == TrainClasses.only(self.names)
        return [str(self.names)] if plain else [str(self.names), str(self.labelled), str(self.marked)]


@lru_cache(maxsize=4)
def _table(classes: TrainClasses) -> np.ndarray:
    table = np.full(1 << 16, NO_CLASS, np.int16)
    table[list(classes.marked)] = UNSEEN_PIXEL
    table[list(classes.labelled)] = [classes.names.index(i) for i in classes.labelled]
    return table
