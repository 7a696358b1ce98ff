"""How are the toys and the nameless clutter of the toy world painted into a picture?

Outlines carry no class: a tiny CLIP learns color in a minute and texture in a few, but not outline. Every painter
works inside the bounding box of its object only.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.floating]

TOY_OUTLINES = ("ball", "box", "star", "ring", "cross")
CLUTTER_OUTLINES = ("blob", "triangle", "crescent")
_HUES = {
    "red": (-0.04, 0.03),
    "yellow": (0.12, 0.17),
    "green": (0.28, 0.42),
    "blue": (0.56, 0.66),
    "purple": (0.74, 0.83),
}
_CLUTTER_HUES = ((0.47, 0.52), (0.065, 0.095))  # cyan, orange; grey has none


@dataclass(frozen=True)
class Patch:
    """An object in its bounding box.

    Attributes:
        rows: Rows of the picture that the box covers.
        columns: Columns of the picture that the box covers.
        alpha: (h, w) float32, 1 inside, 0 outside, one pixel of ramp.
        u: (h, w) float32, pixels to the right of the center.
        v: (h, w) float32, pixels below the center.
    """

    rows: slice
    columns: slice
    alpha: Array
    u: Array
    v: Array

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(h, w), the pixels that the label gives to the object."""
        return self.alpha > 0.5


def place(outline: str, center: tuple[float, float], radius: float, rng: Generator, size: int) -> Patch:
    """Lay an outline of `radius` pixels around `center` (row, column) of a picture with side `size`."""
    reach = int(np.ceil(1.12 * radius)) + 1  # the corner of a box, turned by half a radian, is the farthest
    top, left = max(0, int(center[0]) - reach), max(0, int(center[1]) - reach)
    bottom, right = min(size, int(center[0]) + reach + 1), min(size, int(center[1]) + reach + 1)
    v = (np.arange(top, bottom, dtype=np.float32) - np.float32(center[0]))[:, None]
    u = (np.arange(left, right, dtype=np.float32) - np.float32(center[1]))[None, :]
    angle = rng.uniform(-np.pi, np.pi) if outline not in ("box", "star", "cross") else rng.uniform(-0.5, 0.5)
    cosine, sine = np.float32(np.cos(angle) / radius), np.float32(np.sin(angle) / radius)
    margin = _margin(outline, u * cosine + v * sine, v * cosine - u * sine, rng)
    alpha = np.clip(margin * np.float32(radius) + np.float32(0.5), 0, 1)
    return Patch(slice(top, bottom), slice(left, right), alpha, *np.broadcast_arrays(u, v))


def _margin(outline: str, x: Array, y: Array, rng: Generator) -> Array:
    """Return a signed distance to the outline in units of the radius, positive inside (near the outline)."""
    if outline == "box":
        return np.float32(0.82) - np.maximum(np.abs(x), np.abs(y))
    if outline == "cross":
        ax, ay = np.abs(x), np.abs(y)
        return np.minimum(np.float32(0.95) - np.maximum(ax, ay), np.float32(0.36) - np.minimum(ax, ay))
    if outline == "triangle":
        return np.float32(0.5) - np.maximum(y, np.maximum(0.866 * x - 0.5 * y, -0.866 * x - 0.5 * y))
    r = np.sqrt(x * x + y * y)
    if outline == "ball":
        return np.float32(0.95) - r
    if outline == "ring":
        return np.float32(0.26) - np.abs(r - np.float32(0.7))
    if outline == "crescent":
        return np.minimum(np.float32(0.95) - r, np.sqrt((x - 0.45) ** 2 + y * y) - np.float32(0.6))
    angle = np.arctan2(y, x)
    if outline == "star":
        return np.float32(0.72) + np.float32(0.24) * np.cos(5 * angle) - r
    turn = np.float32(rng.uniform(0, 2 * np.pi))
    return np.float32(0.7) + np.float32(0.13) * (np.cos(3 * angle) + np.cos(2 * angle + turn)) - r


def paint_toy(picture: Array, patch: Patch, color: str, pattern: str, rng: Generator) -> None:
    """Paint a toy: body hue by color, the second color by pattern, 12 % of linear shading.

    Striped toys have near-black stripes, spotted ones near-white dots, checked ones squares of the same hue at about
    half the value. The second color is a deliberate cue.

    Args:
        picture: (H, W, 3) float32 in 0..1, changed in place.
        patch: Where the toy lies.
        color: One of `toy_captions.COLORS`.
        pattern: One of `toy_captions.PATTERNS`.
        rng: Where hue, period and angle come from.
    """
    hue, saturation, value = rng.uniform(*_HUES[color]), rng.uniform(0.65, 1.0), rng.uniform(0.65, 1.0)
    body = np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)
    second = {"striped": np.full(3, rng.uniform(0.02, 0.1)), "spotted": np.full(3, rng.uniform(0.9, 1.0))}.get(
        pattern, body * rng.uniform(0.35, 0.55)
    )
    mix = _pattern(pattern, patch, rng)[..., None]
    paint = body * (1 - mix) + second.astype(np.float32) * mix
    direction = rng.uniform(0, 2 * np.pi)
    slope = patch.u * np.float32(np.cos(direction)) + patch.v * np.float32(np.sin(direction))
    paint *= (1 + slope * np.float32(0.12 / max(patch.alpha.shape) * 2))[..., None]
    _blend(picture, patch, paint)


def _pattern(pattern: str, patch: Patch, rng: Generator) -> Array:
    """Return how much of the second color each pixel gets, (h, w) in 0..1."""
    if pattern == "plain":
        return np.zeros_like(patch.alpha)
    period, angle = rng.uniform(5.5, 9.0), rng.uniform(0, np.pi)
    cosine, sine = np.float32(np.cos(angle) / period), np.float32(np.sin(angle) / period)
    s = patch.u * cosine + patch.v * sine + np.float32(rng.uniform())
    t = patch.v * cosine - patch.u * sine + np.float32(rng.uniform())
    soft = np.float32(period)  # one pixel of ramp
    if pattern == "striped":
        return np.clip((np.float32(0.21) - np.abs(s - np.floor(s) - np.float32(0.5))) * soft + np.float32(0.5), 0, 1)
    if pattern == "spotted":
        ds, dt = s - np.floor(s) - np.float32(0.5), t - np.floor(t) - np.float32(0.5)
        return np.clip((np.float32(0.31) - np.sqrt(ds * ds + dt * dt)) * soft + np.float32(0.5), 0, 1)
    return ((np.floor(s) + np.floor(t)) % 2).astype(np.float32)


def paint_clutter(picture: Array, patch: Patch, rng: Generator) -> None:
    """Paint an object without a name: grey, cyan or orange, with rings or zigzags that nothing named has."""
    kind = int(rng.integers(3))
    hue, saturation = (0.0, 0.0) if kind == 2 else (rng.uniform(*_CLUTTER_HUES[kind]), rng.uniform(0.6, 0.9))
    bright = np.array(colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.7, 0.95)), np.float32)
    dark = np.array(colorsys.hsv_to_rgb(hue, saturation * 0.5, rng.uniform(0.25, 0.45)), np.float32)
    period = np.float32(rng.uniform(4.5, 7.5))
    if rng.random() < 0.5:
        wave = np.sqrt(patch.u**2 + patch.v**2) / period
    else:
        bent = patch.u / np.float32(1.6 * period) + np.float32(rng.uniform())
        wave = patch.v / period + 2 * np.abs(bent - np.floor(bent) - np.float32(0.5))
    mix = (np.float32(0.5) + np.float32(0.5) * np.sin(np.float32(2 * np.pi) * wave))[..., None]
    _blend(picture, patch, bright * mix + dark * (1 - mix))


def _blend(picture: Array, patch: Patch, paint: Array) -> None:
    view = picture[patch.rows, patch.columns]
    view += patch.alpha[..., None] * (paint - view)
