"""What `ovseg report RUN… --figures mask-sensitivity` does: measure or read, then tables and pictures.

Masks are changed ground-truth regions, or, with `--proposals`, proposals: then each picture is measured too.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli.core.errors import DataError
from ovseg_cli.core.evaluation.mask_cache import without_source
from ovseg_cli.core.evaluation.mask_sensitivity import LIMIT, mask_probabilities, measure
from ovseg_cli.core.evaluation.mask_series import VERSION
from ovseg_cli.core.evaluation.mask_session import open_labelled
from ovseg_cli.core.evaluation.mask_sources import MaskSource, find_source
from ovseg_cli.core.evaluation.measurement_files import measured_before
from ovseg_cli.core.evaluation.names import vocabulary_of
from ovseg_cli.core.evaluation.proposal_scores import PictureScores
from ovseg_cli.core.evaluation.proposal_sensitivity import VERSION as PROPOSALS_VERSION
from ovseg_cli.core.evaluation.proposal_sensitivity import measure_proposals
from ovseg_cli.core.evaluation.request import EvalRequest
from ovseg_cli.core.evaluation.sensitivity_results import MaskSensitivity
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.build import ModelChoice, build_method, choose_model
from ovseg_cli.core.methods.texts import method_text
from ovseg_cli.core.report.drawing import check_number
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
from ovseg_cli.core.report.proposals_figure import draw_proposals
from ovseg_cli.core.report.sensitivity_figure import draw_figure
from ovseg_cli.core.report.sensitivity_scene import MaskScene, draw_scene, find_scene
from ovseg_cli.core.report.sensitivity_tables import pictures_table, proposals_table, sensitivity_table
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import CONFIG, HOST, MEASURED, RESULTS, now, typed_command
from ovseg_cli.core.runtime import Folders, open_runtime

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ovseg_cli.core.methods.base import Method
    from ovseg_cli.core.types import TextFeatures, Vocabulary


def report_sensitivity(request: FigureRequest, folders: Folders, reporter: Reporter) -> FigureReport:
    """Measure the models of some runs, draw the figure and the scene, and that of the proposals where there are some.

    The data are those of the first run unless named. Pictures go to `request.out`, else into the first run's folder.
    Proposals are those of a generator or of a run, made before or now; a run of MAFT stands for its host.

    Raises:
        UsageError: An unknown run, data set or subset, or a run that holds no segmentation method.
        DataError: Data or weights are missing or broken, or there is no region.
    """
    runs = named_runs(request, folders)
    pictures = pictures_of(replace(request, proposals=None), runs[0], folders)
    unseen = None if request.data else runs[0].data[1]
    source = _source_of(request.proposals, unseen, pictures, folders, reporter)
    choices = [choose_model(str(run.path.absolute()), folders.runs, pictures.choice.spec) for run in runs]
    out = (request.out or runs[0].path) / f"{_stem(pictures, source)}.png"
    models = list(zip(captions_of(choices), choices, strict=True))
    if {choice.method for choice in choices} == {"maft"}:
        reporter.say(
            f"For the frozen CLIP beside it: ovseg eval ipclip --data {pictures.choice.label}; name its run too"
        )
    hosts = [run.as_model for run in runs if (run.path / HOST / CONFIG).is_file()]
    if source is None and hosts:
        reporter.say(f"For the proposals of each picture instead of changed masks: --proposals {hosts[0]}")
    return _report(models, pictures, source, out, folders, request.gpus, reporter)


def _source_of(
    proposals: str | None, unseen: str | None, pictures: Pictures, folders: Folders, reporter: Reporter
) -> MaskSource | None:
    """Find the masks that `--proposals` means; a run whose folder holds a host stands for that."""
    if proposals is None:
        return None
    host = Path(proposals) / HOST
    typed = str(host) if (host / CONFIG).is_file() else proposals
    choice, whole = pictures.choice, open_labelled(pictures.choice, pictures.data.name, folders)
    return find_source(typed, choice, unseen, whole, folders, reporter)


def _stem(pictures: Pictures, source: MaskSource | None) -> str:
    return pictures.stem(MEASURED) + (f"-{source.name}" if source else "")


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
    return _report(models, pictures, None, out_path, folders, gpus, reporter).pictures[0]


def _report(
    models: Sequence[tuple[str, ModelChoice]],
    pictures: Pictures,
    source: MaskSource | None,
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
    if source is not None:
        source.prepare(device, reporter)
    measured, answers = [], []
    for caption, choice in models:
        measurement, answer = _one(caption, choice, pictures, source, scene, out, device, folders, reporter)
        measured.append((caption, measurement))
        answers.append((caption, answer))
    names = measured[0][1].class_names
    place = f"{pictures.choice.label} {pictures.data.name}, {len(pictures.data)} pictures"
    masks = f"Proposals of {source.name}" if source else "Changed masks"
    draw_figure(measured, out, f"Does a class's score follow the mask? {masks} of {place}")
    strip = out.with_name(f"{out.stem}-scene{out.suffix}")
    kind = "unseen" if measured[0][1].unseen[scene.class_id] else "seen"
    draw_scene(
        scene, answers, names, strip, f"One region, '{names[scene.class_id]}' ({kind}), under {len(scene.masks)} masks"
    )
    table = sensitivity_table(measured, place)
    if source is None:
        return FigureReport(table, (out, strip))
    whole = out.with_name(f"{out.stem}-pictures{out.suffix}")
    place = f"{place}, masks: {source.name}"
    draw_proposals(measured, whole, f"Are a picture's proposals told apart? {place}")
    tables = (proposals_table(measured, place),), (pictures_table(measured, place),)
    return FigureReport(table, (out, strip, whole), *tables)


def _one(
    caption: str,
    choice: ModelChoice,
    pictures: Pictures,
    source: MaskSource | None,
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
    path = _path(choice, _stem(pictures, source), out)
    masks = digest_of([PROPOSALS_VERSION, source.digest]) if source else VERSION
    prints = {**fingerprints_of(method, vocabulary, pictures), "masks": masks}
    measurement = measured_before(path, MaskSensitivity.load, reporter)
    if measurement is None or measurement.fingerprints != prints:
        measurement = _measured(caption, choice, method, text, vocabulary, pictures, source, prints, reporter)
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
    source: MaskSource | None,
    prints: dict[str, str],
    reporter: Reporter,
) -> MaskSensitivity:
    if source is None:
        regions = measure(method, pictures.data, text, reporter, caption)
        whole: tuple[PictureScores, ...] = ()
    else:
        regions, whole = measure_proposals(method, pictures.data, text, source, reporter, caption)
    facts = {"command": typed_command(), "created": now(), "run": str(choice.run.path) if choice.run else ""}
    return MaskSensitivity(
        method=method.name,
        data=pictures.choice.label,
        subset=pictures.data.name,
        class_names=vocabulary.class_names,
        unseen=vocabulary.unseen,
        regions=regions,
        fingerprints=prints,
        facts=facts,
        pictures=whole,
    )


def _path(choice: ModelChoice, stem: str, out: Path) -> Path:
    """Beside a run's results; of a model without a run beside the figure."""
    if choice.run is not None:
        return choice.run.path / RESULTS / f"{stem}.json"
    mark = digest_of([choice.clip, str(choice.pretrained), json.dumps(choice.settings, sort_keys=True, default=str)])
    return out.with_name(f"{stem}-{choice.method}-{mark[:8]}.json")
