"""What `ovseg report FILE…` does with files of named masks and of oracles: the tables that `eval` showed, once more."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.mask_results import MaskResult
from ovseg_cli.core.evaluation.masks_file import MasksFile
from ovseg_cli.core.evaluation.metrics import Rule, Split
from ovseg_cli.core.evaluation.oracle_results import OracleResult
from ovseg_cli.core.files import read_json
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.mask_tables import mask_classes_table, masks_table, sizes_table
from ovseg_cli.core.report.oracle_tables import oracle_table

KINDS: dict[str, type[MasksFile]] = {kind.kind: kind for kind in (MaskResult, OracleResult)}


def mask_tables(names: Sequence[str], split: Split, rule: Rule) -> list[Table]:
    """Make the tables of files of named masks and of oracles, without a model.

    Returns:
        One table a kind; of a single file of named masks sizes and classes, too. Nothing where no file is of a kind.

    Raises:
        UsageError: Such files are named beside runs or other results, or a split of data without unseen classes.
        DataError: A file is broken.
    """
    kinds = [_kind(Path(name)) for name in names]
    if not any(kinds):
        return []
    if not all(kinds):
        what = f"{names[kinds.index(None)]}: files of named masks or of an oracle stand beside scores of label maps."
        raise UsageError(what, "Report one kind at a time.")
    found = [kind.load(Path(name)) for kind, name in zip(kinds, names, strict=True) if kind]
    for name, result in zip(names, found, strict=True):
        if split != "all" and not any(result.unseen):
            raise UsageError(f"--split {split}: {name} is of data without a class split.", "Leave --split out.")
    named = [result.document() for result in found if isinstance(result, MaskResult)]
    ladders = [result for result in found if isinstance(result, OracleResult)]
    tables = [masks_table(named, split, rule)] if named else []
    if len(named) == 1:
        tables += [sizes_table(named[0]), mask_classes_table(named[0], split)]
    if ladders:
        table = oracle_table([ladder.document() for ladder in ladders], split, rule)
        verdicts = (f"{ladder.data}: {ladder.verdict(split, rule)}" for ladder in ladders)
        tables.append(replace(table, notes=(*table.notes, *verdicts)))
    return tables


def _kind(path: Path) -> type[MasksFile] | None:
    if not path.is_file() or path.suffix != ".json":
        return None
    document: Any = read_json(path, "the result file")
    return KINDS.get(str(document.get("kind"))) if isinstance(document, dict) else None
