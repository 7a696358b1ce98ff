"""The figure of masks: picture, each mask in a colour of its own, and the same masks coloured by prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_cli.core.data.palette import colors
from ovseg_cli.core.report.figures import PanelRow, font_size, save_png, sentences, side_by_side, stack
from ovseg_cli.core.report.legend import UNLABELLED
from ovseg_cli.core.report.painting import paint, resize_image, resize_label, view_size

CAPTIONS = ("picture", "masks, one by one", "masks, by prompt")
PANEL, OPACITY = 288, 0.75
NOWHERE = "in no mask"


@dataclass(frozen=True)
class MaskScene:
    """One row of the figure.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        name: Of the picture.
        on_top: (M, M') the mask of each pixel of a grid, -1 in no mask.
        prompts: (N,) prompt of each mask.
    """

    image: NDArray[np.uint8]
    name: str
    on_top: NDArray[np.int64]
    prompts: NDArray[np.int64]

    @property
    def by_prompt(self) -> NDArray[np.int64]:
        """Prompt of each pixel of the grid, -1 in no mask."""
        return np.append(self.prompts, -1)[self.on_top]


def draw_masks(scenes: Sequence[MaskScene], labels: Sequence[str], path: Path, below: Sequence[str]) -> None:
    """Draw the figure as a PNG.

    Args:
        scenes: At least one.
        labels: What each of the k prompts is called.
        path: The PNG, written whole or not at all.
        below: Sentences below.

    Raises:
        MachineError: The disk refuses.
    """
    nowhere = len(labels)
    rows = []
    for scene in scenes:
        size = scene.image.shape[:2]
        prompts = resize_label(np.where(scene.by_prompt < 0, nowhere, scene.by_prompt), size)
        notes = [_counted(len(scene.prompts), "mask"), _counted(len(set(scene.prompts.tolist())), "prompt")]
        rows.append(PanelRow(scene.image, [_one_by_one(scene), prompts], scene.name, notes))
    panels = side_by_side(
        rows,
        CAPTIONS,
        [*labels, NOWHERE],
        np.concatenate([colors(len(labels)), np.array([UNLABELLED], np.uint8)]),
        opacity=OPACITY,
        panel=PANEL,
        groups=[("", _by_area(scenes, nowhere)), ("", [nowhere])],
    )
    save_png(stack([panels, sentences(below, panels.width, font_size(PANEL * 1.4))]), path)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _one_by_one(scene: MaskScene) -> Image.Image:
    """Paint each mask in a colour of its own, at the size of the panel."""
    size = view_size(scene.image.shape[:2], PANEL, PANEL)
    count = len(scene.prompts)
    table = np.concatenate([colors(count), np.array([UNLABELLED], np.uint8)])
    label = resize_label(np.where(scene.on_top < 0, count, scene.on_top), size)
    return paint(resize_image(scene.image, size), label, table, opacity=OPACITY, line=1)


def _by_area(scenes: Sequence[MaskScene], count: int) -> list[int]:
    areas = np.zeros(count, np.int64)
    for scene in scenes:
        shown = scene.by_prompt[scene.by_prompt >= 0]
        areas += np.bincount(shown, minlength=count)
    return np.argsort(-areas, kind="stable").tolist()
