"""How well does a model do on what it has never been taught? mIoU over truly novel classes, beside mIoU.

A class that a split calls unseen, or that stands in another data set, may be a training class by another name: `couch`
after `sofa`. Such classes say little of zero-shot segmentation. From stored counts; no model is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.evaluation.bootstrap import intervals
from ovseg_cli.core.evaluation.metrics import Score, averaged, mean_iou
from ovseg_cli.core.evaluation.results import Result
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.grouping import Group, row_labels
from ovseg_cli.core.report.remarks import Remarks
from ovseg_cli.core.report.tables import RULES, View, mean_cell
from ovseg_cli.core.runs import open_run
from ovseg_cli.core.vocabulary.class_list import names_in
from ovseg_cli.core.vocabulary.findings import KINDS, short
from ovseg_cli.core.vocabulary.thesaurus import shipped
from ovseg_cli.core.vocabulary.training import Overlap, Training, overlaps, training_of_run

BY_NAME = "by name: spelling, plural, word order and known synonyms"
"""How names are compared without a model; a more general name (`table` for `dining table`) is no overlap."""
_SHOWN = 8
_SCORES = {"mIoU": "mIoU", "mIoU_novel": "truly novel", "mIoU_known": "overlapping", "uIoU": "uIoU"}


@dataclass(frozen=True)
class Novelty:
    """Which classes of a result are truly novel.

    Attributes:
        novel: Ids of classes that are neither a training class nor one by another name.
        known: Ids of the others; a background is in neither.
        twins: Of the classes that the split calls unseen, or of all where training was on other data: those that
            overlap under another name, with the reason.
        training: Who says what was trained on, or None where nobody does: then every class is novel.
    """

    novel: tuple[int, ...]
    known: tuple[int, ...]
    twins: Mapping[int, Overlap]
    training: str | None


def training_of_result(result: Result) -> Training | None:
    """Return what a result's model was trained on: what its run says, else the seen classes of the class split."""
    own = _of_run(result.run)
    if own is None and any(result.unseen):
        seen = tuple((name,) for name, unseen in zip(result.class_names, result.unseen, strict=True) if not unseen)
        return Training(seen, f"the seen classes of {result.data}")
    return own


def _of_run(folder: str | None) -> Training | None:
    """A result may have outlived its run, or have been moved away from it."""
    try:
        return training_of_run(open_run(Path(folder))) if folder else None
    except OvsegError:
        return None


def novelty_of(result: Result, training: Training | None = None, alike: Mapping[int, Overlap] | None = None) -> Novelty:
    """Part the classes of a result.

    Args:
        result: Scored classes.
        training: What was trained on; None: `training_of_result`.
        alike: Further classes that overlap, by train id, for instance since their features do.
    """
    training = training or training_of_result(result)
    classes = [i for i in range(result.num_classes) if i != result.background]
    if training is None:
        return Novelty(tuple(classes), (), {}, None)
    rows = [names_in([result.class_names[i]]) for i in classes]
    found = {classes[place]: overlap for place, overlap in overlaps(rows, training, shipped()).items()}
    found |= {i: overlap for i, overlap in (alike or {}).items() if i not in found and i in classes}
    known = tuple(i for i in classes if i in found)
    twins = {i: found[i] for i in known if result.unseen[i] or not found[i].is_same}
    if any(result.unseen):
        twins = {i: overlap for i, overlap in twins.items() if result.unseen[i]}
    return Novelty(tuple(i for i in classes if i not in found), known, twins, training.source)


def novelty_table(
    groups: Sequence[Group],
    view: View | None = None,
    novelties: Sequence[Novelty] | None = None,
    compared: str = BY_NAME,
) -> Table:
    """Make a table of mIoU, of mIoU over truly novel and over overlapping classes, in percent.

    Args:
        groups: One row each; several results of a group are seeds.
        view: Rule and intervals; its split is not used.
        novelties: For each group which classes are novel; None: `novelty_of` its first result.
        compared: How names were compared, for the notes.
    """
    view = view or View()
    parts = list(novelties or (novelty_of(group[0]) for group in groups))
    remarks = Remarks.of(row_labels(groups), groups)
    has_unseen = any(any(group[0].unseen) for group in groups)
    shown = {key: header for key, header in _SCORES.items() if key != "uIoU" or has_unseen}
    columns = (
        Column("method", "method"),
        Column("data", "data", shown=len({group[0].data for group in groups}) > 1),
        *(Column(key, header if "IoU" in header else f"mIoU {header}", "percent") for key, header in shown.items()),
        Column("novel", "novel", "count"),
        Column("known", "overlapping", "count"),
        Column("training", "training", shown=False),
        Column("twins", "overlapping under another name", shown=False),
        *remarks.columns,
    )
    rows = []
    for place, (group, part) in enumerate(zip(groups, parts, strict=True)):
        twins = "; ".join(f"{group[0].class_names[i]}: {overlap.name}" for i, overlap in part.twins.items())
        counts = [_averaged(group[0], view, ids) for ids in (part.novel, part.known)]
        facts = [Cell(value) for value in (*counts, part.training, twins or None)]
        scores = _score_cells(group, part, view, list(shown))
        rows.append((remarks.label(place), Cell(group[0].data), *scores, *facts, *remarks.cells(place)))
    return Table("Truly novel classes", columns, tuple(rows), (*_notes(groups, parts, view, compared), *remarks.notes))


def _averaged(result: Result, view: View, ids: Sequence[int]) -> int:
    return int(averaged(result.areas, view.rule, ids).sum())


def _score_cells(group: Group, part: Novelty, view: View, names: Sequence[str]) -> list[Cell]:
    sets = {"mIoU": None, "mIoU_novel": part.novel, "mIoU_known": part.known, "uIoU": group[0].class_sets.unseen}
    scores: dict[str, Score] = {name: partial(mean_iou, rule=view.rule, classes=sets[name]) for name in names}
    if len(group) == 1 and view.resamples:
        found = intervals(group[0], resamples=view.resamples, seed=view.seed, scores=scores)
        return [Cell(100 * i.value, interval=(100 * i.low, 100 * i.high)) for i in found.values()]
    return [mean_cell([100 * float(score(result.areas)) for result in group]) for score in scores.values()]


def _notes(groups: Sequence[Group], parts: Sequence[Novelty], view: View, compared: str) -> list[str]:
    sources = list(dict.fromkeys(part.training for part in parts))
    notes = [f"Scores in percent. Rule {view.rule}: {RULES[view.rule]}."]
    if known := [source for source in sources if source]:
        notes.append(f"Overlapping: a class of {' or '.join(known)}, or one under another name. Compared {compared}.")
    if None in sources:
        notes.append("Nobody says what was trained on, or there were no names: every class counts as novel there.")
    notes += list(dict.fromkeys(_twins_note(g[0], p) for g, p in zip(groups, parts, strict=True) if p.twins))
    if view.resamples and any(len(group) == 1 for group in groups):
        notes.append(f"Ranges: 95 % intervals from {view.resamples} resamples of the images.")
    return notes


def _twins_note(result: Result, part: Novelty) -> str:
    said = [f"{short(result.class_names[i])} ({o.name}, {KINDS[o.how].label})" for i, o in part.twins.items()]
    more = f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    which = "Called unseen, and yet known" if any(result.unseen) else "Known under another name"
    return f"{which}: {', '.join(said[:_SHOWN])}{more}."
