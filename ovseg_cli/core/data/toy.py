"""The toy world: procedurally drawn scenes with labels and captions, so that everything runs without a download.

A scene holds one to three stuff regions (textures), one to four toys (color × pattern; outline carries no class), and
clutter without a name that is labeled `IGNORE` and never mentioned. A scene is a pure function of its stream and index:
its neighbors, the order and the number of workers change nothing. Streams share no canvas and no random number, so
scenes for training, tuning and scoring have nothing in common but the classes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ovseg_cli.core.data import toy_shapes, toy_textures
from ovseg_cli.core.data.toy_captions import CLASS_NAMES, COLORS, PATTERNS, STUFF, caption, thing_id
from ovseg_cli.core.files import digest_of

Array = NDArray[np.floating]

VERSION = "toyseg-1"
IGNORE = 255
MIN_NAMED_PIXELS = 60  # a class with fewer pixels is not mentioned
SUBSETS = {"train": 600, "tune": 200, "val": 200}
_STREAMS = {"train": 1, "tune": 2, "val": 3}
PRETRAIN_STREAM = 1000  # + the seed of the pretraining

_CANVASES = 12
_NOISES = 24
_NOISE_SIDE = 128


@dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 train ids, `IGNORE` on clutter.
        caption: One sentence about the named classes.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    caption: str


class ToyWorld:
    """The generator that the toy spec names.

    Args:
        size: Side of a scene in pixels; 96 for segmentation, 64 for most of the pretraining, at the same pixel scale.
    """

    subsets = SUBSETS

    def __init__(self, size: int = 96):
        self.size = size

    def scene(self, subset: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
        """Draw a scene of a subset.

        Args:
            subset: A key of `subsets`.
            index: Place in the subset, from 0.

        Returns:
            Image (H, W, 3) uint8 RGB, label (H, W) uint8 train ids with 255 on clutter, caption.

        Raises:
            KeyError: No such subset.
            IndexError: The subset has fewer scenes.
        """
        if not 0 <= index < self.subsets[subset]:
            raise IndexError(f"scene {index} of '{subset}', which has {self.subsets[subset]}")
        drawn = draw(_STREAMS[subset], index, self.size)
        return drawn.image, drawn.label, drawn.caption

    def digest(self) -> str:
        """Fingerprint of the world: the code's version and a few scenes' labels."""
        labels = [draw(_STREAMS[name], 0, self.size).label.tobytes() for name in self.subsets]
        return digest_of([VERSION, str(self.size), *CLASS_NAMES, *labels])


def draw(stream: int, index: int, size: int) -> Scene:
    """Draw scene `index` of a stream, a pure function of its three arguments."""
    rng = np.random.default_rng([stream, index, 0x70F5])
    picture, label = _stuff(stream, rng, size)
    _clutter(picture, label, rng)
    _toys(picture, label, rng)
    counts = np.bincount(label.ravel(), minlength=IGNORE)[: len(CLASS_NAMES)]
    present = np.flatnonzero(counts >= MIN_NAMED_PIXELS).tolist() or [int(counts.argmax())]
    return Scene(_develop(picture, stream, rng), label, caption(present, rng))


def _stuff(stream: int, rng: Generator, size: int) -> tuple[Array, NDArray[np.uint8]]:
    """Lay one to three textures in bands or cells, (H, W, 3) float32 and (H, W) labels."""
    share = (0.4, 0.9) if size < 80 else (0.2, 0.7)
    regions = 1 + int(np.searchsorted(share, rng.random()))
    classes = rng.permutation(len(STUFF))[:regions]
    cells = _regions(stream, rng, size, regions)
    picture = _texture(stream, int(classes[0]), rng, size)
    for region in range(1, regions):
        np.copyto(picture, _texture(stream, int(classes[region]), rng, size), where=(cells == region)[..., None])
    return picture, classes.astype(np.uint8)[cells]


def _regions(stream: int, rng: Generator, size: int, regions: int) -> NDArray[np.integer]:
    """Part the picture into `regions` bands or Voronoi cells with warped borders, (H, W) from 0."""
    kind = int(rng.integers(3))
    warp = 7 * _noise_crop(stream, rng, size)
    axis = np.arange(size, dtype=np.float32)
    if kind < 2:
        borders = (np.arange(1, regions) + rng.uniform(-0.25, 0.25, regions - 1)) * (size / regions)
        position = (axis[:, None] if kind == 0 else axis[None, :]) + warp
        cells = np.zeros((size, size), np.intp)
        for border in borders.astype(np.float32):
            cells += position > border
        return cells
    centers = rng.uniform(0.1, 0.9, (regions, 2)).astype(np.float32) * size
    distances = [(axis[:, None] - y + warp) ** 2 + (axis[None, :] - x + warp.T) ** 2 for y, x in centers]
    return np.argmin(distances, axis=0)


def _texture(stream: int, train_id: int, rng: Generator, size: int) -> Array:
    """Cut a texture out of a canvas: mirrored half the time, brightness × U(.85, 1.15), tint ± .06."""
    canvas = _canvases(stream, train_id)[rng.integers(_CANVASES)]
    top, left = rng.integers(toy_textures.SIDE - size + 1, size=2)
    crop = canvas[top : top + size, left : left + size]
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    gain, tint = rng.uniform(0.85, 1.15), rng.uniform(-0.06, 0.06, 3)
    return crop * np.float32(gain / 255) + tint.astype(np.float32)


def _clutter(picture: Array, label: NDArray[np.uint8], rng: Generator) -> None:
    """Paint objects without a name; their pixels are labeled `IGNORE`. About 8 % of all pixels stay visible."""
    size = len(label)
    for _ in range(int(rng.integers(0, 3) if size < 80 else rng.integers(1, 4))):
        center = (rng.uniform(4, size - 4), rng.uniform(4, size - 4))
        outline = toy_shapes.CLUTTER_OUTLINES[rng.integers(len(toy_shapes.CLUTTER_OUTLINES))]
        patch = toy_shapes.place(outline, center, rng.uniform(13, 23), rng, size)
        toy_shapes.paint_clutter(picture, patch, rng)
        label[patch.rows, patch.columns][patch.inside] = IGNORE


def _toys(picture: Array, label: NDArray[np.uint8], rng: Generator) -> None:
    """Paint the toys that find room: at most 5 % over another toy, at least 200 visible pixels."""
    size = len(label)
    taken = np.zeros((size, size), bool)
    for _ in range(int(rng.integers(1, 3) if size < 80 else rng.integers(1, 5))):
        color, pattern = int(rng.integers(len(COLORS))), int(rng.integers(len(PATTERNS)))
        outline = toy_shapes.TOY_OUTLINES[rng.integers(len(toy_shapes.TOY_OUTLINES))]
        for _attempt in range(6):
            center = (rng.uniform(12, size - 12), rng.uniform(12, size - 12))
            patch = toy_shapes.place(outline, center, rng.uniform(13, 24), rng, size)
            inside, there = patch.inside, taken[patch.rows, patch.columns]
            area = int(inside.sum())
            if area >= 200 and int((inside & there).sum()) <= 0.05 * area:
                break
        else:
            continue
        toy_shapes.paint_toy(picture, patch, COLORS[color], PATTERNS[pattern], rng)
        there |= inside
        label[patch.rows, patch.columns][inside] = thing_id(color, pattern)


def _develop(picture: Array, stream: int, rng: Generator) -> NDArray[np.uint8]:
    """Apply gain U(.8, 1.15), offset ± .06 and grain of deviation U(.01, .04) to the whole picture."""
    gain, offset, grain = rng.uniform(0.8, 1.15), rng.uniform(-0.06, 0.06), rng.uniform(0.01, 0.04)
    bank = _grain(stream)
    start = int(rng.integers(len(bank) - picture.size + 1))
    picture *= np.float32(255 * gain)
    picture += bank[start : start + picture.size].reshape(picture.shape) * np.float32(255 * grain)
    picture += np.float32(255 * offset + 0.5)
    return np.clip(picture, 0, 255, out=picture).astype(np.uint8)


def _noise_crop(stream: int, rng: Generator, size: int) -> Array:
    top, left = rng.integers(_NOISE_SIDE - size + 1, size=2)
    return _noises(stream)[rng.integers(_NOISES)][top : top + size, left : left + size]


@lru_cache(maxsize=4 * len(STUFF))
def _canvases(stream: int, train_id: int) -> NDArray[np.uint8]:
    return toy_textures.canvases(STUFF[train_id], stream, _CANVASES)


@lru_cache(maxsize=4)
def _noises(stream: int) -> Array:
    rng = np.random.default_rng([stream, 0x1013E])
    shape = (_NOISE_SIDE, _NOISE_SIDE)
    return np.stack([toy_textures.smooth_noise(rng, 9.0, shape) for _ in range(_NOISES)]).astype(np.float32)


@lru_cache(maxsize=4)
def _grain(stream: int) -> Array:
    return np.random.default_rng([stream, 0x6A41]).standard_normal(1 << 19, np.float32)
