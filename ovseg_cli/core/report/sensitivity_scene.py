"""One region under five masks, from right to wrong, and what each model names them: mask sensitivity for the eye.

The scene is chosen by its label alone, never by what a model makes of it: the first region, of an unseen class where
there is one, that is well visible and not too large.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ovseg_cli.core.data.dataset import SegmentationData
from ovseg_cli.core.evaluation.mask_sensitivity import Region, regions_of, series_of
from ovseg_cli.core.evaluation.mask_series import overlaps
from ovseg_cli.core.report.drawing import LOOKS, check_number, new_figure, save_figure
from ovseg_cli.core.types import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VISIBLE = (0.05, 0.3)  # share of the picture that the region covers
_SEARCHED = 30  # pictures
_WANTED = (("shifted", 0.65), ("shifted", 0.35), ("exchanged", 0.1))
_SIDE, _MARGIN, _ROW = 1.9, 1.0, 0.68  # inches of a picture's width; share of it for the left column; inches of a model
_HEAD = 0.8  # inches above the pictures
_BAR = 0.74  # length of a bar that means 1
_WORDS = {"shifted": "moved", "exchanged": "mostly elsewhere", "shrunk": "a part", "grown": "too large"}


@dataclass(frozen=True)
class MaskScene:
    """A region and its masks.

    Attributes:
        sample: The picture.
        class_id: The region's class.
        masks: (N, H, W) bool, the region itself first, everything else last.
        captions: N descriptions.
        ious: N, IoU with the region.
    """

    sample: Sample
    class_id: int
    masks: NDArray[np.bool_]
    captions: tuple[str, ...]
    ious: tuple[float, ...]


def find_scene(data: SegmentationData, unseen: Iterable[int]) -> MaskScene | None:
    """Choose a region of the first pictures and draw its masks; None where no picture has a region.

    Args:
        data: Pictures with labels.
        unseen: Train ids whose regions are preferred.
    """
    preferred, best = set(unseen), None
    for index in range(min(len(data), _SEARCHED)):
        sample = data[index]
        for region in regions_of(sample, data.ignore_label):
            share = float(region.mask.mean())
            is_visible = _VISIBLE[0] <= share <= _VISIBLE[1]
            rank = (is_visible, region.class_id in preferred, _is_inside(region))
            if best is None or rank > best[0]:
                best = (rank, sample, region)
    return None if best is None else _scene(best[1], best[2])


def _is_inside(region: Region) -> bool:
    """A region that the picture's edge does not cut is told apart at a glance."""
    mask = region.mask
    return not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _scene(sample: Sample, region: Region) -> MaskScene:
    series = series_of(region, sample)
    chosen: list[tuple[str, NDArray[np.bool_]]] = [("the region itself", series.masks[0])]
    taken = {0}
    for kind, iou in _WANTED:
        rest = [i for i in range(len(series.ious) - 1) if i not in taken]
        if rest:
            place = min(rest, key=lambda i: (series.kinds[i] != kind, abs(series.ious[i] - iou)))
            taken.add(place)
            chosen.append((_WORDS.get(series.kinds[place], series.kinds[place]), series.masks[place]))
    if series.kinds[-1] == "complement":
        chosen.append(("everything else", series.masks[-1]))
    masks = np.stack([mask for _, mask in chosen])
    ious = tuple(float(iou) for iou in overlaps(masks, region.mask))
    return MaskScene(sample, region.class_id, masks, tuple(words for words, _ in chosen), ious)


def draw_scene(
    scene: MaskScene, answers: Sequence[tuple[str, Tensor]], names: Sequence[str], picture: Path, title: str
) -> None:
    """Draw the masks in a row, and under each what every model names it.

    Args:
        scene: The region and its N masks.
        answers: Caption of each model and its (N, K) class probabilities of the masks.
        names: K class names.
        picture: The PNG, written whole or not at all.
        title: Stands above the row.

    Raises:
        UsageError: More models than a reader can tell apart.
        MachineError: The disk refuses.
    """
    check_number(answers)
    number = len(scene.masks)
    ratio = scene.sample.image.shape[-2] / scene.sample.image.shape[-1]
    below = _ROW * len(answers)
    width, height = _SIDE * (number + _MARGIN), _SIDE * ratio + below + _HEAD
    figure = new_figure(width, height, layout=None)
    figure.suptitle(title, fontsize=11, y=1 - 0.1 / height, va="top")
    widths, heights = [_MARGIN, *[1.0] * number], [_SIDE * ratio, below]
    grid = figure.subplots(2, number + 1, squeeze=False, width_ratios=widths, height_ratios=heights)
    figure.subplots_adjust(0.1 / width, 0.05 / height, 1 - 0.1 / width, 1 - _HEAD / height, wspace=0.06, hspace=0.05)
    _explain(grid[0][0], ["colour: inside the mask", "dashed: the region"])
    _captions(grid[1][0], [caption for caption, _ in answers], names[scene.class_id])
    for place in range(number):
        _mask(grid[0][place + 1], scene, place)
        _names(grid[1][place + 1], scene, [probabilities[place] for _, probabilities in answers], names)
    save_figure(figure, picture)


def _mask(axes: "Axes", scene: MaskScene, place: int) -> None:
    """The picture, pale outside of the mask; the mask's border in black on white, the region's dashed."""
    image = scene.sample.image.permute(1, 2, 0).numpy().astype(np.float64) / 255
    mask, region = scene.masks[place], scene.masks[0]
    pale = image.mean(-1, keepdims=True) * 0.25 + 0.72
    axes.imshow(np.where(mask[..., None], image, pale), interpolation="nearest")
    for color, width in (("white", 2.6), ("black", 1.2)):
        _outline(axes, mask, color, width, "solid")
    if place:
        _outline(axes, region, "black", 0.9, "dashed")
    axes.set_title(f"{scene.captions[place]}\nIoU {scene.ious[place]:.2f}", fontsize=8.5)
    axes.set_axis_off()


def _outline(axes: "Axes", mask: NDArray[np.bool_], color: str, width: float, style: str) -> None:
    padded = np.pad(mask, 1).astype(float)
    places = [np.arange(size) - 1.0 for size in padded.shape]
    axes.contour(places[1], places[0], padded, levels=[0.5], colors=color, linewidths=width, linestyles=style)


def _explain(axes: "Axes", lines: Sequence[str]) -> None:
    axes.set_axis_off()
    for row, line in enumerate(lines):
        axes.text(0, 0.5 - 0.09 * row, line, fontsize=7.5, va="center", color="0.25", transform=axes.transAxes)


def _captions(axes: "Axes", captions: Sequence[str], name: str) -> None:
    """On the left, what the lines on the right are."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(len(captions), 0))
    for row, caption in enumerate(captions):
        axes.text(0, row + 0.2, caption, color=LOOKS[row][0], fontsize=_fitting(caption, 9), va="center", weight="bold")
        axes.text(0, row + 0.48, "best name", fontsize=7.5, va="center", color="0.25")
        axes.text(0, row + 0.74, name, fontsize=_fitting(name, 7.5), va="center", color="0.25")


def _names(axes: "Axes", scene: MaskScene, answers: Sequence[Tensor], names: Sequence[str]) -> None:
    """For each model its best name, bold where it is the region's, and a bar of how probable it finds the region's."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(len(answers), 0))
    for row, probabilities in enumerate(answers):
        best, own = int(probabilities.argmax()), float(probabilities[scene.class_id])
        said = f"{names[best]} {float(probabilities[best]):.2f}"
        weight = "bold" if best == scene.class_id else "normal"
        axes.text(0.5, row + 0.48, said, fontsize=_fitting(said, 8.5), ha="center", va="center", weight=weight)
        axes.barh(row + 0.74, _BAR, left=0.05, height=0.16, color="0.9")
        axes.barh(row + 0.74, _BAR * own, left=0.05, height=0.16, color=LOOKS[row][0])
        axes.text(1, row + 0.74, f"{own:.2f}", fontsize=7.5, ha="right", va="center")


def _fitting(text: str, size: float) -> float:
    """A font size at which a text stays in its column."""
    return min(size, 8.5 * 26 / max(1, len(text)))
