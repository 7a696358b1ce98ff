"""What do the twelve stuff classes of the toy world look like? One function a texture, numpy only.

Every function draws one periodic canvas, (`SIDE`, `SIDE`, 3) float in 0..1; scenes are cut out of canvases. Hue ranges
overlap on purpose (grass, leaves and straw; sky and water; brick, tiles and lava; gravel, snow and tiles), so that no
class is given by its mean colour alone.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SIDE = 192
Array = NDArray[np.floating]

_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


def hsv_to_rgb(hue: Array | float, saturation: Array | float, value: Array | float) -> Array:
    """Turn hue, saturation and value (0..1, hue may leave the range and wraps) into (..., 3) RGB in 0..1."""
    hue, saturation, value = np.broadcast_arrays(hue, saturation, value)
    turns = (np.array([5.0, 3.0, 1.0]) + 6.0 * hue[..., None]) % 6.0
    ramp = np.clip(np.minimum(turns, 4.0 - turns), 0.0, 1.0)
    return np.clip(value, 0, 1)[..., None] * (1.0 - np.clip(saturation, 0, 1)[..., None] * ramp)


def smooth_noise(rng: Generator, sigma: float | tuple[float, float], shape: tuple[int, int] = (SIDE, SIDE)) -> Array:
    """Return periodic Gaussian noise, blurred by `sigma` pixels (rows, columns), with mean 0 and deviation 1."""
    rows, columns = (sigma, sigma) if isinstance(sigma, float | int) else sigma
    fy = np.fft.fftfreq(shape[0])[:, None] * rows
    fx = np.fft.rfftfreq(shape[1])[None, :] * columns
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * np.exp(-2 * np.pi**2 * (fy**2 + fx**2))
    noise = np.fft.irfft2(spectrum, shape)
    return (noise - noise.mean()) / noise.std()


def _grass(rng: Generator) -> Array:
    blades = smooth_noise(rng, (2.6, 0.35))
    return hsv_to_rgb(rng.uniform(0.22, 0.36) + 0.012 * smooth_noise(rng, 6.0), 0.62, 0.50 + 0.13 * blades)


def _leaves(rng: Generator) -> Array:
    clumps = np.tanh(1.6 * smooth_noise(rng, 2.2))
    hue = rng.uniform(0.18, 0.40) + 0.035 * np.tanh(smooth_noise(rng, 3.0))
    return hsv_to_rgb(hue, 0.62 - 0.1 * clumps, 0.42 + 0.2 * clumps)


def _straw(rng: Generator) -> Array:
    slope = rng.choice([-1.0, 1.0])
    along, across = smooth_noise(rng, (0.5, 4.0)), smooth_noise(rng, (0.5, 4.0))
    columns = np.arange(SIDE)
    rows = (columns[:, None] + slope * columns[None, :]).astype(int) % SIDE
    stalks = np.maximum(along[rows, columns[None, :]], across)
    return hsv_to_rgb(rng.uniform(0.11, 0.17), 0.58, 0.62 + 0.15 * stalks)


def _water(rng: Generator) -> Array:
    frequency = 2 * np.pi * rng.integers(15, 24) / SIDE  # 0.5 to 0.8 rad a pixel, whole waves a canvas
    waves = np.sin(frequency * _Y + 1.6 * smooth_noise(rng, 9.0))
    return hsv_to_rgb(rng.uniform(0.50, 0.63), 0.66 - 0.12 * waves, 0.58 + 0.12 * waves)


def _sky(rng: Generator) -> Array:
    clouds = np.clip(0.5 + 0.9 * (smooth_noise(rng, (7.0, 13.0)) + 0.35 * smooth_noise(rng, 3.0)), 0, 1)
    return hsv_to_rgb(rng.uniform(0.53, 0.61), 0.55 * (1 - 0.9 * clouds), 0.80 + 0.14 * clouds)


def _sand(rng: Generator) -> Array:
    grain, dunes = rng.standard_normal((SIDE, SIDE)), smooth_noise(rng, 11.0)
    return hsv_to_rgb(rng.uniform(0.08, 0.15), 0.40, 0.76 + 0.055 * grain + 0.03 * dunes)


def _brick(rng: Generator) -> Array:
    height, width = int(rng.choice([8, 12])), int(rng.choice([16, 24]))
    course = (_Y // height).astype(int)
    shifted = _X + (course % 2) * (width // 2)
    mortar = (_Y % height < 1.5) | (shifted % width < 1.5)
    column = (shifted // width).astype(int) % (SIDE // width)
    tone = rng.uniform(-0.09, 0.09, (SIDE // height, SIDE // width))[course, column]
    noise = 0.03 * rng.standard_normal((SIDE, SIDE))
    bricks = hsv_to_rgb(rng.uniform(-0.02, 0.06), 0.62, 0.56 + tone + noise)
    return np.where(mortar[..., None], hsv_to_rgb(0.08, 0.12, 0.78 + noise), bricks)


def _tiles(rng: Generator) -> Array:
    side = int(rng.choice([12, 16]))
    grout = np.minimum(_Y % side, _X % side) < 1.5
    board = ((_Y // side + _X // side) % 2) * rng.uniform(0.05, 0.12)
    noise = 0.012 * rng.standard_normal((SIDE, SIDE))
    tiles = hsv_to_rgb(rng.uniform(0.40, 0.56), rng.uniform(0.10, 0.28), 0.86 - board + noise)
    return np.where(grout[..., None], hsv_to_rgb(0.1, 0.1, 0.48 + noise), tiles)


def _gravel(rng: Generator) -> Array:
    stones = np.tanh(1.7 * smooth_noise(rng, 1.15))
    return hsv_to_rgb(rng.uniform(0.0, 1.0), 0.08, 0.50 + 0.24 * stones + 0.03 * smooth_noise(rng, 9.0))


def _wood(rng: Generator) -> Array:
    frequency = 2 * np.pi * rng.integers(9, 15) / SIDE
    grain = np.sin(frequency * _X + 2.8 * smooth_noise(rng, (26.0, 7.0)))
    fibres = smooth_noise(rng, (7.0, 0.5))
    return hsv_to_rgb(rng.uniform(0.05, 0.10), 0.62, 0.52 + 0.11 * grain + 0.03 * fibres)


def _snow(rng: Generator) -> Array:
    drifts = smooth_noise(rng, (5.0, 9.0))
    return hsv_to_rgb(rng.uniform(0.54, 0.64), 0.05 - 0.02 * drifts, 0.91 + 0.03 * drifts)


def _lava(rng: Generator) -> Array:
    cracks = np.exp(-((smooth_noise(rng, 5.0) / 0.22) ** 2))
    crust = 0.17 + 0.05 * smooth_noise(rng, 1.0)
    return hsv_to_rgb(rng.uniform(-0.01, 0.03) + 0.09 * cracks, 0.92 - 0.1 * cracks, crust + 0.78 * cracks)


TEXTURES: dict[str, Callable[[Generator], Array]] = {
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "brick": _brick,
    "gravel": _gravel,
    "wood": _wood,
    "snow": _snow,
    "leaves": _leaves,
    "sky": _sky,
    "tiles": _tiles,
    "lava": _lava,
    "straw": _straw,
}


def canvases(name: str, bank: int, count: int) -> NDArray[np.uint8]:
    """Draw the canvases of one texture.

    Args:
        name: A key of `TEXTURES`.
        bank: Number of the bank; two banks share no canvas.
        count: How many canvases.

    Returns:
        (count, SIDE, SIDE, 3) uint8 RGB.
    """
    rng = np.random.default_rng([list(TEXTURES).index(name), bank, 0x7E27])
    drawn = np.stack([TEXTURES[name](rng) for _ in range(count)])
    return np.rint(np.clip(drawn, 0, 1) * 255).astype(np.uint8)
