"""What `ovseg report RUN… --figures compare` does: pictures, ground truth and the classes that each model finds.

Each model sees the pictures as `ovseg eval` would show them: with its own sentences, names and calibration. Below each
panel stands the mean IoU of that picture over the classes of its ground truth, the rule of detectron2's evaluator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ovseg_cli.core.data.palette import spec_colors
from ovseg_cli.core.evaluation.confusion import Counts, add
from ovseg_cli.core.evaluation.metrics import Areas, mean_iou
from ovseg_cli.core.evaluation.names import readout_of, vocabulary_of
from ovseg_cli.core.evaluation.request import EvalRequest
from ovseg_cli.core.methods.build import ModelChoice, build_method, choose_model
from ovseg_cli.core.methods.texts import method_text, training_doubt
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.figure_inputs import (
    FigureReport,
    FigureRequest,
    Pictures,
    captions_of,
    named_runs,
    pictures_of,
)
from ovseg_cli.core.report.figures import PanelRow, font_size, save_png, sentences, side_by_side, stack
from ovseg_cli.core.report.labelling import label_pictures
from ovseg_cli.core.report.seen import SeenClasses
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders, open_runtime
from ovseg_cli.core.training.starts import caveats_of

FIGURE = "compare"
DRAWN = 4
PANEL, OPACITY = 288, 0.7
RULE = "mIoU: of a picture, the mean over the classes of its ground truth, in percent."


@dataclass(frozen=True)
class Found:
    """What one model finds.

    Attributes:
        caption: The model.
        maps: For each picture (H, W) class ids.
        counts: For each picture its confusion.
        learned_names: Whether it learned from labels of some classes.
        notes: What must be said of its results.
    """

    caption: str
    maps: tuple[NDArray[np.integer], ...]
    counts: tuple[Counts, ...]
    learned_names: bool = False
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> list[float]:
        """Mean IoU of each picture in percent; NaN where no pixel has a class."""
        return [score([one]) for one in self.counts]


def score(counts: Sequence[Counts]) -> float:
    """Return the mean IoU of some pictures together in percent, over the classes of their ground truth."""
    return 100 * float(mean_iou(Areas.of(add(counts, counts[0].num_classes)), "present"))


def report_comparison(request: FigureRequest, folders: Folders, reporter: Reporter) -> FigureReport:
    """Draw some pictures beside their ground truth and the label maps of the models of some runs.

    The data are those of the first run unless named. The figure goes to `request.out`, else into the first run's
    folder.

    Raises:
        UsageError: An unknown run, data set, subset or picture, or a run that holds no segmentation method.
        DataError: Data or weights are missing or broken.
    """
    runs = named_runs(request, folders)
    pictures = pictures_of(request, runs[0], folders, DRAWN)
    choices = [choose_model(str(run.path.absolute()), folders.runs, pictures.choice.spec) for run in runs]
    device = open_runtime(request.gpus).device
    models = [
        _found(caption, choice, pictures, device, folders, reporter)
        for caption, choice in zip(captions_of(choices), choices, strict=True)
    ]
    out = (request.out or runs[0].path) / f"{pictures.stem(FIGURE)}.png"
    save_png(draw_comparison(models, pictures), out)
    return FigureReport(comparison_table(models, pictures.data.names, pictures.place), (out,))


def _found(
    caption: str,
    choice: ModelChoice,
    pictures: Pictures,
    device: torch.device,
    folders: Folders,
    reporter: Reporter,
) -> Found:
    """Let one model label the pictures."""
    method = build_method(choice, device, reporter)
    vocabulary = vocabulary_of(pictures.choice, EvalRequest(), type(method), choice.run)
    text = method_text(method, vocabulary, folders.cache, reporter).to(device)
    readout = readout_of(EvalRequest(), vocabulary, method)

    labelled = label_pictures(method, text, readout, pictures.data, caption, folders, reporter)
    doubt = training_doubt(method, vocabulary)
    notes = (*([doubt] if doubt else []), *(caveats_of(type(method), choice.run.config) if choice.run else []))
    learned = bool(getattr(method, "training_names", None))
    return Found(caption, labelled.maps, labelled.counts, learned, notes)


def draw_comparison(models: Sequence[Found], pictures: Pictures) -> Image.Image:
    """Draw a row a picture: picture, ground truth, and each model's label map with its mean IoU below.

    Where a model learned from the labels of seen classes, objects of seen and of unseen ones are told apart.
    """
    data, choice = pictures.data, pictures.choice
    rows = []
    for i, name in enumerate(data.names):
        label = data.label(i)
        assert label is not None
        notes = ["", *(score_text(model.scores[i]) for model in models)]
        rows.append(PanelRow(data.image(i), [label, *(model.maps[i] for model in models)], name, notes))
    unseen = choice.spec.unseen_ids(choice.split)
    flags = [i in unseen for i in range(choice.spec.num_classes)]
    seen = SeenClasses.of_split(flags) if unseen and any(model.learned_names for model in models) else None
    panels = side_by_side(
        rows,
        ["picture", "ground truth", *(model.caption for model in models)],
        choice.spec.class_names,
        spec_colors(choice.spec),
        data.ignore_label,
        seen.borders if seen else None,
        OPACITY,
        PANEL,
        meanings=seen.meanings if seen else None,
    )
    below = [RULE, *(f"{model.caption}: {note}" for model in models for note in model.notes)]
    return stack([panels, sentences(below, panels.width, font_size(PANEL * 1.4))])


def score_text(percent: float) -> str:
    """Say the score of one picture."""
    return "no pixel with a class" if math.isnan(percent) else f"mIoU {percent:.1f}"


def comparison_table(models: Sequence[Found], names: Sequence[str], place: str) -> Table:
    """Make a table: a row for each picture and one for all of them, a column for each model."""
    columns = [Column("picture", "picture")]
    columns += [Column(f"mIoU_{i}" if i else "mIoU", model.caption, "percent") for i, model in enumerate(models)]
    scores = [model.scores for model in models]
    rows = [(Cell(name), *(Cell(of_model[i]) for of_model in scores)) for i, name in enumerate(names)]
    rows.append((Cell("all of these"), *(Cell(score(model.counts)) for model in models)))
    notes = [RULE, *(f"{model.caption}: {note}" for model in models for note in model.notes)]
    return Table(f"mIoU by picture, {place}", tuple(columns), tuple(rows), tuple(notes))
