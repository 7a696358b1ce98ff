"""How does a picture become a training example, and how do its label and its proposals follow?

All that is random about one example is drawn first (`draw`), always the same number of values in the same order. What
was drawn becomes a `Place` (resized size, box, mirrored or not), which is applied alike to image, label and masks
(mask_crops.py); only the pixels inside the box are computed.

Source: resize, crop and mirror are those of detectron2 (ResizeShortestEdge, RandomCrop_CategoryAreaConstraint,
RandomFlip), which MAFT, its hosts and PixelCLIP use; with `scale_range` they are mmsegmentation's (ZegCLIP, TagCLIP).
Images are resized by Pillow's bilinear filter as in detectron2: the same grey levels, but for roundings of 1 in 3000
pixels, since the filter runs on the box alone.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ovseg_cli.core.methods.training_config import TrainingConfig
from ovseg_cli.core.training.color_jitter import Jitter, draw_jitter, jitter_colors

CROP_TRIES = 10
"""How often a crop is drawn anew where one class fills too much of it."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Draw:
    """What is random about one example.

    Attributes:
        short_side: In pixels; 0 keeps the picture's own.
        factor: Multiplies the short side and the limit of the long side.
        corners: (CROP_TRIES, 2), top and left of each try as a share of the room that there is.
        mirrored: Left to right.
        jitter: Change of the colours; None leaves them.
    """

    short_side: int
    factor: float
    corners: np.ndarray
    mirrored: bool
    jitter: Jitter | None


@dataclass(frozen=True)
class Place:
    """Where an example lies: the box of the resized picture that it shows, perhaps mirrored.

    Attributes:
        full: (H, W) of the whole picture, resized.
        top, left, height, width: The box, in pixels of the resized picture.
        mirrored: Left to right, after the crop.
    """

    full: Size
    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False

    @classmethod
    def whole(cls, size: Size, mirrored: bool = False) -> "Place":
        """Return the place of the whole picture."""
        return cls(size, 0, 0, *size, mirrored)

    @property
    def size(self) -> Size:
        """(H, W) of the example."""
        return self.height, self.width

    def crop(self, top: int, left: int, height: int, width: int) -> "Place":
        """Return the place of a part of this example; `left` counts in the example as it is shown."""
        from_left = self.width - left - width if self.mirrored else left
        return Place(self.full, self.top + top, self.left + from_left, height, width, self.mirrored)


def draw(rng: np.random.Generator, training: TrainingConfig) -> Draw:
    """Draw what is random about one example; every setting consumes the same numbers, used or not."""
    side, factor, mirror = rng.random(3)
    corners = rng.random((CROP_TRIES, 2))
    jitter = draw_jitter(rng)
    sides = training.short_sides or (0,)
    low, high = training.scale_range
    return Draw(
        short_side=sides[int(side * len(sides))],
        factor=low + (high - low) * float(factor),
        corners=corners,
        mirrored=bool(mirror < training.flip),
        jitter=jitter if training.color_jitter else None,
    )


def resized_size(size: Size, drawn: Draw, train_long_side: int) -> Size:
    """Return the (H, W) that a picture is resized to: aspect ratio kept, long side bounded (0: unbounded)."""
    short = max(1, int((drawn.short_side or min(size)) * drawn.factor))
    scale = short / min(size)
    longest = train_long_side * drawn.factor
    if train_long_side and max(size) * scale > longest:
        scale = longest / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def example_size(size: Size, drawn: Draw, training: TrainingConfig) -> Size:
    """Return the (H, W) of the example that a picture of a size becomes, without reading it."""
    height, width = resized_size(size, drawn, training.train_long_side)
    side = training.crop_size
    return (min(height, side), min(width, side)) if side else (height, width)


def place(label: np.ndarray, drawn: Draw, training: TrainingConfig, ignore: int) -> Place:
    """Choose the box of an example.

    Args:
        label: (H, W) integers; its size counts, and what it shows where `crop_max_share` is below 1.
        drawn: From `draw`.
        training: Settings.
        ignore: Value of pixels without a class.

    Source: detectron2's RandomCrop_CategoryAreaConstraint: a crop with one class alone is drawn anew as well; after the
    last try the crop is taken as it is.
    """
    full = resized_size(_size_of(label), drawn, training.train_long_side)
    height, width = example_size(_size_of(label), drawn, training)
    tries = drawn.corners if training.crop_max_share < 1 else drawn.corners[:1]
    for v, u in tries:
        top, left = int(v * (full[0] - height + 1)), int(u * (full[1] - width + 1))
        chosen = Place(full, top, left, height, width, drawn.mirrored)
        if len(tries) == 1 or _is_mixed(warp_label(label, chosen), training.crop_max_share, ignore):
            break
    return chosen


def _is_mixed(label: np.ndarray, max_share: float, ignore: int) -> bool:
    counts = np.unique(label[label != ignore], return_counts=True)[1]
    return len(counts) > 1 and bool(counts.max() < max_share * counts.sum())


def warp_image(image: np.ndarray, place: Place, jitter: Jitter | None = None) -> np.ndarray:
    """Return the example's pixels, (h, w, 3) uint8, of a picture (H, W, 3) uint8."""
    height, width = _size_of(image)
    down, across = height / place.full[0], width / place.full[1]
    box = (
        place.left * across,
        place.top * down,
        min(width, (place.left + place.width) * across),
        min(height, (place.top + place.height) * down),
    )
    resized = Image.fromarray(image).resize((place.width, place.height), Image.Resampling.BILINEAR, box=box)
    if jitter is not None:
        resized = jitter_colors(resized, jitter)
    return _mirror(np.asarray(resized), place, axis=1)


def warp_label(label: np.ndarray, place: Place) -> np.ndarray:
    """Return the example's label, (h, w), of a label (H, W): the nearest pixel's value, never a mixture."""
    rows, columns = nearest_indices(_size_of(label), place)
    return label[rows].take(columns, axis=1)


def nearest_indices(size: Size, place: Place) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows (h,) and columns (w,) of a picture of (H, W) the example's pixels show: nearest centres."""
    rows = _nearest(size[0], place.full[0], place.top, place.height)
    columns = _nearest(size[1], place.full[1], place.left, place.width)
    return rows, columns[::-1] if place.mirrored else columns


def _nearest(source: int, target: int, start: int, count: int) -> np.ndarray:
    centres = 2 * np.arange(start, start + count, dtype=np.int64) + 1  # in half pixels: exact integers
    return centres * source // (2 * target)


def _mirror(values: np.ndarray, place: Place, axis: int) -> np.ndarray:
    return np.flip(values, axis) if place.mirrored else values


def _size_of(values: np.ndarray) -> Size:
    return int(values.shape[0]), int(values.shape[1])
