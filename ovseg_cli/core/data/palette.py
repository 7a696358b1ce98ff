"""Which colour a class gets in overlays and legends: distinct, the same on every machine, kind to colour-blind eyes.

The first colours are a published set for all kinds of colour vision; the others follow one by one, each the candidate
that lies farthest from all before it, as usually seen and as seen without red or without green cones. So a longer list
begins with the shorter one, and a class keeps its colour when classes are added behind it.

Source: Okabe and Ito, "Color Universal Design", 2008 (the first seven); Ottosson, "A perceptual color space for image
processing", 2020 (OKLab, the distance); Viénot, Brettel, Mollon, Color Research and Application 1999 (missing cones).
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import Spec

_FIRST = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_LEVELS = np.arange(5, 256, 10)  # 26 levels a channel, 17 576 candidates
_DARKEST = 0.35  # OKLab lightness; black stays free for background and ignored pixels
_TO_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
_TO_OKLAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip
_WITHOUT_RED = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
_WITHOUT_GREEN = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])


def colors(n: int, background: int | None = None) -> np.ndarray:
    """Return the colours of n classes.

    Args:
        n: Number of classes, 0 to about 10 000.
        background: Train id that is painted black; the other classes keep their colours.

    Returns:
        (n, 3) uint8 RGB, all different.
    """
    table = _ordered(max(64, 1 << (n - 1).bit_length()) if n else 64)[:n].copy()
    if background is not None:
        table[background] = 0
    return table


def spec_colors(spec: "Spec") -> np.ndarray:
    """Return the colours of a data set's classes: the spec's own where every class has one, else `colors`.

    Returns:
        (K, 3) uint8 RGB.
    """
    own = [c.color for c in spec.classes]
    if own and all(own):
        return np.array(own, np.uint8)
    return colors(spec.num_classes, spec.background.train_id if spec.background else None)


@lru_cache(maxsize=4)
def _ordered(n: int) -> np.ndarray:
    """Choose n colours greedily, (n, 3) uint8."""
    candidates = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), -1).reshape(-1, 3)
    candidates = candidates[_oklab(_linear(candidates))[:, 0] >= _DARKEST]
    chosen = [np.array(color) for color in _FIRST]
    place, seen = _place(candidates), _place(np.array(_FIRST))
    distances = np.min([_squared_distance(place, one) for one in seen], axis=0)
    while len(chosen) < n:
        best = int(distances.argmax())
        if distances[best] <= 0:
            raise ValueError(f"{n} classes are more than the {len(chosen)} distinct colours")
        chosen.append(candidates[best])
        distances = np.minimum(distances, _squared_distance(place, place[best]))
    return np.array(chosen, np.uint8)


def _place(rgb: np.ndarray) -> np.ndarray:
    """Where colours lie for usual eyes, for eyes without red and for eyes without green cones, (n, 9)."""
    linear = _linear(rgb)
    views = [linear, linear @ _WITHOUT_RED.T, linear @ _WITHOUT_GREEN.T]
    return np.concatenate([_oklab(np.clip(view, 0, 1)) for view in views], axis=1)


def _squared_distance(places: np.ndarray, one: np.ndarray) -> np.ndarray:
    return np.round(((places - one) ** 2).sum(axis=1), 9)  # so that rounding never decides on another machine


def _linear(rgb: np.ndarray) -> np.ndarray:
    values = np.asarray(rgb, np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _oklab(linear: np.ndarray) -> np.ndarray:
    return np.cbrt(linear @ _TO_CONES.T) @ _TO_OKLAB.T
