"""What lies behind the scores: truly novel classes; names of given masks; whether masks or names hold a model back."""

from collections.abc import Sequence
from typing import Any

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.mask_results import MaskResult
from ovseg_cli.core.evaluation.masks_file import MasksFile
from ovseg_cli.core.evaluation.oracle_results import OracleResult
from ovseg_cli.core.page.rows import Row
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.mask_tables import masks_table
from ovseg_cli.core.report.oracle_tables import oracle_table
from ovseg_cli.core.report.request import Comparison
from ovseg_cli.core.vocabulary.novelty import novelty_of, novelty_table
from ovseg_cli.core.vocabulary.training import training_of_run


def further_of(compared: Comparison, rows: Sequence[Row]) -> tuple[list[Table], list[str]]:
    """Make the tables of what else is stored of the rows' runs.

    Returns:
        Tables, and what could not be read.
    """
    view = compared.view
    named, notes = _stored(MaskResult, rows)
    climbed, more = _stored(OracleResult, rows)
    tables = _novelty(compared, rows)
    if named:
        tables.append(masks_table(named, view.split, view.rule))
    if climbed:
        tables.append(oracle_table(climbed, view.split, view.rule))
    return tables, [*notes, *more]


def _novelty(compared: Comparison, rows: Sequence[Row]) -> list[Table]:
    """Truly novel classes: only where somebody says what was trained on, the run where it lies now for one."""
    firsts = [row.first for row in rows]
    parts = [novelty_of(first.result, training_of_run(first.run) if first.run else None) for first in firsts]
    if not any(part.training for part in parts):
        return []
    return [novelty_table(compared.groups, compared.view, parts)]


def _stored(kind: type[MasksFile], rows: Sequence[Row]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the results of one kind of the rows' runs, on the rows' data, in the order of the rows."""
    found: dict[str, dict[str, Any]] = {}
    notes = []
    for row in rows:
        run, result = row.first.run, row.first.result
        for file in sorted((run.path / "results" / kind.folder).glob("*.json")) if run else ():
            try:
                stored = kind.load(file)
            except DataError as error:
                notes.append(f"left out: {error.message}")
                continue
            if (stored.data, stored.subset) == (result.data, result.subset):
                found.setdefault(str(file), stored.document())
    return list(found.values()), notes
