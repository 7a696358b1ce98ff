"""The tables of mask sensitivity: by region, by model over the proposals of pictures, and picture by picture."""

from collections.abc import Callable, Sequence

from ovseg_cli.core.evaluation.bootstrap import RESAMPLES, mean_difference
from ovseg_cli.core.evaluation.proposal_scores import CONFIDENT, RIGHT, PictureScores, summarise
from ovseg_cli.core.evaluation.sensitivity_results import MaskSensitivity
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.class_tables import PAIRED_NOTE, delta_cell


def sensitivity_table(models: Sequence[tuple[str, MaskSensitivity]], place: str) -> Table:
    """Make a table: for each model, of seen and of unseen classes, how its scores follow the mask."""
    columns = (
        Column("model", "model"),
        Column("classes", "classes"),
        Column("regions", "regions", "count"),
        Column("masks", "masks", "count"),
        Column("correlation", "correlation", "number", decimals=2),
        Column("distance", "distance", "number", decimals=2),
        Column("right", "p, IoU ≥ .9", "number", decimals=2),
        Column("wrong", "p, IoU < .1", "number", decimals=2),
    )
    rows = []
    for caption, measurement in models:
        for split in ("seen", "unseen") if any(measurement.unseen) else ("all",):
            summary = measurement.summary(split)
            if not summary.regions:
                continue
            ends = {part.low: part.mean for part in summary.bins}
            numbers = (summary.correlation, summary.distance, ends.get(0.9), ends.get(0.0))
            head = (caption, split, summary.regions, summary.masks)
            rows.append(tuple(Cell(value) for value in (*head, *numbers)))
    notes = (
        "correlation: of the class's probability and the mask's IoU, within a region, averaged over regions.",
        "distance: total variation of the class probabilities of two masks of a region; 0: the mask changes nothing.",
        "p: mean probability of the region's class under right masks and under wrong ones.",
    )
    return Table(f"Mask sensitivity, {place}", columns, tuple(rows), notes)


Models = Sequence[tuple[str, MaskSensitivity]]
_COMPARED: dict[str, Callable[[PictureScores], float]] = {
    "distance": lambda one: one.distance,
    "false_positives": lambda one: one.false_positives(),
    "true_positives": lambda one: one.true_positives(),
}


def proposals_table(models: Models, place: str, resamples: int = RESAMPLES) -> Table:
    """Make a table: for each model how much the scores of a picture's proposals differ, and how many names are false.

    Args:
        models: Caption and measurement of each, on the same proposals; differences are to the first.
        place: Data set and subset, for the title.
        resamples: Of the pictures, for the intervals of the differences.
    """
    several = len(models) > 1  # else there is nothing to be different from
    columns = [Column("model", "model"), Column("pictures", "pictures", "count", shown=False)]
    columns += [Column("masks", "masks", "number")]
    for key, header in (("distance", "distance"), ("false_positives", "false"), ("true_positives", "true")):
        decimals = 2 if key == "distance" else 1
        columns += [
            Column(key, header, "number", decimals),
            Column(f"delta_{key}", "Δ", "points", decimals, shown=several),
        ]
    columns += [Column("found", "found", "percent"), Column("confidence", "p, bad masks", "number", 2)]
    rows = [_model_row(caption, own, models[0][1], resamples if several else 0) for caption, own in models]
    notes = [
        "Means over pictures. distance: total variation of the class probabilities of two proposals of a picture, mean "
        "over pairs; 0: the mask changes nothing.",
        f"false, true: proposals whose best class has a probability of {CONFIDENT} or more, and which overlap that "
        f"class with an IoU below {RIGHT}, or not. found: share of the classes in the pictures with a true one.",
        f"p, bad masks: mean probability of the best class of proposals that overlap no class with an IoU of {RIGHT}.",
    ]
    if several:
        notes.append(f"Δ: to {models[0][0]}. {PAIRED_NOTE.format(resamples)}")
    return Table(f"Proposals of a picture, {place}", tuple(columns), tuple(rows), tuple(notes))


def _model_row(caption: str, own: MaskSensitivity, first: MaskSensitivity, resamples: int) -> tuple[Cell, ...]:
    summary = summarise(own.pictures)
    cells = [Cell(caption), Cell(summary.pictures), Cell(summary.masks)]
    for key, value_of in _COMPARED.items():
        cells += [Cell(getattr(summary, key)), _change(value_of, own, first, resamples)]
    return (*cells, Cell(100 * summary.found), Cell(summary.confidence))


def _change(
    value_of: Callable[[PictureScores], float], own: MaskSensitivity, first: MaskSensitivity, resamples: int
) -> Cell:
    if own is first:
        return Cell()
    pairs = list(zip(own.pictures, first.pictures, strict=True))
    assert all(mine.picture == theirs.picture for mine, theirs in pairs), "the same pictures in the same order"
    mine, theirs = ([value_of(one) for one in side] for side in zip(*pairs, strict=True))
    found = mean_difference(mine, theirs, resamples)
    return delta_cell(found.value, (found.low, found.high) if resamples else None)


def pictures_table(models: Models, place: str) -> Table:
    """Make a table with a row for each model and picture."""
    columns = (
        Column("picture", "picture"),
        Column("model", "model"),
        Column("masks", "masks", "count"),
        Column("labelled", "labelled", "count"),
        Column("distance", "distance", "number", 2),
        Column("false_positives", "false", "count"),
        Column("true_positives", "true", "count"),
        Column("classes", "classes", "count"),
        Column("found", "found", "count"),
    )
    rows = [
        (
            Cell(one.picture), Cell(caption), Cell(one.masks), Cell(len(one.names)), Cell(one.distance),
            Cell(one.false_positives()), Cell(one.true_positives()), Cell(len(one.present)), Cell(len(one.found())),
        )
        for caption, measurement in models
        for one in measurement.pictures
    ]  # fmt: skip
    return Table(f"Proposals picture by picture, {place}", columns, tuple(rows))
