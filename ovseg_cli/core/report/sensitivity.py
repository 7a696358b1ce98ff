"""What `ovseg report RUN… --figures mask-sensitivity` does: measure or read, then a table and two pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.mask_cache import without_source
from ovseg_cli.core.evaluation.mask_sensitivity import LIMIT, mask_probabilities, measure
from ovseg_cli.core.evaluation.mask_series import VERSION
from ovseg_cli.core.evaluation.request import EvalRequest
from ovseg_cli.core.evaluation.sensitivity_results import MaskSensitivity
from ovseg_cli.core.evaluation.session import vocabulary_of
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.build import ModelChoice, build_method, choose_model
from ovseg_cli.core.methods.texts import method_text
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.figure_inputs import (
    FigureReport,
    FigureRequest,
    Pictures,
    captions_of,
    fingerprints_of,
    named_runs,
    open_pictures,
    pictures_of,
)
from ovseg_cli.core.report.sensitivity_figure import check_number, draw_figure
from ovseg_cli.core.report.sensitivity_scene import MaskScene, draw_scene, find_scene
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import MEASURED, now, typed_command
from ovseg_cli.core.runtime import Folders, open_runtime

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ovseg_cli.core.methods.base import Method
    from ovseg_cli.core.types import TextFeatures, Vocabulary


def report_sensitivity(request: FigureRequest, folders: Folders, reporter: Reporter) -> FigureReport:
    """Measure the models of some runs, draw the figure and the scene.

    The data are those of the first run unless named. Pictures go to `request.out`, else into the first run's folder.

    Raises:
        UsageError: An unknown run, data set or subset, or a run that holds no segmentation method.
        DataError: Data or weights are missing or broken, or there is no region.
    """
    runs = named_runs(request, folders)
    pictures = pictures_of(request, runs[0], folders)
    choices = [choose_model(str(run.path.absolute()), folders.runs, pictures.choice.spec) for run in runs]
    out = (request.out or runs[0].path) / f"{pictures.stem(MEASURED)}.png"
    models = list(zip(captions_of(choices), choices, strict=True))
    if {choice.method for choice in choices} == {"maft"}:
        reporter.say(
            f"For the frozen CLIP beside it: ovseg eval ipclip --data {pictures.choice.label}; name its run too"
        )
    return _report(models, pictures, out, folders, request.gpus, reporter)


def draw_mask_sensitivity(
    models: Sequence[tuple[str, ModelChoice]],
    data_label: str,
    folders: Folders,
    out_path: Path,
    reporter: Reporter,
    limit: int = LIMIT,
    gpus: int | None = None,
) -> Path:
    """Measure some models on the scoring subset of a data set, draw the figure, and beside it the scene.

    Args:
        models: Caption and choice of each model, the frozen one first.
        data_label: Data set and class split, NAME[:CLASS_SPLIT].
        folders: Where data and runs lie.
        out_path: The PNG of the figure; the scene becomes NAME-scene.png beside it.
        reporter: Shows progress.
        limit: How many pictures are measured at most.
        gpus: What `--gpus` said.

    Returns:
        `out_path`.
    """
    from ovseg_cli.core.data.find import find_data

    pictures = open_pictures(find_data(data_label, None, folders), None, limit, None, folders)
    return _report(models, pictures, out_path, folders, gpus, reporter).pictures[0]


def _report(
    models: Sequence[tuple[str, ModelChoice]],
    pictures: Pictures,
    out: Path,
    folders: Folders,
    gpus: int | None,
    reporter: Reporter,
) -> FigureReport:
    check_number(models)
    device = open_runtime(gpus).device
    scene = find_scene(pictures.data, pictures.choice.spec.unseen_ids(pictures.choice.split))
    if scene is None:
        raise DataError("no picture has a labelled region.", "Choose another --data or --subset, or a higher --limit.")
    measured, answers = [], []
    for caption, choice in models:
        measurement, answer = _one(caption, choice, pictures, scene, out, device, folders, reporter)
        measured.append((caption, measurement))
        answers.append((caption, answer))
    names = measured[0][1].class_names
    place = f"{pictures.choice.label} {pictures.data.name}, {len(pictures.data)} pictures"
    masks = "Proposals" if pictures.store else "Changed masks"
    draw_figure(measured, out, f"Does a class's score follow the mask? {masks} of {place}")
    strip = out.with_name(f"{out.stem}-scene{out.suffix}")
    kind = "unseen" if measured[0][1].unseen[scene.class_id] else "seen"
    draw_scene(
        scene, answers, names, strip, f"One region, '{names[scene.class_id]}' ({kind}), under {len(scene.masks)} masks"
    )
    return FigureReport(sensitivity_table(measured, place), (out, strip))


def _one(
    caption: str,
    choice: ModelChoice,
    pictures: Pictures,
    scene: MaskScene,
    out: Path,
    device: "torch.device",
    folders: Folders,
    reporter: Reporter,
) -> "tuple[MaskSensitivity, Tensor]":
    """Build one model; measure it, or read what was measured; ask it about the scene."""
    method = build_method(without_source(choice), device, reporter)
    vocabulary = vocabulary_of(pictures.choice, EvalRequest(), type(method), choice.run)
    text = method_text(method, vocabulary, folders.cache, reporter).to(device)
    path = _path(choice, pictures, out)
    masks = pictures.store.digest if pictures.store else VERSION
    prints = {**fingerprints_of(method, vocabulary, pictures), "masks": masks}
    measurement = _stored(path, prints, reporter)
    if measurement is None:
        measurement = _measured(caption, choice, method, text, vocabulary, pictures, prints, reporter)
        measurement.save(path)
    else:
        reporter.say(f"{caption}: measured before, read from {path}")
    return measurement, mask_probabilities(method, scene.sample.image, scene.masks, text)


def _measured(
    caption: str,
    choice: ModelChoice,
    method: "Method",
    text: "TextFeatures",
    vocabulary: "Vocabulary",
    pictures: Pictures,
    prints: dict[str, str],
    reporter: Reporter,
) -> MaskSensitivity:
    facts = {"command": typed_command(), "created": now(), "run": str(choice.run.path) if choice.run else ""}
    return MaskSensitivity(
        method=method.name,
        data=pictures.choice.label,
        subset=pictures.data.name,
        class_names=vocabulary.class_names,
        unseen=vocabulary.unseen,
        regions=measure(method, pictures.data, text, reporter, pictures.store, caption),
        fingerprints=prints,
        facts=facts,
    )


def _path(choice: ModelChoice, pictures: Pictures, out: Path) -> Path:
    """Beside a run's results; of a model without a run beside the figure."""
    if choice.run is not None:
        return choice.run.path / "results" / f"{pictures.stem(MEASURED)}.json"
    mark = digest_of([choice.clip, str(choice.pretrained), json.dumps(choice.settings, sort_keys=True, default=str)])
    return out.with_name(f"{pictures.stem(MEASURED)}-{choice.method}-{mark[:8]}.json")


def _stored(path: Path, prints: dict[str, str], reporter: Reporter) -> MaskSensitivity | None:
    """The measurement in a file if it is the very same; a broken file is said so and measured anew."""
    if not path.is_file():
        return None
    try:
        found = MaskSensitivity.load(path)
    except DataError as error:
        reporter.warn(f"{error.message} It is measured anew.")
        return None
    return found if found.fingerprints == prints else None


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
