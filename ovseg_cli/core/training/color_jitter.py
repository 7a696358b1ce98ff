"""How do a training picture's colours change? SSD's jitter of brightness, contrast, saturation and hue.

Source: detectron2's ColorAugSSDTransform (Liu et al., 2016, SSD); each of the four happens one time in two. Order:
brightness; then by a fair coin either contrast, saturation, hue, or saturation, hue, contrast. Brightness and contrast
truncate to whole grey levels as theirs do, and are equal to the bit. Saturation and hue go through 8-bit HSV once, by
Pillow, instead of once each by OpenCV: hue in steps of 360/256 instead of 2 degrees, rounded down. Both approximate
the same formula; the tests hold ours against the formula itself.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

MAX_BRIGHTNESS = 32.0
CONTRAST = SATURATION = (0.5, 1.5)
MAX_HUE = 36
"""In degrees; theirs is 18 in steps of 2 degrees."""


@dataclass(frozen=True)
class Jitter:
    """What was drawn.

    Attributes:
        brightness: Added to grey levels of 0 to 255; 0 leaves them.
        contrast: Multiplies grey levels; 1 leaves them.
        saturation: Multiplies the saturation; 1 leaves it.
        hue: Degrees that colours turn, even; 0 leaves them.
        contrast_first: Contrast comes before saturation and hue.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: int = 0
    contrast_first: bool = True


def draw_jitter(rng: np.random.Generator) -> Jitter:
    """Draw a change of colours; consumes nine numbers."""
    coins = rng.random(5) < 0.5
    brightness, contrast, saturation, hue = rng.random(4)
    return Jitter(
        brightness=float(MAX_BRIGHTNESS * (2 * brightness - 1)) if coins[0] else 0.0,
        contrast=_between(CONTRAST, contrast) if coins[1] else 1.0,
        saturation=_between(SATURATION, saturation) if coins[2] else 1.0,
        hue=2 * (int(hue * (MAX_HUE + 1)) - MAX_HUE // 2) if coins[3] else 0,
        contrast_first=bool(coins[4]),
    )


def jitter_colors(image: Image.Image, jitter: Jitter) -> Image.Image:
    """Change the colours of an RGB picture."""
    first = _scaled(np.arange(256, dtype=np.uint8), 1.0, jitter.brightness)
    last = np.arange(256, dtype=np.uint8)
    if jitter.contrast_first:
        first = _scaled(first, jitter.contrast, 0.0)
    else:
        last = _scaled(last, jitter.contrast, 0.0)
    image = _looked_up(image, first, first, first)
    if jitter.saturation != 1 or jitter.hue:
        image = _turned(image, jitter)
    return _looked_up(image, last, last, last)


def _turned(image: Image.Image, jitter: Jitter) -> Image.Image:
    """Change saturation and hue."""
    levels = np.arange(256)
    hue = (levels + round(jitter.hue * 256 / 360)) % 256
    saturation = _scaled(levels, jitter.saturation, 0.0)
    return _looked_up(image.convert("HSV"), hue, saturation, levels).convert("RGB")


def _scaled(levels: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return np.clip(levels.astype(np.float32) * np.float32(factor) + np.float32(offset), 0, 255).astype(np.uint8)


def _looked_up(image: Image.Image, *tables: np.ndarray) -> Image.Image:
    levels = np.arange(256)
    if all((table == levels).all() for table in tables):
        return image
    return image.point(np.concatenate(tables).tolist())


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * float(share)
