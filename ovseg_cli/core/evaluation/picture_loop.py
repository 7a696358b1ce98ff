"""How does an evaluation go through pictures one by one? What is done is remembered; processes share what is left."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ovseg_cli.core.evaluation.journal import PictureJournal, remove_journal
from ovseg_cli.core.evaluation.mask_records import MaskRecord
from ovseg_cli.core.evaluation.prefetch import ScoredData, reading
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.training.group import Group
from ovseg_cli.core.types import Sample

R = TypeVar("R")


class MaskJournal(PictureJournal[MaskRecord]):
    """The named masks of finished pictures."""

    def to_plain(self, record: MaskRecord) -> dict[str, list[int]]:
        """Return the arrays as lists."""
        return record.plain()

    def of_plain(self, plain: Any) -> MaskRecord:
        """Build a record from lists."""
        return MaskRecord.of_plain(plain)


def go_through(
    data: ScoredData,
    limit: int | None,
    journal: PictureJournal[R],
    act: Callable[[Sample], R],
    what: str,
    reporter: Reporter,
    group: Group,
) -> tuple[dict[str, R], dict[str, float]]:
    """Make the record of each picture.

    Args:
        data: Labelled pictures.
        limit: Only the first ones.
        journal: Holds what was finished before; the same call continues after an interruption.
        act: Makes a record.
        what: Name of the progress.
        reporter: Shows it.
        group: The processes that share the pictures; each gets all records.

    Returns:
        Records by name, in the order of the pictures, and seconds by stage ("load", "score").
    """
    names = data.names[:limit]
    with journal as done:
        todo = group.broadcast([i for i, name in enumerate(names) if name not in done.counts])
        if len(todo) < len(names):
            reporter.say(f"{len(names) - len(todo)} of {len(names)} pictures were scored before: going on from there")
        own = todo[group.rank :: group.world_size]
        with reading(data, [[i] for i in own]) as batches:
            for (sample,), waited in reporter.track(batches, what, len(own)):
                start = time.perf_counter()
                done.add(sample.name, act(sample))
                done.spend({"load": waited, "score": time.perf_counter() - start})
    done.take_in(group.gather((done.counts, done.timing)))
    return {name: done.counts[name] for name in names}, dict(done.timing)


def keep(save: Callable[[Path], None], path: Path, journal: Path) -> None:
    """Write a result, then forget the journal."""
    save(path)
    remove_journal(journal)
