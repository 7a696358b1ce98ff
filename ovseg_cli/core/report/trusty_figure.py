"""The figure of trusty maps: picture, ground truth, map, and labels without and with the weighting by the map.

Objects of unseen classes have red borders, those of seen ones black ones; the map is grey, bright where the model
trusts that it sees what it was trained on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ovseg_cli.core.report.figures import PanelRow, font_size, save_png, sentences, side_by_side, stack
from ovseg_cli.core.report.legend import MUTED, PAPER, draw_text
from ovseg_cli.core.report.lettering import line_height, text_width
from ovseg_cli.core.report.painting import edges, resize_label, view_size
from ovseg_cli.core.report.seen import UNSEEN, SeenClasses
from ovseg_cli.core.report.trusty_results import PARTS, Mean, Part, PictureMeans

CAPTIONS = ("picture", "ground truth", "trusty map, 1 - w", "without weighting", "with weighting")
PANEL = 288
_WORDS: dict[Part, str] = {"seen": "seen", "unseen": "unseen", "unlabelled": "not labelled"}


@dataclass(frozen=True)
class Scene:
    """One row of the figure.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) train ids.
        trusty: (H, W), 0 to 1.
        plain: (H, W) class ids without the weighting.
        weighted: (H, W) class ids with it.
        means: Of the map.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.int64]
    trusty: NDArray[np.float32]
    plain: NDArray[np.int64]
    weighted: NDArray[np.int64]
    means: PictureMeans


def draw_trusty_maps(
    scenes: Sequence[Scene],
    names: Sequence[str],
    colors: NDArray[np.uint8],
    seen: SeenClasses,
    ignore_label: int | None,
    path: Path,
    title: str,
    below: Sequence[str],
) -> None:
    """Draw the figure as a PNG.

    Args:
        scenes: At least one.
        names: K class names.
        colors: (K, 3).
        seen: Which of the classes were seen.
        ignore_label: Label of pixels without a class.
        path: The PNG, written whole or not at all.
        title: Stands above.
        below: Sentences below: what was measured.

    Raises:
        MachineError: The disk refuses.
    """
    rows = [PanelRow(s.image, [s.label, _shade(s, seen), s.plain, s.weighted], means_text(s.means)) for s in scenes]
    panels = side_by_side(rows, CAPTIONS, names, colors, ignore_label, seen.borders, 0.8, PANEL, meanings=seen.meanings)
    size = font_size(PANEL * 1.4)
    image = stack(
        [
            sentences([title], panels.width, size),
            panels,
            _scale(panels.width, size),
            sentences(below, panels.width, size),
        ]
    )
    save_png(image, path)


def means_text(means: PictureMeans) -> str:
    """Say in one line what a picture's map is on its parts."""
    found = [f"{_WORDS[part]} {mean_text(getattr(means, part))}" for part in PARTS if getattr(means, part).pixels]
    return f"{means.name}   map: {', '.join(found)}"


def mean_text(mean: Mean) -> str:
    """Print a mean with two decimals."""
    return "-" if math.isnan(mean.mean) else f"{mean.mean:.2f}"


def _shade(scene: Scene, seen: SeenClasses) -> Image.Image:
    """The map in grey, the objects of unseen classes outlined in red."""
    size = view_size(scene.image.shape[:2], PANEL, PANEL)
    grey = Image.fromarray((255 * scene.trusty).round().clip(0, 255).astype(np.uint8))
    shown = np.array(grey.resize((size[1], size[0]), Image.Resampling.BILINEAR).convert("RGB"))
    unseen = [i for i, flag in enumerate(seen.flags) if flag is False]
    inside = resize_label(np.isin(scene.label, unseen), size)
    shown[edges(inside, 2) & inside] = UNSEEN
    return Image.fromarray(shown)


def _scale(width: int, size: int) -> Image.Image:
    """A bar from dark to bright, and what its ends mean."""
    canvas = Image.new("RGB", (width, 2 * line_height(size)), PAPER)
    draw, left = ImageDraw.Draw(canvas), round(size * 0.6)
    low, high = "trusty map: 0, looks unseen", "1, looks seen"
    draw_text(draw, (left, size // 2), low, size)
    left += text_width(low, size) + size
    bar = np.tile(np.linspace(0, 255, 8 * size).round().astype(np.uint8), (size, 1))
    canvas.paste(Image.fromarray(bar).convert("RGB"), (left, size // 2))
    draw.rectangle((left, size // 2, left + 8 * size - 1, size // 2 + size - 1), outline=MUTED)
    draw_text(draw, (left + 9 * size, size // 2), high, size)
    return canvas
