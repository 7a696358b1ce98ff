"""How the quality of mask proposals looks as tables: one row a group of classes, one row a class."""

from collections.abc import Mapping, Sequence
from typing import Any

from ovseg_cli.core.report.cells import Cell, Column, Table

_SCORES = ("AR@10", "AR@50", "AR@100", "best-IoU", "mIoU")
_HEADERS = {"best-IoU": "best IoU", "mIoU": "oracle mIoU"}
_SCORE_COLUMNS = tuple(Column(key, _HEADERS.get(key, key), "percent") for key in _SCORES)
_MOST_CLASSES = 60
_REGIONS = {"class": "all pixels of a class in a picture", "component": "a connected piece of a class"}


def quality_table(documents: Sequence[Mapping[str, Any]], split: str = "all") -> Table:
    """Make a table of scored proposals: all, seen and unseen classes, or only those of `split`."""
    columns = (
        Column("proposals", "proposals"),
        Column("data", "data"),
        Column("classes", "classes"),
        Column("regions", "regions", "count"),
        Column("per_image", "masks an image"),
        *_SCORE_COLUMNS,
    )
    rows = []
    for document in documents:
        for group, scores in document["groups"].items():
            if (split != "all" and group != split) or not scores["regions"]:
                continue
            per_image = f"{document['proposals_an_image']:.1f}"
            place = f"{document['data']} {document['subset']}"
            head = (document["generator"], place, f"{scores['classes']} {group}", scores["regions"], per_image)
            rows.append(tuple(Cell(value) for value in (*head, *(scores[key] for key in _SCORES))))
    rules = dict.fromkeys(_REGIONS[document["protocol"]["regions"]] for document in documents)
    notes = (
        f"A region is {' or '.join(rules)}; pixels without a class count nowhere.",
        "AR@k: COCO's average recall, classes ignored, IoU .50:.05:.95, each proposal takes one free region, best "
        "score first.",
        "best IoU: of each region with its best proposal. Oracle mIoU: every region gets its best proposal.",
    )
    return Table("Mask proposals", columns, tuple(rows), notes)


def class_quality_table(document: Mapping[str, Any], split: str = "all") -> Table:
    """Make a table of the classes of one document; of very many only the worst, and a note says so."""
    columns = (
        Column("class", "class"),
        Column("seen", "in this split"),
        Column("regions", "regions", "count"),
        *_SCORE_COLUMNS,
    )
    wanted = {"all": (True, False), "seen": (False,), "unseen": (True,)}[split]
    classes = [row for row in document["classes"] if row["unseen"] in wanted]
    shown, notes = classes, tuple[str, ...]()
    if len(classes) > _MOST_CLASSES:
        shown = sorted(classes, key=lambda row: row["AR@100"])[:_MOST_CLASSES]
        notes = (f"The {_MOST_CLASSES} classes with the lowest AR@100 of {len(classes)}; --json has all.",)
    has_split = any(row["unseen"] for row in document["classes"])
    rows = [
        tuple(
            Cell(value)
            for value in (
                row["class"],
                ("unseen" if row["unseen"] else "seen") if has_split else None,
                row["regions"],
                *(row[key] for key in _SCORES),
            )
        )
        for row in shown
    ]
    return Table(f"Classes of {document['data']} {document['subset']}", columns, tuple(rows), notes)
