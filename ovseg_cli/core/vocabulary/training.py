"""Which names has training seen, and which classes of a list are among them under this name or another?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ovseg_cli.core.runs import Run
from ovseg_cli.core.vocabulary.class_list import ClassList, find_classes, names_in
from ovseg_cli.core.vocabulary.relations import Relation, Rows, relations
from ovseg_cli.core.vocabulary.thesaurus import Thesaurus

if TYPE_CHECKING:
    from ovseg_cli.core.runtime import Folders

_ORDER = ("same", "synonym-shared", "spelling", "plural", "order", "synonym")


@dataclass(frozen=True)
class Training:
    """Names that a training has seen.

    Attributes:
        texts: For each training class the texts that stand for it.
        source: Who says so: "the seen classes of coco-stuff:156-15".
    """

    texts: tuple[tuple[str, ...], ...]
    source: str

    @property
    def rows(self) -> list[list[str]]:
        """For each training class its names."""
        return [names_in(row) for row in self.texts]


@dataclass(frozen=True)
class Overlap:
    """A class that training has seen.

    Attributes:
        name: The training class.
        how: Label of the kind: "same name", "plural", "synonym", "alike features", …
        evidence: What speaks for it.
        number: The cosine, where features say it.
    """

    name: str
    how: str
    evidence: str
    number: float | None = None

    @property
    def is_same(self) -> bool:
        """Whether the class is a training class by its own name."""
        return self.how == "same"


def training_of_run(run: Run) -> Training | None:
    """Return the names that a run was trained on; None where it does not say, or learned from no names."""
    names = run.config.get("vocabulary", {}).get("training_names")
    return Training(tuple((str(name),) for name in names), f"the training of {run.path.name}") if names else None


def training_of(classes: ClassList, against: str | None, folders: "Folders") -> Training | None:
    """Return what training has seen: `--against`, else what the run says, else the seen classes of the class split.

    Raises:
        UsageError: `--against` names no list of classes.
    """
    if against is not None:
        other = find_classes(against, folders)
        return (training_of_run(other.run) if other.run else None) or _seen_of(other)
    own = training_of_run(classes.run) if classes.run else None
    has_split = classes.choice is not None and classes.choice.split is not None
    return own or (_seen_of(classes) if has_split else None)


def _seen_of(classes: ClassList) -> Training:
    label = classes.choice.label if classes.choice else classes.label
    texts = tuple(classes.texts[i] for i in classes.seen_places)
    has_split = classes.choice is not None and classes.choice.split is not None
    source = f"the seen classes of {label}" if has_split else label if classes.choice else "the names of --against"
    return Training(texts, source)


def overlaps(rows: Rows, training: Training, thesaurus: Thesaurus) -> dict[int, Overlap]:
    """Return for each class of `rows` that training has seen the best reason, by place."""
    known = training.rows
    found: dict[int, tuple[int, Relation]] = {}
    for (i, j), relation in relations(rows, known, thesaurus).items():
        if i not in found or _ORDER.index(relation.kind) < _ORDER.index(found[i][1].kind):
            found[i] = (j, relation)
    return {i: Overlap(known[j][0], relation.kind, relation.evidence) for i, (j, relation) in sorted(found.items())}


def overlaps_by_features(
    pairs: Sequence[tuple[int, int, float]], training: Training, known: Mapping[int, Overlap]
) -> dict[int, Overlap]:
    """Return the nearest training class of each class in `pairs` (place, place in training, cosine; nearest first).

    Classes in `known` are left out: their names say it already.
    """
    found: dict[int, Overlap] = {}
    rows = training.rows
    for i, j, cosine in pairs:
        if i not in known:
            found.setdefault(i, Overlap(rows[j][0], "alike", f"cosine {cosine:.3f}", cosine))
    return found
