"""How named masks look as tables: a row a group of classes, a row a size, a row a class."""

from collections.abc import Mapping, Sequence
from typing import Any

from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.grouping import method_title

_ACCURACIES = ("top1", "top5", "class-top1", "area-top1")
_HEADERS = {"top1": "top 1", "top5": "top 5", "class-top1": "top 1, classes", "area-top1": "top 1, area"}
_COLUMNS = tuple(Column(key, _HEADERS[key], "percent") for key in _ACCURACIES)
_MOST_CLASSES = 60


def masks_table(documents: Sequence[Mapping[str, Any]], split: str = "all", rule: str = "union") -> Table:
    """Make a table of named masks: all, seen and unseen classes and the harmonic mean, or only those of `split`.

    Args:
        documents: What `MaskResult.document` returned.
        split: Which classes.
        rule: Which classes a mean of IoU takes.
    """
    columns = (
        Column("method", "method"),
        Column("data", "data"),
        Column("proposals", "masks"),
        Column("classes", "classes"),
        Column("masks", "number", "count"),
        *_COLUMNS,
        Column("mIoU", "mIoU", "percent"),
        Column("ECE", "ECE", "percent"),
        Column("confidence", "mean p", "percent"),
    )
    rows = []
    for document in documents:
        place = f"{document['data']} {document['subset']}"
        head = (method_title(document["method"]), place, document["masks"]["source"])
        scores = document["scores"][rule]
        for group, own in scores.items():
            if split not in ("all", group) or not own["masks"]:
                continue
            values = (own[key] for key in (*_ACCURACIES, "mIoU", "ECE", "confidence"))
            rows.append((*head, f"{own['classes']} {group}", own["masks"], *values))
        if split == "all" and scores["all"]["hTop1"] is not None:
            every = scores["all"]
            rows.append((*head, "harmonic", None, every["hTop1"], None, None, None, every["hIoU"], None, None))
    notes = (
        "top 1, top 5: share of masks whose class is the best, among the best five; top 1, classes: mean over classes; "
        "top 1, area: by pixels.",
        f"mIoU: each mask painted in its best class, small ones on top; mean over classes by the rule '{rule}'.",
        "ECE: expected calibration error, 15 bins; mean p: mean probability of the best class.",
        *dict.fromkeys(note for document in documents for note in document["notes"]),
    )
    return Table("Mask classification", columns, tuple(tuple(map(Cell, row)) for row in rows), notes)


def sizes_table(document: Mapping[str, Any]) -> Table:
    """Make a table of accuracies by the size of masks."""
    columns = (Column("size", "masks"), Column("masks", "number", "count"), *_COLUMNS)
    rows = [
        (f"{part['size']}, {_bounds(part)}", part["masks"], *(part[key] for key in _ACCURACIES))
        for part in document["sizes"]
        if part["masks"]
    ]
    title = f"By size: share of the picture, {document['data']} {document['subset']}"
    return Table(title, columns, tuple(tuple(map(Cell, row)) for row in rows))


def mask_classes_table(document: Mapping[str, Any], split: str = "all") -> Table:
    """Make a table of classes; of very many only the worst, and a note says so."""
    head = (Column("class", "class"), Column("seen", "in this split"), Column("masks", "masks", "count"))
    wanted = {"all": (True, False), "seen": (False,), "unseen": (True,)}[split]
    classes = [row for row in document["classes"] if row["unseen"] in wanted]
    shown, notes = classes, tuple[str, ...]()
    if len(classes) > _MOST_CLASSES:
        shown = sorted(classes, key=lambda row: row["top1"])[:_MOST_CLASSES]
        notes = (f"The {_MOST_CLASSES} classes with the lowest top 1 of {len(classes)}; --json has all.",)
    has_split = any(document["unseen"])
    kinds = {True: "unseen", False: "seen"} if has_split else {False: None}
    rows = [(row["class"], kinds[row["unseen"]], *(row[key] for key in ("masks", "top1", "top5"))) for row in shown]
    title = f"Classes of {document['data']} {document['subset']}"
    return Table(title, (*head, *_COLUMNS[:2]), tuple(tuple(map(Cell, row)) for row in rows), notes)


def _bounds(part: Mapping[str, Any]) -> str:
    low, high = (f"{100 * part[key]:g} %" for key in ("low", "high"))
    if not part["low"]:
        return f"below {high}"
    return f"{low} and more" if part["high"] >= 1 else f"{low} to {high}"
