"""One model, one data set, its masks: what naming them and the oracle ladder both need, made ready and kept."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from ovseg_cli import __version__
from ovseg_cli.core.evaluation.journal import PictureJournal
from ovseg_cli.core.evaluation.mask_naming import MaskNamer, candidates_of
from ovseg_cli.core.evaluation.mask_sources import MaskSource
from ovseg_cli.core.evaluation.masks_file import MasksFile
from ovseg_cli.core.evaluation.picture_loop import go_through, keep
from ovseg_cli.core.evaluation.results import Facts
from ovseg_cli.core.evaluation.session import Job, describe
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.types import Sample, TextFeatures, Vocabulary

if TYPE_CHECKING:
    from ovseg_cli.core.data.dataset import SegmentationData

R = TypeVar("R", bound=MasksFile)
R_co = TypeVar("R_co", bound=MasksFile, covariant=True)
T = TypeVar("T")


@dataclass(frozen=True)
class Scored(Generic[R_co]):
    """One result and the file that holds it."""

    result: R_co
    path: Path


@dataclass(frozen=True)
class MaskJob:
    """One model, one data set, its masks.

    Attributes:
        job: Model and data.
        source: The masks.
        data: The pictures, with labels.
        vocabulary: The names that compete.
        text: Their features, on the device.
        facts: How the result comes about.
        namer: Gives masks names.
        path: File of the result.
    """

    job: Job
    source: MaskSource
    data: "SegmentationData"
    vocabulary: Vocabulary
    text: TextFeatures
    facts: Facts
    namer: MaskNamer
    path: Path

    @classmethod
    def open(cls, job: Job, source: MaskSource, folder: str, keep_source: bool = False) -> "MaskJob":
        """Make everything ready.

        Args:
            job: Model and data.
            source: The masks.
            folder: In the run's `results`.
            keep_source: The method asks its own source for masks, whose settings then count.
        """
        from ovseg_cli.core.data.dataset import PreparedData

        prepared = PreparedData.open(job.choice.spec, job.folders)
        vocabulary, text, facts = describe(job, prepared)
        text = text.to(job.runtime.device)
        return cls(
            job,
            source,
            prepared.subset(job.subset),
            vocabulary,
            text,
            _with_masks(facts, source, job.request.candidates, keep_source),
            MaskNamer(job.method, text, candidates_of(job.request.candidates, vocabulary)),
            job.run.path / "results" / folder / f"{job.stem}-{source.stem}.json",
        )

    @property
    def journal(self) -> Path:
        """File of the pictures that are done."""
        return self.path.with_suffix(".unfinished.jsonl")

    @property
    def key(self) -> str:
        """Digest of all that changes what is found."""
        facts = self.facts
        own = (facts.method, facts.data, facts.subset, facts.fingerprints, facts.environment.get("device"))
        return digest_of([__version__, json.dumps(own, sort_keys=True)])

    def go_through(
        self, remembered: PictureJournal[T], act: Callable[[Sample], T], what: str
    ) -> tuple[dict[str, T], dict[str, float]]:
        """Look at every picture that the journal does not hold; see `picture_loop.go_through`."""
        job, what = self.job, f"{what} of {self.job.choice.label}"
        return go_through(self.data, job.request.limit, remembered, act, what, job.reporter, job.group)

    def keep(self, result: R) -> Scored[R]:
        """Write the result in the place of the journal."""
        self.job.group.on_main(lambda: keep(result.save, self.path, self.journal))
        return Scored(result, self.path)


def _with_masks(facts: Facts, source: MaskSource, candidates: str, keep_source: bool) -> Facts:
    """Put masks and candidates into the protocol; where masks are given, the method's own source plays no part."""
    settings = facts.protocol["method"]
    if not keep_source:
        settings = {k: v for k, v in settings.items() if k not in ("proposals", "proposal_settings")}
    protocol = {**facts.protocol, "method": settings, "candidates": candidates, "masks": source.name}
    prints = {**facts.fingerprints, "masks": source.digest}
    prints["protocol"] = digest_of([json.dumps(protocol, sort_keys=True)])
    return replace(facts, protocol=protocol, fingerprints=prints)
