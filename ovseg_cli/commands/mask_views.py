"""How scores of named masks, and the oracle, look on a terminal. JSON goes out as it is, without packed arrays."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ovseg_cli.commands import console
from ovseg_cli.commands.views import show_table

if TYPE_CHECKING:
    from ovseg_cli.core.evaluation.mask_job import Scored
    from ovseg_cli.core.evaluation.mask_results import MaskResult
    from ovseg_cli.core.evaluation.masks_file import MasksFile
    from ovseg_cli.core.evaluation.metrics import Rule
    from ovseg_cli.core.evaluation.oracle_results import OracleResult


def show_masks(scored: "Sequence[Scored[MaskResult]]", split: str, absent: str, as_json: bool) -> None:
    """Print named masks: a table of all data sets, then sizes and classes of each."""
    from ovseg_cli.core.report.mask_tables import mask_classes_table, masks_table, sizes_table

    documents = [item.result.document() for item in scored]
    if as_json:
        _print_json(scored, documents)
        return
    show_table(masks_table(documents, split, absent))
    for document, item in zip(documents, scored, strict=True):
        for table in (sizes_table(document), mask_classes_table(document, split)):
            console.stdout().print()
            show_table(table)
        console.say(f"result: {item.path}")


def show_oracle(scored: "Sequence[Scored[OracleResult]]", split: str, absent: "Rule", as_json: bool) -> None:
    """Print the ladder of each data set, and what holds the method back."""
    from ovseg_cli.core.report.oracle_tables import oracle_table

    documents = [item.result.document() for item in scored]
    if as_json:
        _print_json(scored, documents)
        return
    show_table(oracle_table(documents, split, absent))
    for item in scored:
        console.stdout().print(f"{item.result.data}: {item.result.verdict(split, absent)}", markup=False)
        console.say(f"result: {item.path}")


def _print_json(scored: "Sequence[Scored[MasksFile]]", documents: Sequence[dict[str, Any]]) -> None:
    results = [{**document, "file": str(item.path)} for document, item in zip(documents, scored, strict=True)]
    console.print_json({"schema": 1, "results": results})
