"""How the oracle ladder looks as a table: one row a rung."""

from collections.abc import Mapping, Sequence
from typing import Any

from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.grouping import method_title

_WORDS = {
    "predicted": ("predicted", "predicted"),
    "right-masks": ("ground truth", "predicted"),
    "right-names": ("predicted", "ground truth"),
    "both": ("ground truth", "ground truth"),
}


def oracle_table(documents: Sequence[Mapping[str, Any]], split: str = "all", rule: str = "union") -> Table:
    """Make a table of oracle ladders.

    Args:
        documents: What `OracleResult.document` returned.
        split: Which classes.
        rule: Which classes a mean of IoU takes.
    """
    columns = (
        Column("method", "method"),
        Column("data", "data"),
        Column("masks", "masks"),
        Column("names", "names"),
        Column("mIoU", "mIoU", "percent"),
        Column("hIoU", "hIoU", "percent"),
        Column("pAcc", "pAcc", "percent"),
    )
    rows = []
    for document in documents:
        place = f"{document['data']} {document['subset']}" + ("" if split == "all" else f", {split}")
        for rung, scores in document["ladder"][rule][split].items():
            values = (
                method_title(document["method"]),
                place,
                *_WORDS[rung],
                *(scores[key] for key in ("mIoU", "hIoU", "pAcc")),
            )
            rows.append(tuple(Cell(value) for value in values))
    sources = dict.fromkeys(document["masks"]["source"] for document in documents)
    meant = " or ".join("the method's own" if source == "own" else f"those of {source}" for source in sources)
    notes = (
        f"Predicted masks: {meant}. Ground-truth masks: one a class, named by the method's mask classifier.",
        "Ground-truth names: the class that most labelled pixels of a mask have.",
        *dict.fromkeys(note for document in documents for note in document["notes"]),
    )
    return Table("Oracle: what better masks or names would bring", columns, tuple(rows), notes)
