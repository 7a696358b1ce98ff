"""Whose numbers are on the page? The rows of the table of scores, their results and the runs that these are of."""

from collections.abc import Sequence
from dataclasses import dataclass

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.grouping import row_labels
from ovseg_cli.core.report.request import Comparison
from ovseg_cli.core.report.stored import Stored
from ovseg_cli.core.runs import Run, open_run


@dataclass(frozen=True)
class Member:
    """One result of a row.

    Attributes:
        label: Name of the row, with the seed where the row has several.
        result: The result.
        run: The run that was scored; None where it is gone or cannot be read.
    """

    label: str
    result: Result
    run: Run | None


@dataclass(frozen=True)
class Row:
    """One row of the table: a result, or those of several seeds.

    Attributes:
        label: Its name.
        members: At least one.
    """

    label: str
    members: tuple[Member, ...]

    @property
    def first(self) -> Member:
        """What pictures, classes and confusions are of."""
        return self.members[0]


def rows_of(compared: Comparison) -> list[Row]:
    """Name all rows and find their runs."""
    labels = compared.labels or row_labels(compared.groups)
    return [
        Row(label, tuple(_member(label, compared.file_of(result), len(group)) for result in group))
        for label, group in zip(labels, compared.groups, strict=True)
    ]


def members_of(rows: Sequence[Row]) -> list[Member]:
    """All results of all rows."""
    return [member for row in rows for member in row.members]


def place_of(result: Result) -> str:
    """Data and subset, for titles."""
    return f"{result.data}, {result.subset}"


def lost_runs(rows: Sequence[Row]) -> list[str]:
    """Say which runs are gone, and what the page lacks for that."""
    gone = [member.label for member in members_of(rows) if member.run is None]
    if not gone:
        return []
    return [f"The runs of these results are not here, so their curves and pictures are missing: {'; '.join(gone)}."]


def _member(label: str, stored: Stored, seeds: int) -> Member:
    name = f"{label}, seed {stored.result.seed}" if seeds > 1 else label
    return Member(name, stored.result, _run(stored))


def _run(stored: Stored) -> Run | None:
    folder = stored.run_folder
    try:
        return open_run(folder) if folder else None
    except DataError:  # another version's or a broken one: as good as gone, and said to be
        return None
