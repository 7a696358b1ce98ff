"""What `ovseg report RUN… --figures nearest` does: which class names come nearest to learned prompts.

Each pixel goes to the prompt that its feature is nearest to, and each prompt to its nearest class name (the paper's
Figure 6): what an image tower and its prompts would say without ever having read a name. A table says for each prompt
its three nearest names, and how many pixels and masks use it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_cli.core.data.palette import spec_colors
from ovseg_cli.core.errors import DataError
from ovseg_cli.core.proposals.filling import read_picture
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.figure_inputs import (
    LIMIT,
    FigureReport,
    FigureRequest,
    Pictures,
    any_pictures,
    choice_of,
    named_runs,
)
from ovseg_cli.core.report.figures import PanelRow, font_size, save_png, sentences, side_by_side, stack
from ovseg_cli.core.report.prompt_mask_source import mask_source
from ovseg_cli.core.report.prompt_masks import group_masks
from ovseg_cli.core.report.prompt_models import (
    MOST_NAMES,
    NamedPrompts,
    PromptModel,
    load_prompts,
    named_prompts,
    prompt_choices,
    require_names,
)
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders, open_runtime

FIGURE = "nearest"
DRAWN = 4
PANEL, OPACITY = 288, 0.7
HOW = (
    "By prompt: each pixel goes to the learned prompt nearest to its feature, and has the colour of that prompt's "
    "nearest class name."
)


@dataclass(frozen=True)
class PromptUse:
    """How often some pictures use the prompts of a model.

    Attributes:
        caption: The model.
        named: Its prompts and the names nearest to them.
        maps: For each picture that is drawn (H, W), prompt of each pixel.
        pixels: (k,) pixels of each prompt, in all pictures.
        masks: (k,) masks of each prompt; None where no masks were at hand.
    """

    caption: str
    named: NamedPrompts
    maps: tuple[NDArray[np.int64], ...]
    pixels: NDArray[np.int64]
    masks: NDArray[np.int64] | None = None


def report_nearest(request: FigureRequest, folders: Folders, reporter: Reporter) -> FigureReport:
    """Find the names nearest to the prompts of some runs, and draw pictures in the colours of these names.

    Masks are counted where a cache has them, or where the request names a source.

    Raises:
        UsageError: An unknown run, data set, subset or picture, a run without learned prompts, or data without names.
        DataError: Data or weights are missing or broken.
    """
    runs = named_runs(request, folders)
    choices = prompt_choices(runs, folders)
    data = choice_of(request, runs[0], folders)
    require_names(data.spec.name, data.spec.class_names)
    pictures = any_pictures(data, request.subset, request.limit or LIMIT, folders, request.pictures)
    device = open_runtime(request.gpus).device
    found, drawn = [], []
    for caption, choice in choices:
        model = load_prompts(caption, choice, device, reporter)
        named = named_prompts(model, data, folders, reporter)
        masks = _masks_used(request, model, pictures, folders, reporter)
        use = _used(model, named, pictures, masks, reporter)
        out = pictures.path(FIGURE, request.out, model.run.path, several=len(runs) > 1)
        save_png(draw_nearest(use, pictures), out)
        found.append(use)
        drawn.append(out)
    return FigureReport(nearest_table(found, pictures.place), tuple(drawn))


def _used(
    model: PromptModel,
    named: NamedPrompts,
    pictures: Pictures,
    masks: NDArray[np.int64] | None,
    reporter: Reporter,
) -> PromptUse:
    """Count the pixels of each prompt, and keep the maps of the pictures that are drawn."""
    pixels, maps, places = np.zeros(len(model), np.int64), {}, pictures.drawn(DRAWN)
    for i in reporter.track(range(len(pictures.data)), f"{model.caption}: pictures", len(pictures.data)):
        found = model.map_of(read_picture(pictures.data, i, False)[0])
        pixels += np.bincount(found.ravel(), minlength=len(model))
        if i in places:
            maps[i] = found
    return PromptUse(model.caption, named, tuple(maps[i] for i in places), pixels, masks)


def _masks_used(
    request: FigureRequest, model: PromptModel, pictures: Pictures, folders: Folders, reporter: Reporter
) -> NDArray[np.int64] | None:
    """Count the masks of each prompt; of the training's own source only where a cache has those of every picture."""
    try:
        source = mask_source(request, model, pictures.data, folders, reporter)
    except DataError:
        if request.proposals:
            raise
        return None  # the cache that it learned from is gone, or of other pictures
    if not request.proposals and not source.has_all(pictures.data):
        return None
    grouped = group_masks(model, source, pictures.data, reporter)
    return sum((np.bincount(one.prompts, minlength=len(model)) for one in grouped), np.zeros(len(model), np.int64))


def draw_nearest(use: PromptUse, pictures: Pictures) -> Image.Image:
    """Draw a row a picture: picture, ground truth where there is one, and the prompts in the colours of their names."""
    data, spec = pictures.data, pictures.choice.spec
    of_prompt = np.array(use.named.classes, np.int64)
    rows = []
    for place, ids in zip(pictures.drawn(DRAWN), use.maps, strict=True):
        label = data.label(place)
        cells = [of_prompt[ids]] if label is None else [label, of_prompt[ids]]
        rows.append(PanelRow(data.image(place), cells, data.names[place]))
    panels = side_by_side(
        rows,
        ["picture", *(["ground truth"] if data.has_labels else []), f"{use.caption}, by prompt"],
        spec.class_names,
        spec_colors(spec),
        data.ignore_label if data.has_labels else None,
        opacity=OPACITY,
        panel=PANEL,
    )
    used = int((use.pixels > 0).sum())
    classes = len({use.named.classes[i] for i in np.flatnonzero(use.pixels)})
    counted = (
        f"{used} of {len(use.pixels)} prompts are used by pixels of {pictures.place}; {classes} of "
        f"{spec.num_classes} class names are the nearest of one of them."
    )
    return stack([panels, sentences([HOW, counted], panels.width, font_size(PANEL * 1.4))])


def nearest_table(models: Sequence[PromptUse], place: str) -> Table:
    """Make a table: for each prompt its nearest names with their cosines, and how many pixels and masks use it."""
    several, masks = len(models) > 1, any(model.masks is not None for model in models)
    of_names = [
        (Column(f"name_{n}", ("nearest", "second", "third")[n - 1]), Column(f"cosine_{n}", "cos", "number", decimals=2))
        for n in range(1, MOST_NAMES + 1)
    ]
    columns = (
        *([Column("model", "model")] if several else []),
        Column("prompt", "prompt", "count"),
        *(column for pair in of_names for column in pair),
        Column("pixels", "pixels, %", "percent"),
        Column("pixel_count", "pixels", "count", shown=False),
        *([Column("masks", "masks", "count")] if masks else []),
    )
    rows = [
        (*([Cell(model.caption)] if several else []), *row, *([count] if masks else []))
        for model in models
        for row, count in _rows(model)
    ]
    notes = ["Cosines of prompt and name in the sentence of the prompts; pixels: those whose nearest prompt it is."]
    notes.append(
        "masks: those that Sinkhorn-Knopp gives to the prompt, all of these pictures together."
        if masks
        else "Masks are counted where a cache has those of all these pictures, or with --proposals."
    )
    return Table(f"Names nearest to prompts, {place}", columns, tuple(rows), tuple(notes))


def _rows(model: PromptUse) -> Iterator[tuple[tuple[Cell, ...], Cell]]:
    """Cells of each prompt, the most used first, and the cell of its masks."""
    whole = max(1, int(model.pixels.sum()))
    for prompt in np.argsort(-model.pixels, kind="stable").tolist():
        found = model.named.nearest(prompt)
        near: list[tuple[str | None, float | None]] = [*found, *[(None, None)] * (MOST_NAMES - len(found))]
        pixels = int(model.pixels[prompt])
        cells = (prompt, *(value for pair in near for value in pair), 100 * pixels / whole, pixels)
        yield tuple(Cell(value) for value in cells), Cell(None if model.masks is None else int(model.masks[prompt]))
