"""What do the colours of a figure mean: the classes of a label map by area, and a legend drawn from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ovseg_cli.core.report.lettering import lettering, line_height, text_width, wrap

INK, MUTED, PAPER = (33, 33, 38), (110, 110, 118), (255, 255, 255)
UNLABELLED = (150, 150, 155)
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Entry:
    """One line of a legend.

    Attributes:
        name: What the colour stands for.
        color: RGB, 0 to 255.
        share: Part of the area, 0 to 1, printed beside the name; None prints nothing.
        border: RGB of the swatch's border; None takes a darker shade of the colour.
    """

    name: str
    color: tuple[int, int, int]
    share: float | None = None
    border: tuple[int, int, int] | None = None


def class_areas(labels: Sequence[np.ndarray], num_classes: int) -> np.ndarray:
    """Count pixels per class over label maps of any size.

    Args:
        labels: Maps (H, W) of class ids; values outside 0 … K - 1 are not counted.
        num_classes: K.

    Returns:
        (K,) int64.
    """
    areas = np.zeros(num_classes, np.int64)
    for label in labels:
        known = label[(label >= 0) & (label < num_classes)].astype(np.int64)
        areas += np.bincount(known, minlength=num_classes)
    return areas


def order_by_area(areas: np.ndarray) -> list[int]:
    """Order the classes that occur, largest area first; `areas` is (K,) pixels."""
    return [int(i) for i in np.argsort(-areas, kind="stable") if areas[i] > 0]


def legend_entries(
    labels: Sequence[np.ndarray],
    names: Sequence[str],
    colors: np.ndarray,
    borders: dict[int, tuple[int, int, int]] | None = None,
    shares: bool = True,
) -> list[Entry]:
    """List the classes that occur, largest area first.

    Args:
        labels: Label maps, (H, W) each.
        names: K names.
        colors: (K, 3) uint8.
        borders: Border colour of some classes.
        shares: Print each class's part of the area (ignored pixels count in the whole).
    """
    areas, whole = class_areas(labels, len(names)), sum(label.size for label in labels)
    return [
        Entry(
            names[i], rgb(colors[i]), float(areas[i] / whole) if shares else None, borders.get(i) if borders else None
        )
        for i in order_by_area(areas)
    ]


def border_entries(entries: Sequence[Entry], meanings: Mapping[Color, str] | None) -> list[Entry]:
    """List what the borders of some entries mean: a white swatch each, in the order of `meanings`."""
    there = {entry.border for entry in entries}
    return [Entry(words, PAPER, border=color) for color, words in (meanings or {}).items() if color in there]


def rgb(color: Sequence[int] | np.ndarray) -> tuple[int, int, int]:
    """Return a colour as three plain integers."""
    red, green, blue = (int(channel) for channel in color)
    return red, green, blue


def darker(color: tuple[int, int, int], factor: float = 0.6) -> tuple[int, int, int]:
    """Return a darker shade."""
    return rgb([round(channel * factor) for channel in color])


def share_text(share: float) -> str:
    """Print a part of the area: `41 %`, `0.4 %`, `< 0.1 %`."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.1f} %" if percent >= 0.05 else "< 0.1 %"


def widest_entry(entries: Sequence[Entry], size: int) -> int:
    """Width in pixels of the widest name of a legend."""
    return max((text_width(entry.name, size) for entry in entries), default=0)


def draw_legend(
    entries: Sequence[Entry], width: int, size: int, most: int = 48, title: str = "", column: int = 0
) -> Image.Image:
    """Draw a legend in as many columns as fit.

    Args:
        entries: What to explain, in this order.
        width: Width in pixels of the image that is returned.
        size: Font size in pixels.
        most: Entries beyond this many become one line "and 12 more".
        title: Heading; may be empty.
        column: Least width in pixels of a column's names, so that several legends stand in line.

    Returns:
        An RGB image, `width` wide, as high as needed.
    """
    pad, swatch, gap = round(size * 0.6), size, round(size * 0.5)
    shown = list(entries[:most])
    halves = 2 if len(shown) > 3 and width > 28 * size else 1  # so that one long name does not cost all columns
    room = max(min(width // halves - 2 * pad - swatch - gap, size * 20), size)
    texts = [_lines(entry, size, room) for entry in shown]
    widest = max((text_width(line, size) for lines in texts for line in lines), default=0)
    column = swatch + gap + max(widest, min(column, room)) + 2 * gap
    columns = max(1, min(len(shown) or 1, (width - 2 * pad + 2 * gap) // column))
    rows = [range(start, min(start + columns, len(shown))) for start in range(0, len(shown), columns)]
    heights = [max(len(texts[i]) for i in row) * line_height(size) + round(size * 0.35) for row in rows]
    more = len(entries) - len(shown)
    head = line_height(size) + round(size * 0.35) if title else 0
    tail = line_height(size) if more else 0
    canvas = Image.new("RGB", (width, 2 * pad + head + sum(heights) + tail), PAPER)
    draw, y = ImageDraw.Draw(canvas), pad
    if title:
        draw_text(draw, (pad, y), title, size, MUTED)
        y += head
    for row, height in zip(rows, heights, strict=True):
        for place, i in enumerate(row):
            _draw_entry(draw, (pad + place * column, y), shown[i], texts[i], size, gap)
        y += height
    if more:
        draw_text(draw, (pad, y), f"and {more} more", size, MUTED)
    return canvas


def _lines(entry: Entry, size: int, room: int) -> list[str]:
    share = "" if entry.share is None else f"  {share_text(entry.share)}"
    lines = wrap(entry.name, size, room)
    return [*lines[:-1], lines[-1] + share] if text_width(lines[-1] + share, size) <= room else [*lines, share.strip()]


def _draw_entry(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], entry: Entry, lines: list[str], size: int, gap: int
) -> None:
    x, y = corner
    _draw_swatch(draw, (x, y + 1, x + size, y + 1 + size), entry, size)
    for text in lines:
        name, _, share = text.partition("  ") if entry.share is not None else (text, "", "")
        draw_text(draw, (x + size + gap, y), name, size, INK)
        if share:
            draw_text(draw, (x + size + gap + text_width(name + "  ", size), y), share, size, MUTED)
        y += line_height(size)


def _draw_swatch(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], entry: Entry, size: int) -> None:
    """A square of the colour; a border of its own is set off in white, so that red is seen around red."""
    thin, radius = max(1, size // 9), size // 5
    if entry.border is None:
        draw.rounded_rectangle(box, radius, fill=entry.color, outline=darker(entry.color), width=thin)
        return
    draw.rounded_rectangle(box, radius, fill=PAPER, outline=entry.border, width=2 * thin)
    inset = 3 * thin
    draw.rectangle((box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset), fill=entry.color)


def draw_text(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, size: int, color: tuple[int, int, int] = INK
) -> None:
    """Draw one line with its top left corner at `corner`; all fonts share one base line."""
    shown, font = lettering(text, size)
    draw.text((corner[0], corner[1] + round(0.95 * size)), shown, fill=color, font=font, anchor="ls")
