"""How classes become colours on a picture: painting, borders between classes, sizes for viewing."""

import numpy as np
from PIL import Image

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.report.legend import UNLABELLED, darker

Borders = dict[int, tuple[int, int, int]]


def paint(
    image: np.ndarray,
    label: np.ndarray,
    colors: np.ndarray,
    ignore_label: int | None = None,
    borders: Borders | None = None,
    opacity: float = 0.6,
    line: int | None = None,
    background: int | None = None,
) -> Image.Image:
    """Colour the pixels of a picture by class, without resizing and without legend.

    The picture's own colours are mostly taken out first, so that a class has the colour of its legend everywhere.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) class ids.
        colors: (K, 3) uint8.
        ignore_label: Pixels of this value are greyed and hatched.
        borders: Border colours of some classes.
        opacity: Strength of the colours, 0 to 1.
        line: Width of class borders in pixels; None follows the picture's size, twice as wide where borders are
            coloured, so that the colour is seen.
        background: Class that is coloured half as strongly, so that the picture stays visible.
    """
    known = (label >= 0) & (label < len(colors))
    table = np.concatenate([colors.astype(np.float32), [UNLABELLED]])
    index = np.where(known, label, len(colors)).astype(np.int64)
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None]
    strength = np.full((len(table), 1), opacity, np.float32)
    if background is not None:
        strength[background] /= 2
    mixed = (1 - strength[index]) * (0.7 * grey + 0.3 * image) + strength[index] * table[index]
    if ignore_label is not None:
        mixed = np.where((_hatch(label.shape) & (label == ignore_label))[..., None], 0.75 * mixed, mixed)
    line = max(1, round(max(label.shape) / 400)) * (2 if borders else 1) if line is None else line
    if line:
        edge_colors = np.array([darker(tuple(color)) for color in table.astype(int)], np.float32)
        for i, color in (borders or {}).items():
            edge_colors[i] = color
        mixed = np.where(edges(label, line)[..., None], edge_colors[index], mixed)
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def edges(label: np.ndarray, line: int = 1) -> np.ndarray:
    """Find the pixels within `line` pixels (4-neighbourhood) of another class; both sides count.

    Args:
        label: (H, W) class ids.
        line: At least 1.

    Returns:
        (H, W) bool.
    """
    edge = np.zeros(label.shape, bool)
    across, down = label[:, 1:] != label[:, :-1], label[1:] != label[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    for _ in range(line - 1):
        grown = edge.copy()
        grown[:, 1:] |= edge[:, :-1]
        grown[:, :-1] |= edge[:, 1:]
        grown[1:] |= edge[:-1]
        grown[:-1] |= edge[1:]
        edge = grown
    return edge


def view_size(size: tuple[int, int], smallest: int, largest: int) -> tuple[int, int]:
    """Choose the size at which a picture is shown.

    Args:
        size: (H, W) of the picture.
        smallest: A long side below this is enlarged by the whole factor that reaches it.
        largest: A long side above this is reduced to it.

    Returns:
        (H', W'), each at least 1.
    """
    long_side = max(size)
    if long_side > largest:
        return max(1, round(size[0] * largest / long_side)), max(1, round(size[1] * largest / long_side))
    factor = max(1, min(-(-smallest // long_side), largest // long_side))
    return size[0] * factor, size[1] * factor


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a label map (H, W) to another size for viewing, by the nearest pixel."""
    rows = (np.arange(size[0]) + 0.5) * label.shape[0] / size[0]
    columns = (np.arange(size[1]) + 0.5) * label.shape[1] / size[1]
    return label[rows.astype(np.int64)[:, None], columns.astype(np.int64)[None]]


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a picture (H, W, 3) to another size: sharp pixels when enlarged, smooth when reduced."""
    if size == image.shape[:2]:
        return image
    enlarged = size[0] >= image.shape[0]
    method = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), method))


def check_sizes(image: np.ndarray, label: np.ndarray) -> None:
    """Refuse a label map that does not fit its picture."""
    if image.shape[:2] != label.shape:
        raise ShapeError(f"the picture has (H, W) = {image.shape[:2]}, its label map {label.shape}.")


def _hatch(shape: tuple[int, ...], period: int = 8) -> np.ndarray:
    return (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % period) < period // 3
