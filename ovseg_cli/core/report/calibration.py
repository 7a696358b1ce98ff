"""`ovseg report RUN… --figures calibration`: do probabilities of named masks come true? From files alone."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.evaluation.mask_results import MaskResult
from ovseg_cli.core.registry import METHODS
from ovseg_cli.core.report.calibration_figure import draw_calibration
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.drawing import check_number
from ovseg_cli.core.report.figure_inputs import FigureReport, FigureRequest, named_runs
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import Run
from ovseg_cli.core.runtime import Folders

FIGURE = "calibration"


def report_calibration(request: FigureRequest, folders: Folders, reporter: Reporter) -> FigureReport:
    """Draw the reliability diagram of the newest fitting result of each run, and make a table of the errors.

    Args:
        request: Runs; where given, data, subset and masks are those of the results that are drawn.
        folders: Where runs lie.
        reporter: Told which results are read.

    Raises:
        UsageError: A run has no such result, or the runs have none of the same pictures and masks.
        DataError: A result is broken.
    """
    runs = named_runs(request, folders)
    check_number(runs)
    found: list[MaskResult] = []
    for run in runs:
        path, result = _newest(run, request, found[0] if found else None)
        reporter.say(f"{run.path.name}: {path}")
        found.append(result)
    models = list(zip(captions_of(found, runs), found, strict=True))
    place = f"{found[0].data} {found[0].subset}, {len(found[0].records)} pictures, masks: {found[0].masks['source']}"
    out = (request.out or runs[0].path) / f"{_stem(found[0])}.png"
    draw_calibration(models, out, f"Do probabilities come true? {place}")
    return FigureReport(calibration_table(models, place), (out,))


def captions_of(results: Sequence[MaskResult], runs: Sequence[Run]) -> list[str]:
    """Name models by their methods, those of one method by their runs too."""
    count = Counter(result.method for result in results)
    return [
        METHODS[result.method].title + (f" {run.path.name}" if count[result.method] > 1 else "")
        for result, run in zip(results, runs, strict=True)
    ]


def calibration_table(models: Sequence[tuple[str, MaskResult]], place: str) -> Table:
    """Make a table: of each model, of seen and of unseen classes, the calibration error and what it is made of."""
    columns = (
        Column("model", "model"),
        Column("classes", "classes"),
        Column("masks", "masks", "count"),
        Column("top1", "top 1", "percent"),
        Column("confidence", "mean p", "percent"),
        Column("ECE", "ECE", "percent"),
    )
    rows = []
    for caption, result in models:
        for split in ("all", "seen", "unseen") if any(result.unseen) else ("all",):
            scores = result.scores(split)
            if scores["masks"]:
                values = (caption, split, *(scores[key] for key in ("masks", "top1", "confidence", "ECE")))
                rows.append(tuple(Cell(value) for value in values))
    notes = (
        "mean p: mean probability of the best class. ECE: expected calibration error, 15 bins of equal width.",
        *dict.fromkeys(note for _, result in models for note in result.notes),
    )
    return Table(f"Calibration, {place}", columns, tuple(rows), notes)


def _newest(run: Run, request: FigureRequest, like: MaskResult | None) -> tuple[Path, MaskResult]:
    """The newest result of a run that was asked for, of the pictures and masks of another where one is given."""
    files = sorted((run.path / "results" / MaskResult.folder).glob("*.json"))
    results = [(path, MaskResult.load(path)) for path in files]
    wanted = [item for item in results if _is_asked_for(item[1], request)]
    fitting = [item for item in wanted if like is None or _pictures(item[1]) == _pictures(like)]
    if fitting:
        return max(fitting, key=lambda item: item[1].created)
    words = ["ovseg", "eval", run.as_model, *(["--data", request.data] if request.data else [])]
    words += ["--proposals", request.proposals] if request.proposals else []
    same = "of the same pictures and masks as the first run's" if wanted else "that fits"
    raise UsageError(
        f"{run.path}: holds no result of mask classification {same}."
        if results
        else f"{run.path}: no masks were named.",
        f"Make one: {shlex.join([*words, '--task', 'masks'])}",
    )


def _is_asked_for(result: MaskResult, request: FigureRequest) -> bool:
    masks = (None, result.masks["source"], result.masks.get("cache"))
    data = (None, result.data, result.data.partition(":")[0])
    return request.proposals in masks and request.data in data and request.subset in (None, result.subset)


def _pictures(result: MaskResult) -> tuple[object, ...]:
    return result.data, result.subset, list(result.records), result.masks["digest"], result.fingerprints["data"]


def _stem(result: MaskResult) -> str:
    label = Path(result.data.replace(":", "-").replace("/", "-")).name
    return f"{FIGURE}-{label}-{result.subset}-{result.masks['source']}"
