"""How a label map is shown to people: an overlay with a legend, an error map, and panels side by side.

Figures are views, never data: tiny pictures are enlarged, huge ones reduced, label maps always by the nearest pixel.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ovseg_cli.core.errors import ShapeError
from ovseg_cli.core.files import write_bytes
from ovseg_cli.core.report.legend import (
    INK,
    PAPER,
    UNLABELLED,
    Color,
    Entry,
    border_entries,
    class_areas,
    draw_legend,
    draw_text,
    legend_entries,
    order_by_area,
    widest_entry,
)
from ovseg_cli.core.report.lettering import line_height, text_width, wrap
from ovseg_cli.core.report.painting import Borders, check_sizes, paint, resize_image, resize_label, view_size

MIN_SIDE, MAX_SIDE = 384, 2048
NARROWEST = 16  # of the legend, in font sizes
WRONG = (214, 39, 40)


def overlay(
    image: np.ndarray,
    label: np.ndarray,
    names: Sequence[str],
    colors: np.ndarray,
    ignore_label: int | None = None,
    borders: Borders | None = None,
    opacity: float = 0.6,
    legend: bool = True,
    max_side: int = MAX_SIDE,
    background: int | None = None,
    meanings: Mapping[Color, str] | None = None,
) -> Image.Image:
    """Lay the classes over the picture as translucent colours with borders and explain them in a legend below.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) class ids.
        names: K names.
        colors: (K, 3) uint8.
        ignore_label: Pixels of this value are greyed and hatched.
        borders: Border colours of some classes (for instance seen black, unseen red), 0 to 255.
        opacity: Strength of the colours, 0 to 1.
        legend: Add the legend.
        max_side: The long side is reduced to this many pixels.
        background: Class that is coloured half as strongly, so that the picture stays visible.
        meanings: What border colours mean, for a line of its own below the legend; colours that do not occur in this
            picture are left out.

    Returns:
        An RGB image. The picture is enlarged by a whole factor where its long side is below 384 pixels.

    Raises:
        ShapeError: Picture and label map differ in size.
    """
    check_sizes(image, label)
    size = view_size(image.shape[:2], MIN_SIDE, max_side)
    small, ids = resize_image(image, size), resize_label(label, size)
    painted = paint(small, ids, colors, ignore_label, borders, opacity, background=background)
    if not legend:
        return painted
    entries = legend_entries([label], names, colors, borders)
    parts = ([*entries, *_unlabelled([label], ignore_label)], border_entries(entries, meanings))
    return _with_legend(painted, parts, font_size(max(size)))


def error_map(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, ignore_label: int | None = None
) -> Image.Image:
    """Show where a prediction is wrong: red on the grey picture; ignored pixels are hatched.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) class ids.
        prediction: (H, W) class ids.
        ignore_label: Value of `truth` that is not scored.

    Returns:
        An RGB image without legend, sized as an overlay is.
    """
    check_sizes(image, truth)
    check_sizes(image, prediction)
    size = view_size(image.shape[:2], MIN_SIDE, MAX_SIDE)
    scored = np.ones(truth.shape, bool) if ignore_label is None else truth != ignore_label
    state = resize_label(np.where(scored, (truth != prediction).astype(np.int64), 255), size)
    pale = np.asarray(Image.fromarray(resize_image(image, size)).convert("L"), np.uint8)[..., None] // 2 + 120
    base = np.repeat(pale, 3, axis=2)
    wrong = paint(base, state, np.array([PAPER, WRONG], np.uint8), 255, opacity=0.75, line=0)
    return Image.fromarray(np.where((state == 0)[..., None], base, np.asarray(wrong)))


@dataclass(frozen=True)
class PanelRow:
    """One picture and what is shown beside it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        cells: Label maps (H, W), or ready images such as an error map; one a caption.
        title: Printed above the row; may be empty.
        notes: Printed below the panels, one for each cell; may be empty.
    """

    image: np.ndarray
    cells: Sequence[np.ndarray | Image.Image]
    title: str = ""
    notes: Sequence[str] = ()


def side_by_side(
    rows: Sequence[PanelRow],
    captions: Sequence[str],
    names: Sequence[str],
    colors: np.ndarray,
    ignore_label: int | None = None,
    borders: Borders | None = None,
    opacity: float = 0.6,
    panel: int = MIN_SIDE,
    groups: Sequence[tuple[str, Sequence[int]]] | None = None,
    meanings: Mapping[Color, str] | None = None,
) -> Image.Image:
    """Set pictures, ground truth and the label maps of several methods side by side, with one legend for all.

    Args:
        rows: One a picture.
        captions: One a column: "picture", then one for each cell of a row.
        names: K names.
        colors: (K, 3) uint8.
        ignore_label: Pixels of this value are greyed and hatched.
        borders: Border colours of some classes.
        opacity: Strength of the colours, 0 to 1.
        panel: Side in pixels of the square that each panel fits into.
        groups: Parts of the legend, a heading and class ids each ("seen stuff", "unseen"); ids that no map holds are
            left out, and so is a part without any. None: one legend, largest area first.
        meanings: What border colours mean, as for `overlay`.

    Returns:
        An RGB image.

    Raises:
        ShapeError: A row has not one cell for each caption after the first, or sizes differ within a row.
    """
    size = font_size(panel * 1.4)
    gap, band = size // 2, _caption_height(captions, panel, size)
    painted = [_panels(row, len(captions), colors, ignore_label, borders, opacity, panel) for row in rows]
    canvas = Image.new("RGB", (len(captions) * (panel + gap) + gap, band), PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, caption in enumerate(captions):
        _centred(draw, caption, gap + column * (panel + gap), band - gap // 2, panel, size)
    strips = [canvas, *(_strip(row, images, panel, gap, size) for row, images in zip(rows, painted, strict=True))]
    labels = [cell for row in rows for cell in row.cells if isinstance(cell, np.ndarray)]
    legends = _legends(labels, names, colors, borders, ignore_label, groups, canvas.width, size, meanings)
    return stack([*strips, *legends])


def _legends(
    labels: Sequence[np.ndarray],
    names: Sequence[str],
    colors: np.ndarray,
    borders: Borders | None,
    ignore_label: int | None,
    groups: Sequence[tuple[str, Sequence[int]]] | None,
    width: int,
    size: int,
    meanings: Mapping[Color, str] | None,
) -> list[Image.Image]:
    """Legends of all panels: one a group, then what is not labelled and what the borders mean."""
    found = legend_entries(labels, names, colors, borders, shares=False)
    other = _unlabelled(labels, ignore_label)
    if groups is None:
        parts = [("", [*found, *other]), ("", border_entries(found, meanings))]
    else:
        by_id = dict(zip(order_by_area(class_areas(labels, len(names))), found, strict=True))
        parts = [(title, [by_id[i] for i in ids if i in by_id]) for title, ids in groups]
        parts += [("", [*other, *border_entries(found, meanings)])]
    column = widest_entry([*found, *other], size)
    return [draw_legend(entries, width, size, title=title, column=column) for title, entries in parts if entries]


def font_size(side: float) -> int:
    """Choose a font size in pixels that is readable beside a picture of this long side."""
    return round(min(max(side / 44, 14), 44))


def stack(strips: Sequence[Image.Image]) -> Image.Image:
    """Set images below one another, centred on white."""
    width = max(strip.width for strip in strips)
    canvas, y = Image.new("RGB", (width, sum(strip.height for strip in strips)), PAPER), 0
    for strip in strips:
        canvas.paste(strip, ((width - strip.width) // 2, y))
        y += strip.height
    return canvas


def sentences(lines: Sequence[str], width: int, size: int) -> Image.Image:
    """Draw sentences below one another, wrapped to a width in pixels, on white."""
    pad = round(size * 0.6)
    wrapped = [line for sentence in lines for line in wrap(sentence, size, width - 2 * pad)]
    canvas = Image.new("RGB", (width, len(wrapped) * line_height(size) + pad), PAPER)
    for row, line in enumerate(wrapped):
        draw_text(ImageDraw.Draw(canvas), (pad, pad // 2 + row * line_height(size)), line, size)
    return canvas


def save_png(image: Image.Image, path: Path) -> None:
    """Write an image as a PNG, whole or not at all.

    Raises:
        MachineError: The disk refuses.
    """
    stream = io.BytesIO()
    image.save(stream, "PNG")
    write_bytes(path, stream.getvalue())


def _with_legend(picture: Image.Image, parts: Sequence[Sequence[Entry]], size: int) -> Image.Image:
    width = max(picture.width, NARROWEST * size)
    return stack([picture, *(draw_legend(entries, width, size) for entries in parts if entries)])


def _unlabelled(labels: Sequence[np.ndarray], ignore_label: int | None) -> list[Entry]:
    found = ignore_label is not None and any(bool((label == ignore_label).any()) for label in labels)
    return [Entry("not labelled", UNLABELLED)] if found else []


def _panels(
    row: PanelRow,
    count: int,
    colors: np.ndarray,
    ignore_label: int | None,
    borders: Borders | None,
    opacity: float,
    panel: int,
) -> list[Image.Image]:
    if len(row.cells) != count - 1:
        raise ShapeError(f"a row of panels has {len(row.cells)} cells for {count - 1} captions beside the picture.")
    size = view_size(row.image.shape[:2], panel, panel)
    image = resize_image(row.image, size)
    images = [Image.fromarray(image)]
    for cell in row.cells:
        if isinstance(cell, Image.Image):
            images.append(cell.resize((size[1], size[0]), Image.Resampling.BOX))
            continue
        check_sizes(row.image, cell)
        images.append(
            paint(image, resize_label(cell, size), colors, ignore_label, borders, opacity, line=2 if borders else 1)
        )
    return images


def _strip(row: PanelRow, images: Sequence[Image.Image], panel: int, gap: int, size: int) -> Image.Image:
    title, below = (line_height(size) if words else 0 for words in (row.title, row.notes))
    height = max(image.height for image in images)
    canvas = Image.new("RGB", (len(images) * (panel + gap) + gap, title + height + below + gap), PAPER)
    draw = ImageDraw.Draw(canvas)
    if row.title:
        draw_text(draw, (gap, 0), row.title, size)
    for column, image in enumerate(images):
        left = gap + column * (panel + gap) + (panel - image.width) // 2
        canvas.paste(image, (left, title + (height - image.height) // 2))
    for column, note in enumerate(row.notes, start=1):
        _centred(draw, note, gap + column * (panel + gap), title + height + below + size // 4, panel, size)
    return canvas


def _caption_height(captions: Sequence[str], panel: int, size: int) -> int:
    return max(len(wrap(caption, size, panel)) for caption in captions) * line_height(size) + size


def _centred(draw: ImageDraw.ImageDraw, text: str, left: int, bottom: int, width: int, size: int) -> None:
    lines = wrap(text, size, width)
    for number, line in enumerate(lines):
        y = bottom - (len(lines) - number) * line_height(size)
        draw_text(draw, (left + (width - text_width(line, size)) // 2, y), line, size, INK)
