"""What `ovseg report RUN… --figures clusters` does: pictures, parted by the learned prompts of each run.

A pixel goes to the prompt that its dense feature is nearest to. Prompt 12 has one colour in all pictures and columns;
runs do not share their prompts, so the legend names them run by run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_cli.core.data.palette import colors
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.figure_inputs import (
    FigureReport,
    FigureRequest,
    Pictures,
    any_pictures,
    choice_of,
    named_runs,
)
from ovseg_cli.core.report.figures import PanelRow, font_size, save_png, sentences, side_by_side, stack
from ovseg_cli.core.report.prompt_models import NamedPrompts, load_prompts, named_prompts, prompt_choices
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders, open_runtime

FIGURE = "clusters"
DRAWN = 4
PANEL, OPACITY = 288, 0.75
HOW = "Each pixel has the colour of the learned prompt that is nearest to its feature"


@dataclass(frozen=True)
class Clusters:
    """The pictures as one model parts them.

    Attributes:
        caption: The model.
        maps: For each picture (H, W), prompt of each pixel.
        named: Its prompts and the names nearest to them.
    """

    caption: str
    maps: tuple[NDArray[np.int64], ...]
    named: NamedPrompts

    @property
    def count(self) -> int:
        """How many prompts, k."""
        return len(self.named.cosines)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Pixels of each prompt, (k,)."""
        return sum((np.bincount(ids.ravel(), minlength=self.count) for ids in self.maps), np.zeros(self.count, int))


def report_clusters(request: FigureRequest, folders: Folders, reporter: Reporter) -> FigureReport:
    """Draw some pictures as the learned prompts of some runs part them.

    Raises:
        UsageError: An unknown run, data set, subset or picture, or a run without learned prompts.
        DataError: Data or weights are missing or broken.
    """
    runs = named_runs(request, folders)
    choices = prompt_choices(runs, folders)
    data = choice_of(request, runs[0], folders)
    pictures = any_pictures(data, request.subset, request.limit or DRAWN, folders, request.pictures)
    device = open_runtime(request.gpus).device
    found = []
    for caption, choice in choices:
        model = load_prompts(caption, choice, device, reporter)
        samples = (pictures.data[i] for i in range(len(pictures.data)))
        track = reporter.track(samples, f"{caption}: pictures", len(pictures.data))
        maps = tuple(model.map_of(sample.image) for sample in track)
        found.append(Clusters(caption, maps, named_prompts(model, data, folders, reporter)))
    out = (request.out or runs[0].path) / f"{pictures.stem(FIGURE)}.png"
    save_png(draw_clusters(found, pictures), out)
    return FigureReport(clusters_table(found, pictures.place), (out,))


def draw_clusters(models: Sequence[Clusters], pictures: Pictures) -> Image.Image:
    """Draw a row a picture, a column a model, and a legend for each model."""
    starts = np.cumsum([0, *(model.count for model in models)])
    shifted = list(zip(models, starts[:-1].tolist(), strict=True))
    rows = [
        PanelRow(pictures.data.image(i), [model.maps[i] + start for model, start in shifted], name)
        for i, name in enumerate(pictures.data.names)
    ]
    panels = side_by_side(
        rows,
        ["picture", *(model.caption for model in models)],
        [label for model in models for label in model.named.labels],
        np.concatenate([colors(model.count) for model in models]),
        opacity=OPACITY,
        panel=PANEL,
        groups=[(_heading(model, len(models)), _by_area(model, start)) for model, start in shifted],
    )
    how = f"{HOW}; the name is the prompt's nearest." if any(model.named.names for model in models) else f"{HOW}."
    return stack([panels, sentences([how], panels.width, font_size(PANEL * 1.4))])


def _heading(model: Clusters, models: int) -> str:
    words = f"{int((model.pixels > 0).sum())} of {model.count} prompts are used"
    return f"{model.caption}: {words}" if models > 1 else words


def _by_area(model: Clusters, start: int) -> list[int]:
    return (np.argsort(-model.pixels, kind="stable") + start).tolist()


def clusters_table(models: Sequence[Clusters], place: str) -> Table:
    """Make a table: for each model how many prompts these pictures use, and how evenly."""
    columns = (
        Column("model", "model"),
        Column("prompts", "prompts", "count"),
        Column("used", "used", "count"),
        Column("effective", "as if evenly", "number", decimals=1),
        Column("largest", "largest share", "percent"),
        Column("names", "nearest names", "count"),
    )
    rows = []
    for model in models:
        shares = model.pixels / max(1, model.pixels.sum())
        used = shares[shares > 0]
        names = {model.named.classes[i] for i in np.flatnonzero(shares)} if model.named.names else None
        numbers = (len(used), float(np.exp(-(used * np.log(used)).sum())), 100 * float(shares.max()))
        cells = (model.caption, model.count, *numbers, None if names is None else len(names))
        rows.append(tuple(Cell(value) for value in cells))
    notes = (
        "used: nearest prompt of a pixel somewhere; as if evenly: so many of equal size have the same entropy.",
        "nearest names: how many classes are the nearest of a used prompt.",
    )
    return Table(f"Prompts of pixels, {place}", columns, tuple(rows), notes)
