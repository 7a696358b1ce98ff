"""One lint: what was asked, the list, what training has seen, and which classes share names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ovseg_cli.core.vocabulary.class_list import ClassList
from ovseg_cli.core.vocabulary.findings import Finding
from ovseg_cli.core.vocabulary.relations import Relation
from ovseg_cli.core.vocabulary.thesaurus import shipped
from ovseg_cli.core.vocabulary.training import Overlap, Training, overlaps


@dataclass(frozen=True)
class LintRequest:
    """Options of `ovseg show vocabulary`, as typed; the fields are explained in its help."""

    what: str
    model: str | None = None
    clip: str | None = None
    pretrained: str | None = None
    names: str | None = None
    against: str | None = None
    alike: float | None = None


@dataclass(frozen=True)
class Job:
    """What is known of a list before a model is asked.

    Places count the classes that are looked at, without a background; ids are places in the whole list.

    Attributes:
        request: Options.
        classes: The list.
        training: What training has seen, or None.
        related: Pairs of places that share a name.
    """

    request: LintRequest
    classes: ClassList
    training: Training | None
    related: Mapping[tuple[int, int], Relation]

    @cached_property
    def seen(self) -> dict[int, Overlap]:
        """Places of classes that training has seen, by name."""
        return overlaps(self.classes.rows, self.training, shipped()) if self.training else {}

    @cached_property
    def home(self) -> frozenset[int]:
        """Places of classes that were trained on since they are this list's own: nothing to remark."""
        classes = self.classes
        if self.training is None or self.request.against is not None or classes.choice is None:
            return frozenset()
        own = {*classes.names, *(text for row in classes.texts for text in row)}
        if not {text for row in self.training.texts for text in row} <= own:
            return frozenset()
        return frozenset(classes.places.index(i) for i in classes.seen_places)

    def placed(self, finding: Finding) -> Finding:
        """Return a finding with ids for its places."""
        return replace(finding, ids=tuple(self.classes.places[place] for place in finding.ids))
