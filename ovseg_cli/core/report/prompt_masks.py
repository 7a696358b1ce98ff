"""What `ovseg report RUN… --figures masks` does: the masks that a run learned from, one by one and grouped by prompts.

The masks of all measured pictures are grouped together, by the method's own rule (Sinkhorn-Knopp), as those of a batch
are in training; the tuned image tower stands for the momentum encoder. Where masks overlap, the smallest lies on top.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.nn.mask_groups import OnGrid
from ovseg_cli.core.proposals.filling import read_picture
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.report.figure_inputs import (
    LIMIT,
    FigureReport,
    FigureRequest,
    any_pictures,
    choice_of,
    named_runs,
)
from ovseg_cli.core.report.prompt_mask_source import MaskSource, mask_source
from ovseg_cli.core.report.prompt_masks_figure import MaskScene, draw_masks
from ovseg_cli.core.report.prompt_models import NamedPrompts, PromptModel, load_prompts, named_prompts, prompt_choices
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runtime import Folders, open_runtime
from ovseg_cli.core.training.augment import Place
from ovseg_cli.core.training.mask_crops import MaskCrops, crop_masks
from ovseg_cli.core.types import TrainBatch

FIGURE = "masks"
DRAWN = 4
LEARNED_FROM = "train"
"""Subset whose masks are shown unless a request says otherwise."""


@dataclass(frozen=True)
class GroupedMasks:
    """The masks of one picture and the prompt of each.

    Attributes:
        name: Of the picture.
        on_top: (M, M) the mask of each pixel of the grid, the smallest where several hold it; -1 in no mask.
        prompts: (N,) prompt of each mask.
    """

    name: str
    on_top: NDArray[np.int64]
    prompts: NDArray[np.int64]


def report_masks(request: FigureRequest, folders: Folders, reporter: Reporter) -> FigureReport:
    """Draw the masks of some pictures one by one and grouped by the learned prompts of some runs, a figure for each.

    Raises:
        UsageError: An unknown run, data set, subset or picture, or a run without learned prompts.
        DataError: Data, masks or weights are missing or broken.
    """
    runs = named_runs(request, folders)
    choices = prompt_choices(runs, folders)
    data = choice_of(request, runs[0], folders)
    limit = request.limit or LIMIT
    pictures = any_pictures(data, request.subset, limit, folders, request.pictures, LEARNED_FROM)
    device = open_runtime(request.gpus).device
    found, drawn = [], []
    for caption, choice in choices:
        model = load_prompts(caption, choice, device, reporter)
        source = mask_source(request, model, pictures.data, folders, reporter)
        grouped = group_masks(model, source, pictures.data, reporter)
        named = named_prompts(model, data, folders, reporter)
        scenes = [
            MaskScene(pictures.data.image(i), grouped[i].name, grouped[i].on_top, grouped[i].prompts)
            for i in pictures.drawn(DRAWN)
        ]
        words = said_of(grouped, source.name, len(model), model.training.sinkhorn_rounds, bool(named.names))
        out = pictures.path(FIGURE, request.out, model.run.path, several=len(runs) > 1)
        draw_masks(scenes, named.labels, out, [words])
        found.append((caption, grouped, named))
        drawn.append(out)
    return FigureReport(masks_table(found, f"{pictures.place}, {source.name}"), tuple(drawn))


def group_masks(
    model: PromptModel, source: MaskSource, data: SegmentationData, reporter: Reporter
) -> list[GroupedMasks]:
    """Group the masks of all pictures together, as a step of training does those of its batch."""
    places = reporter.track(range(len(data)), f"{model.caption}: masks", len(data))
    parts = (part_of(model.method, source, data, i) for i in places)
    found = model.method.grouped(model.training, parts)
    return [
        GroupedMasks(name, smallest_on_top((group.ids[0], group.tables[0])), chosen.numpy())
        for name, (group, chosen) in zip(data.names, found, strict=True)
    ]


def part_of(method: Any, source: MaskSource, data: SegmentationData, place: int) -> TrainBatch:
    """Return a picture with its masks as a batch of one: whole, neither cut nor mirrored, without a black box.

    Where the method keeps the aspect ratio it is resized as for scoring; else the method squeezes it itself.
    """
    image, _ = read_picture(data, place, False)
    size = int(image.shape[1]), int(image.shape[2])
    if method.config.resize == "short-side":
        size = method.resize_rule().size(*size)
        resized = F.interpolate(image[None].float(), size, mode="bilinear", align_corners=False, antialias=True)
        image = resized[0].round().clamp(0, 255).to(torch.uint8)
    masks = crop_masks(source.entry(data, place), Place.whole(size), size)
    return {
        "images": image[None],
        "areas": torch.tensor([size]),
        "cut_outs": torch.zeros(1, 4, dtype=torch.int64),
        "masks": MaskCrops.of([masks]),
    }


def smallest_on_top(masks: OnGrid) -> NDArray[np.int64]:
    """Return the smallest mask that holds each pixel, (M, M'), and -1 where none does; of equal ones the first."""
    ids, table = (tensor.cpu() for tensor in masks)
    if not len(table):
        return np.full(tuple(ids.shape), -1)
    counts = torch.bincount(ids.flatten().long(), minlength=table.shape[1])
    areas = table.long() @ counts
    sizes: Tensor = torch.where(table.bool(), areas[:, None], ids.numel() + 1)
    best = torch.where(table.bool().any(0), sizes.argmin(0), -1)
    return best[ids.long()].numpy()


def said_of(pictures: Sequence[GroupedMasks], source: str, count: int, rounds: int, has_names: bool = True) -> str:
    """Say how many masks there are, how many prompts they use, and what the legend calls these."""
    masks = sum(len(picture.prompts) for picture in pictures)
    used = len({int(prompt) for picture in pictures for prompt in picture.prompts})
    shown = f"{len(pictures)} picture{'s' if len(pictures) > 1 else ''}"
    how = f"{rounds} round{'s' if rounds > 1 else ''} of Sinkhorn-Knopp"
    said = f"{masks:,} masks ({source}) of {shown} are grouped together, by {how}, and use {used} of {count} prompts."
    return f"{said} A prompt is called by its nearest class name." if has_names else said


def masks_table(models: Sequence[tuple[str, Sequence[GroupedMasks], NamedPrompts]], place: str) -> Table:
    """Make a table: for each prompt that a mask was given, how many masks and pictures, and its nearest name."""
    several = len(models) > 1
    columns = (
        *([Column("model", "model")] if several else []),
        Column("prompt", "prompt", "count"),
        Column("name", "nearest name"),
        Column("cosine", "cosine", "number", decimals=3),
        Column("masks", "masks", "count"),
        Column("pictures", "pictures", "count"),
    )
    rows = [
        (*([Cell(caption)] if several else []), *row)
        for caption, pictures, named in models
        for row in _rows(pictures, named)
    ]
    return Table(f"Masks by prompt, {place}", columns, tuple(rows), ("Prompts that no mask was given are left out.",))


def _rows(pictures: Sequence[GroupedMasks], named: NamedPrompts) -> Iterator[tuple[Cell, ...]]:
    count = len(named.cosines)
    each = [np.bincount(picture.prompts, minlength=count) for picture in pictures]
    masks = sum(each, np.zeros(count, np.int64))
    for prompt in np.argsort(-masks, kind="stable").tolist():
        if masks[prompt]:
            name, cosine = next(iter(named.nearest(prompt, 1)), (None, None))
            numbers = int(masks[prompt]), sum(int(one[prompt] > 0) for one in each)
            yield tuple(Cell(value) for value in (prompt, name, cosine, *numbers))
