"""What `ovseg report RUN… --figures mask-sensitivity` does: measure or read, then a table and two pictures."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli import __version__
from ovseg_cli.core.errors import DataError, UsageError, unknown_name
from ovseg_cli.core.evaluation.mask_sensitivity import LIMIT, mask_probabilities, measure
from ovseg_cli.core.evaluation.mask_series import VERSION
from ovseg_cli.core.evaluation.request import SCORE_SUBSET, EvalRequest
from ovseg_cli.core.evaluation.sensitivity_results import MaskSensitivity
from ovseg_cli.core.evaluation.session import vocabulary_of
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.methods.build import ModelChoice, build_method, choose_model
from ovseg_cli.core.methods.texts import method_text
from ovseg_cli.core.registry import METHODS
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.sensitivity_figure import check_number, draw_figure
from ovseg_cli.core.report.sensitivity_scene import MaskScene, draw_scene, find_scene
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import MEASURED, Run, find_run, now, typed_command
from ovseg_cli.core.runtime import Folders, open_runtime

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ovseg_cli.core.data.dataset import SegmentationData
    from ovseg_cli.core.data.splits import DataChoice
    from ovseg_cli.core.methods.base import Method
    from ovseg_cli.core.proposals.store import ProposalStore
    from ovseg_cli.core.types import TextFeatures, Vocabulary

_OF_SOURCE = ("proposals", "proposal_settings")  # settings that play no part where masks are given
_MOST_SETTINGS = 2  # in a caption


@dataclass(frozen=True)
class SensitivityRequest:
    """Options of `ovseg report --figures mask-sensitivity`, as typed; the fields are explained in its help."""

    runs: tuple[str, ...]
    data: str | None = None
    subset: str | None = None
    out: Path | None = None
    limit: int = LIMIT
    proposals: str | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class SensitivityReport:
    """What was found: a table, and the pictures that were drawn."""

    table: Table
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class _Pictures:
    """What models are measured on."""

    choice: "DataChoice"
    data: "SegmentationData"
    store: "ProposalStore | None"

    @property
    def stem(self) -> str:
        """Stem of a measurement's file: MEASURED-DATA-SUBSET."""
        label = Path(self.choice.label.replace(":", "-").replace("/", "-")).name
        return f"{MEASURED}-{label}-{self.data.name}" + ("-proposals" if self.store else "")


def report_sensitivity(request: SensitivityRequest, folders: Folders, reporter: Reporter) -> SensitivityReport:
    """Measure the models of some runs, draw the figure and the scene.

    The data are those of the first run unless named. Pictures go to `request.out`, else into the first run's folder.

    Raises:
        UsageError: An unknown run, data set or subset, or a run that holds no segmentation method.
        DataError: Data or weights are missing or broken, or there is no region.
    """
    from ovseg_cli.core.data.find import find_data

    runs = [_run(name, folders) for name in request.runs]
    label, unseen = (request.data, None) if request.data else runs[0].data
    pictures = _open(find_data(label, unseen, folders), request.subset, request.limit, request.proposals, folders)
    paths = list(dict.fromkeys(run.path for run in runs))
    choices = [choose_model(str(path.absolute()), folders.runs, pictures.choice.spec) for path in paths]
    out = (request.out or runs[0].path) / f"{pictures.stem}.png"
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

    pictures = _open(find_data(data_label, None, folders), None, limit, None, folders)
    return _report(models, pictures, out_path, folders, gpus, reporter).pictures[0]


def _run(name: str, folders: Folders) -> Run:
    if name != "latest" and Path(name).is_file():
        raise UsageError(f"{name}: this is a file; --figures builds models, which takes run folders.")
    return find_run(name, folders.runs)


def captions_of(choices: Sequence[ModelChoice]) -> list[str]:
    """Name models by their methods; those of one method by the settings that they differ in, else by their runs."""
    titles = [METHODS[choice.method].title + (" (frozen)" if choice.method == "ipclip" else "") for choice in choices]
    captions = list(titles)
    for title, count in Counter(titles).items():
        places = [i for i, other in enumerate(titles) if other == title]
        if count > 1:
            for i, words in zip(places, _differences([choices[i] for i in places]), strict=True):
                captions[i] = title + words
    return captions


def _differences(rivals: Sequence[ModelChoice]) -> list[str]:
    """What sets models of one method apart: a few settings, or the names of their folders."""
    tables = [{**(c.run.config.get("training", {}) if c.run else {}), **c.settings} for c in rivals]
    keys = [key for key in dict.fromkeys(key for table in tables for key in table) if key not in _OF_SOURCE]
    differing = [key for key in keys if len({repr(table.get(key)) for table in tables}) > 1]
    words = ["".join(f", {key} {table.get(key, 'default')}" for key in differing) for table in tables]
    if len(set(words)) == len(words) and len(differing) <= _MOST_SETTINGS:
        return words
    return [f" {c.run.path.name}" if c.run else f" {number}" for number, c in enumerate(rivals, start=1)]


def _open(choice: "DataChoice", subset: str | None, limit: int, proposals: str | None, folders: Folders) -> _Pictures:
    from ovseg_cli.core.data.dataset import PreparedData
    from ovseg_cli.core.proposals.caches import find_cache

    if choice.spec.task != "semantic":
        raise UsageError(f"{choice.spec.name} holds masks without classes: there is nothing to name.")
    prepared, subset = PreparedData.open(choice.spec, folders), subset or SCORE_SUBSET
    if subset not in prepared.subsets:
        raise unknown_name(f"subset of {choice.spec.name}", subset, prepared.subsets)
    data = prepared.subset(subset)
    if not data.has_labels:
        raise DataError(f"{choice.spec.name}, subset '{subset}', has no label maps.", "Choose another --subset.")
    store = None if proposals is None else find_cache(proposals, choice.spec.name, subset, folders)
    if store is not None:
        store.require({"data_fingerprint": data.fingerprint})
    return _Pictures(choice, data.select(range(min(limit, len(data)))), store)


def _report(
    models: Sequence[tuple[str, ModelChoice]],
    pictures: _Pictures,
    out: Path,
    folders: Folders,
    gpus: int | None,
    reporter: Reporter,
) -> SensitivityReport:
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
    return SensitivityReport(sensitivity_table(measured, place), (out, strip))


def _one(
    caption: str,
    choice: ModelChoice,
    pictures: _Pictures,
    scene: MaskScene,
    out: Path,
    device: "torch.device",
    folders: Folders,
    reporter: Reporter,
) -> "tuple[MaskSensitivity, Tensor]":
    """Build one model; measure it, or read what was measured; ask it about the scene."""
    method = build_method(_without_source(choice), device, reporter)
    vocabulary = vocabulary_of(pictures.choice, EvalRequest(), type(method), choice.run)
    text = method_text(method, vocabulary, folders.cache, reporter).to(device)
    path = _path(choice, pictures, out)
    prints = _fingerprints(method, vocabulary, pictures)
    measurement = _stored(path, prints, reporter)
    if measurement is None:
        measurement = _measured(caption, choice, method, text, vocabulary, pictures, prints, reporter)
        measurement.save(path)
    else:
        reporter.say(f"{caption}: measured before, read from {path}")
    return measurement, mask_probabilities(method, scene.sample.image, scene.masks, text)


def _without_source(choice: ModelChoice) -> ModelChoice:
    """The same model with a generator that is never asked: masks are given, so a lost cache or host is no matter."""
    if "proposals" not in METHODS[choice.method].load().Config.model_fields:
        return choice
    return replace(choice, settings={**choice.settings, "proposals": "superpixels", "proposal_settings": {}})


def _measured(
    caption: str,
    choice: ModelChoice,
    method: "Method",
    text: "TextFeatures",
    vocabulary: "Vocabulary",
    pictures: _Pictures,
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


def _path(choice: ModelChoice, pictures: _Pictures, out: Path) -> Path:
    """Beside a run's results; of a model without a run beside the figure."""
    if choice.run is not None:
        return choice.run.path / "results" / f"{pictures.stem}.json"
    mark = digest_of([choice.clip, str(choice.pretrained), json.dumps(choice.settings, sort_keys=True, default=str)])
    return out.with_name(f"{pictures.stem}-{choice.method}-{mark[:8]}.json")


def _fingerprints(method: "Method", vocabulary: "Vocabulary", pictures: _Pictures) -> dict[str, str]:
    return {
        "data": pictures.data.fingerprint,
        "weights": method.digest,
        "settings": digest_of([json.dumps(method.config.model_dump(mode="json"), sort_keys=True)]),
        "vocabulary": vocabulary.digest(),
        "unseen": digest_of(["unseen-1", *(str(flag) for flag in vocabulary.unseen)]),
        "masks": pictures.store.digest if pictures.store else VERSION,
        "version": __version__,
    }


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
